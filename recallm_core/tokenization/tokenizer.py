"""The tokenizer seam: plain text to ids with exact character offsets, and ids back to text.

Untrusted text never becomes a control token: it is encoded by a copy of the tokenizer that knows
no added tokens at all, and what comes back is checked. Offsets are derived from the bytes of the
tokens where the tokenizer is lossless, so that known faults of offset maps can't matter; a lossy
tokenizer's own offsets are verified token by token, and what can't be verified isn't copyable.
"""

from __future__ import annotations

import codecs
import copy
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from recallm_core.errors import RecallmError, TokenizerError
from recallm_core.inputs.extras import needs
from recallm_core.inputs.model_files import MOST_IDS, check_file_sizes, check_ids
from recallm_core.tokenization.chat_template import render
from recallm_core.tokenization.plain_encoder import PlainEncoder
from recallm_core.tokenization.plain_encoder import PlainTokens as PlainTokens
from recallm_core.tokenization.plain_state import (
    byte_table,
    plain_tokenizer,
    rebuild,
    shareable,
    template_state,
    unknown_id,
)

_REPLY = "RECALLMREPLY"


class Detokenizer(Protocol):
    """Turns ids into text as they come; holds incomplete characters back."""

    def feed(self, token: int) -> str:
        """Returns the text that this token completes; empty for control tokens."""

    def flush(self) -> str:
        """Returns what was held back, replacement characters for broken bytes."""


class Tokenizer(Protocol):
    """What the prompt builder and the trace need of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal tokenizers."""

    @property
    def control_ids(self) -> frozenset[int]:
        """Every id that plain text must not produce."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an output, the usual one first."""

    def encode_plain(self, text: str) -> PlainTokens:
        """Encodes untrusted text; no control token comes out."""

    def encode_template(self, text: str) -> list[int]:
        """Encodes our own wording, in which control tokens are recognised."""

    def control_id(self, token: str) -> int | None:
        """The id of a control token, or None where it isn't one token."""

    def token_bytes(self, token: int) -> bytes | None:
        """What a token stands for; None for control tokens and lossy tokenizers."""

    def detokenizer(self) -> Detokenizer:
        """A fresh incremental decoder."""

    def render_chat(self, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
        """Renders the chat template with the opening of the assistant's turn at its end."""


class ByteDetokenizer:
    """Incremental decoding for tokenizers whose tokens are bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """Returns the characters that this token completes."""
        return self._decoder.decode(self._tokenizer.token_bytes(token) or b"")

    def flush(self) -> str:
        """Returns a replacement character where bytes were left over."""
        return self._decoder.decode(b"", final=True)


class _WholeDetokenizer:
    """Decoding for lossy tokenizers: decode everything, hand out what is new."""

    def __init__(self, tokenizer: HFTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._given = ""

    def feed(self, token: int) -> str:
        if token in self._tokenizer.control_ids:
            return ""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("�") or not text.startswith(self._given):
            return ""
        new = text[len(self._given) :]
        self._given = text
        return new

    def flush(self) -> str:
        return self._tokenizer.decode(self._ids)[len(self._given) :]


class HFTokenizer:
    """A fast Hugging Face tokenizer behind the seam.

    Args:
        tokenizer: A ``PreTrainedTokenizerFast``.
        eos_ids: More ids that end an output (from the generation config).

    Raises:
        TokenizerError: The tokenizer is a slow one.
    """

    def __init__(self, tokenizer: Any, *, eos_ids: Iterable[int] = ()) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise TokenizerError(
                f"{type(tokenizer).__name__} is a slow tokenizer, which gives no offsets; convert "
                "it with AutoTokenizer.from_pretrained(folder, use_fast=True)"
                ".save_pretrained(folder) and load that"
            )
        self.tokenizer = tokenizer
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        vocab: dict[str, int] = tokenizer.get_vocab()
        self._vocab_size = max(vocab.values(), default=-1) + 1
        if not 0 < self._vocab_size <= MOST_IDS:
            raise TokenizerError(
                f"the tokenizer's ids reach {self._vocab_size - 1:,}; expected some, and at most "
                f"{MOST_IDS:,}"
            )
        self._controls = _control_names(tokenizer)
        roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        unknown = unknown_id(state, vocab)
        unknown_token = -1 if unknown in roles else unknown
        holes = set(range(self._vocab_size)).difference(vocab.values())
        self._control_ids = frozenset(holes.union(self._controls.values()) - {unknown_token})
        model = shareable(tokenizer.backend_tokenizer, state)
        self._template = rebuild(template_state(state), model)
        hidden = self._control_ids | {unknown_token}
        self._bytes = byte_table(state, vocab, self._vocab_size, hidden)
        plain = plain_tokenizer(state, self._control_ids, model)
        self._encoder = PlainEncoder(plain, self._control_ids, unknown_token, self._bytes)
        usual = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        self._switches: dict[str, Any] = {}
        self._system_turn = True
        self._beginning = _beginning(tokenizer)
        self._eos = self._ends([*usual, *(int(i) for i in eos_ids), *self._turn_ends()])
        state |= {"truncation": None, "padding": None}  # set and unset by calls, so not its own
        described = json.dumps(state, sort_keys=True) + repr(tokenizer.chat_template)
        self._fingerprint = hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def _ends(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids that can end an output: text must not, and logits must exist."""
        return tuple(i for i in dict.fromkeys(ids) if i in self._control_ids)

    def _turn_ends(self) -> list[int]:
        """The control token that the chat template writes after a reply, if it writes one."""
        if not self.tokenizer.chat_template:
            return []
        conversation = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _REPLY}]
        try:
            text = str(self.tokenizer.apply_chat_template(conversation, tokenize=False))
        except Exception:  # templates raise whatever Jinja lets them
            return []
        _, reply, after = text.rpartition(_REPLY)
        return self.encode_template(after.lstrip())[:1] if reply else []

    def rendering(self, switches: Mapping[str, Any], *, system_turn: bool = True) -> HFTokenizer:
        """Returns this tokenizer, rendering conversations in another way; the tables are shared.

        Args:
            switches: What the chat template is told; ``chat_template`` replaces it.
            system_turn: Whether it is given system turns; otherwise it refuses them, so that
                what they say finds its place in the first user turn.
        """
        twin = copy.copy(self)
        twin._switches, twin._system_turn = dict(switches), system_turn
        return twin

    @classmethod
    def from_folder(
        cls, path: str | Path, *, eos_ids: Iterable[int] = (), **options: Any
    ) -> HFTokenizer:
        """Loads the tokenizer of a model folder or hub id; runs no code of it.

        Raises:
            TokenizerError: There is none, or one that can't be used.
            CheckpointError: A file of the folder is larger than any model's.
        """
        logging.getLogger("transformers").addFilter(_asks_for_no_torch)
        with needs("server", "a model's tokenizer"):
            from transformers import AutoTokenizer
        if Path(path).is_dir():
            check_file_sizes(Path(path))
            check_ids(Path(path))
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(path), use_fast=True, trust_remote_code=False, **options
            )
        except Exception as error:  # transformers raises many kinds
            raise TokenizerError(
                f"no usable tokenizer at {path}: {error}; a model folder needs tokenizer.json "
                "beside its weights"
            ) from error
        try:
            return cls(tokenizer, eos_ids=eos_ids)
        except RecallmError:
            raise
        except Exception as error:  # its files may hold anything
            raise TokenizerError(
                f"the tokenizer at {path} can't be used: {type(error).__name__}: {error}"
            ) from error

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return self._vocab_size

    @property
    def fingerprint(self) -> str:
        """A digest of the tokenizer and its chat template."""
        return self._fingerprint

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids of added tokens (but for plain white space), and ids that no token has."""
        return self._control_ids

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an output."""
        return self._eos

    def control_id(self, token: str) -> int | None:
        """The id of a control token, or None where it isn't one."""
        return self._controls.get(token)

    def token_bytes(self, token: int) -> bytes | None:
        """What a token stands for, where that is known exactly."""
        return self._bytes[token] if 0 <= token < len(self._bytes) else None

    def detokenizer(self) -> Detokenizer:
        """A fresh incremental decoder."""
        return ByteDetokenizer(self) if any(self._bytes) else _WholeDetokenizer(self)

    def decode(self, ids: Sequence[int]) -> str:
        """Decodes ids with the tokenizer's own decoder."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def render_chat(self, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
        """Renders the chat template, in a sandbox and within bounds of time and size."""
        if not self._system_turn and any(m["role"] == "system" for m in messages):
            raise TokenizerError("this model's makers advise against system turns")
        variables = {"tools": None, "documents": None, **self.tokenizer.special_tokens_map}
        variables |= self._switches | options
        fallback = variables.pop("chat_template", None)
        if self.tokenizer.chat_template:
            template = self.tokenizer.get_chat_template(None, variables["tools"])
            return render(template, messages, add_generation_prompt=True, **variables)
        if fallback is None:
            return self._beginning + _plain_chat(messages)
        return self._beginning + render(fallback, messages, add_generation_prompt=True, **variables)

    def encode_template(self, text: str) -> list[int]:
        """Encodes our own wording; control tokens in it are recognised."""
        return list(self._template.encode(text, add_special_tokens=False).ids) if text else []

    def encode_plain(self, text: str) -> PlainTokens:
        """Encodes untrusted text exactly.

        Raises:
            TokenizerError: A single character can only be written as a control token.
        """
        return self._encoder.encode(text)

    def encode_many(self, texts: Sequence[str]) -> list[PlainTokens]:
        """Encodes untrusted texts, each by itself; cheaper than one by one where they are short.

        Raises:
            TokenizerError: A single character can only be written as a control token.
        """
        return self._encoder.encode_many(texts)


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[PlainTokens]:
    """Encodes untrusted texts by the cheapest way that the tokenizer has."""
    if isinstance(tokenizer, HFTokenizer):
        return tokenizer.encode_many(texts)
    return [tokenizer.encode_plain(text) for text in texts]


def _asks_for_no_torch(record: logging.LogRecord) -> bool:
    """Whether transformers says anything else than that it would rather have torch beside it."""
    return "PyTorch was not found" not in record.getMessage()


def _control_names(tokenizer: Any) -> dict[str, int]:
    """Added tokens and special ones, but for those that are only white space."""
    added = tokenizer.added_tokens_decoder
    named = {t.content: int(i) for i, t in added.items() if _is_control(t)}
    vocab = tokenizer.get_vocab()
    special = (str(token) for token in tokenizer.all_special_tokens)
    return named | {token: vocab[token] for token in special if token in vocab}


def _is_control(token: Any) -> bool:
    return bool(token.special) or bool(token.content.replace("▁", " ").strip())


def _beginning(tokenizer: Any) -> str:
    """The token that the tokenizer itself puts at the beginning of a text, if any."""
    begin = tokenizer.bos_token_id
    ids = tokenizer("x").input_ids
    return str(tokenizer.bos_token) if begin is not None and ids[:1] == [begin] else ""


def _plain_chat(messages: Sequence[Mapping[str, str]]) -> str:
    """For base models without a template: the contents, one after another."""
    return "\n\n".join(m["content"] for m in messages if m["content"]) + "\n\n"
