"""What every backend in this process is: a model behind one engine, safe to call from threads."""

from __future__ import annotations

import weakref

from recallm_core.backends import GenerationRequest
from recallm_core.backends.checks import check_request
from recallm_core.backends.local.engine import Engine, OnPrefill
from recallm_core.backends.stream import EngineStream, Job


class EngineBackend:
    """A backend over an engine; whoever makes one sets ``window`` and ``vocab_size``.

    Attributes:
        window: The model's context length: tokens that it can attend to.
        vocab_size: The width of its logits.
    """

    in_process = True
    window: int
    vocab_size: int

    def _run(self, engine: Engine) -> None:
        """Takes the engine; it ends with this object at the latest."""
        self._engine = engine
        self._stop = weakref.finalize(self, engine.stop)

    @property
    def on_prefill(self) -> OnPrefill | None:
        """Called by the worker while it reads a prompt, with the tokens read and their total."""
        return self._engine.on_prefill

    @on_prefill.setter
    def on_prefill(self, callback: OnPrefill | None) -> None:
        self._engine.on_prefill = callback

    def generate(self, request: GenerationRequest) -> EngineStream:
        """Queues a request and returns its stream at once.

        Raises:
            ContextOverflowError: Prompt and output don't fit the context length.
            ConstraintError: The request's rules were made for another vocabulary or prompt.
            ValueError: The prompt is empty, or a sampling value is out of range.
        """
        check_request(request, vocab_size=self.vocab_size, context_length=self.window)
        job = Job(request)
        stream = EngineStream(job, self)
        self._engine.submit(job)
        return stream

    def close(self) -> None:
        """Ends all streams and frees the model's caches; safe to call twice."""
        self._stop()
