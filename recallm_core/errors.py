"""What a caller of RecaLLM may catch."""

from __future__ import annotations


class RecallmError(Exception):
    """The base of every error that this library raises on purpose."""


class DocumentError(RecallmError, ValueError):
    """A document, or a file that should become one, can't be used as it is."""


class TokenizerError(RecallmError, ValueError):
    """A tokenizer can't give exact offsets, or lacks something that a prompt needs."""


class CheckpointError(RecallmError, ValueError):
    """A model folder is missing, incomplete, unsafe, or of a kind that can't be loaded."""


class ContextOverflowError(RecallmError, ValueError):
    """Prompt and reserve don't fit the model's context length.

    Attributes:
        prompt_tokens: Tokens of the prompt as it would be sent.
        reserve_tokens: Tokens kept free for the model's output.
        window: The context length: tokens that the model can attend to, input and output together.
    """

    def __init__(self, prompt_tokens: int, reserve_tokens: int, window: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.reserve_tokens = reserve_tokens
        self.window = window
        reserve = f" and {reserve_tokens:,} are kept for the output" if reserve_tokens else ""
        super().__init__(
            f"the prompt has {prompt_tokens:,} tokens{reserve}, but the model's context length is "
            f"{window:,}; give fewer or shorter documents, build a CorpusIndex and let it pack "
            "them (recallm index build, then recallm ask --index), shorten the question, or lower "
            "max_new_tokens"
        )


class ConstraintError(RecallmError, ValueError):
    """A constraint was built from, or fed, something that its rules don't allow."""


class CitationError(RecallmError):
    """A quote isn't the exact slice of its document: a fault of this library, never hidden."""


class GenerationError(RecallmError):
    """A backend failed while it generated; the original exception is the ``__cause__``."""


class GenerationCancelledError(GenerationError):
    """The caller cancelled, or closed the stream, before the answer was complete."""


class ReplyError(GenerationError):
    """A model that was asked for JSON of a schema replied with something else."""


class ServerError(GenerationError):
    """A model server can't be reached, refuses, isn't set up for recall, or broke off."""


class CorpusIndexError(RecallmError):
    """A saved index is corrupt, of another version, made by another embedder, or locked."""


class MissingExtraError(RecallmError, ImportError):
    """An optional dependency isn't installed; the message holds the command that installs it."""


class MessageError(RecallmError, ValueError):
    """What should be a text or a model's message is neither."""
