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
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recallm_core.errors import RecallmError, TokenizerError
from recallm_core.inputs.model_files import MOST_IDS, check_file_sizes, check_ids
from recallm_core.tokenization.chat_template import render
from recallm_core.tokenization.plain_state import (
    byte_table,
    plain_tokenizer,
    rebuild,
    template_state,
    unknown_id,
)

_REMEMBERED = 65_536  # single characters whose encoding is kept
_REPLY = "RECALLMREPLY"

Ints32 = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PlainTokens:
    """A text's tokens with where each stands in it.

    Attributes:
        ids: Token ids.
        starts: First character of each token; a token inside a character has that character's.
        ends: One past the last character that a token has a share in.
        copyable: Whether the token stands for exactly that slice; unknown tokens never do.
    """

    ids: Ints32
    starts: Ints32
    ends: Ints32
    copyable: Bools


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
        self._unknown = -1 if unknown in roles else unknown
        holes = set(range(self._vocab_size)).difference(vocab.values())
        self._control_ids = frozenset(holes.union(self._controls.values()) - {self._unknown})
        self._plain = plain_tokenizer(state, self._control_ids)
        self._template = rebuild(template_state(state))
        hidden = self._control_ids | {self._unknown}
        self._bytes = byte_table(state, vocab, self._vocab_size, hidden)
        self._spelled = [b or b"" for b in self._bytes]
        self._lengths = np.array([len(b) for b in self._spelled], dtype=np.int32)
        self._is_control = np.zeros(self._vocab_size, dtype=np.bool_)
        self._is_control[list(self._control_ids)] = True
        self._characters: dict[str, PlainTokens] = {}
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
        return ByteDetokenizer(self) if self._lengths.any() else _WholeDetokenizer(self)

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
        if not text:
            return _no_tokens()
        return self._located(text, self._plain.encode(text, add_special_tokens=False))

    def encode_many(self, texts: Sequence[str]) -> list[PlainTokens]:
        """Encodes untrusted texts, each by itself; cheaper than one by one where they are short.

        Raises:
            TokenizerError: A single character can only be written as a control token.
        """
        encodings = [self._plain.encode(text, add_special_tokens=False) for text in texts]
        listed: list[list[int]] = [encoding.ids for encoding in encodings]
        sizes = np.array([len(ids) for ids in listed], dtype=np.int64)
        flat = list(chain.from_iterable(listed))
        together = self._exact_offsets("".join(texts), np.array(flat, dtype=np.int32), flat)
        bases = np.cumsum([0, *map(len, texts)])
        if together is None or self._is_control[together.ids].any():
            encoded = zip(texts, encodings, strict=True)
            return [self._located(text, encoding) for text, encoding in encoded]
        stops = np.concatenate([[0], np.cumsum(sizes)])
        parts = zip(texts, encodings, stops[:-1].tolist(), stops[1:].tolist(), strict=True)
        base = np.repeat(bases[:-1], sizes).astype(np.int32)
        size = np.repeat(np.diff(bases), sizes)
        starts, ends = together.starts - base, together.ends - base
        if (starts < 0).any() or (ends > size).any():  # the spellings agree only as a whole
            return [self._located(text, encoding) for text, encoding, _, _ in parts]
        return [
            PlainTokens(together.ids[a:b], starts[a:b], ends[a:b], together.copyable[a:b])
            for _, _, a, b in parts
        ]

    def _located(self, text: str, encoding: Any) -> PlainTokens:
        listed: list[int] = encoding.ids
        ids = np.array(listed, dtype=np.int32)
        if self._is_control[ids].any():
            return self._encode_around_controls(text, encoding)
        exact = self._exact_offsets(text, ids, listed)
        if exact is not None:
            return exact
        offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        checked = self._checked_bytes if self._lengths.any() else self._checked_folds
        return checked(text, ids, *_ascending(offsets, len(text)))

    def _exact_offsets(self, text: str, ids: Ints32, listed: list[int]) -> PlainTokens | None:
        """Offsets from the tokens' bytes; None unless the tokens spell the text exactly."""
        data = text.encode("utf-8")
        lengths = self._lengths[ids]
        if int(lengths.sum()) != len(data) or not lengths.all():
            return None
        if b"".join(map(self._spelled.__getitem__, listed)) != data:
            return None
        return PlainTokens(ids, *_character_offsets(data, lengths), np.ones(len(ids), np.bool_))

    def _checked_bytes(
        self, text: str, ids: Ints32, starts: Ints32, ends: Ints32, in_order: Bools
    ) -> PlainTokens:
        """Copyable where the tokens that share a slice spell just that slice."""
        copyable = np.zeros(len(ids), dtype=np.bool_)
        apart = np.flatnonzero(starts[1:] >= ends[:-1]) + 1
        groups = zip([0, *apart.tolist()], [*apart.tolist(), len(ids)], strict=True)
        for first, last in groups:
            a, b = int(starts[first]), int(ends[last - 1])
            data = text[a:b].encode("utf-8")
            spelled = [self._spelled[i] for i in ids[first:last].tolist()]
            if not in_order[first:last].all() or not all(spelled) or b"".join(spelled) != data:
                continue
            copyable[first:last] = True
            if last - first > 1:
                lengths = self._lengths[ids[first:last]]
                inner = _character_offsets(data, lengths)
                starts[first:last], ends[first:last] = inner[0] + a, inner[1] + a
        return PlainTokens(ids, starts, ends, copyable)

    def _checked_folds(
        self, text: str, ids: Ints32, starts: Ints32, ends: Ints32, in_order: Bools
    ) -> PlainTokens:
        """Copyable where token and slice are alike but for case, accents and white space."""
        slices = zip(ids.tolist(), starts.tolist(), ends.tolist(), strict=True)
        alike = (i != self._unknown and self._folded(i) == _fold(text[a:b]) for i, a, b in slices)
        copyable = np.fromiter(alike, dtype=np.bool_, count=len(ids)) & in_order
        return PlainTokens(ids, starts, ends, copyable)

    def _folded(self, token: int) -> str:
        return _fold(str(self._plain.id_to_token(token)).removeprefix("##"))

    def _encode_around_controls(self, text: str, encoding: Any) -> PlainTokens:
        """Encodes character by character where a whole piece would be a control token."""
        bad = [
            offsets
            for token, offsets in zip(encoding.ids, encoding.offsets, strict=True)
            if token in self._control_ids
        ]
        pieces: list[tuple[int, PlainTokens]] = []
        last = 0
        for start, end in bad:
            start, end = max(start, last), max(end, last)
            if start == end or (end - start == 1 and len(text) == 1):
                raise TokenizerError(
                    f"the tokenizer writes {text[start : start + 20]!r} only as a control token; "
                    "it can't be used with untrusted text"
                )
            if last < start:
                pieces.append((last, self.encode_plain(text[last:start])))
            pieces.extend((i, self._encode_character(text[i])) for i in range(start, end))
            last = end
        pieces.append((last, self.encode_plain(text[last:])))
        return _joined(pieces)

    def _encode_character(self, character: str) -> PlainTokens:
        """One character by itself; remembered, for hostile texts hold many of the few there are."""
        tokens = self._characters.get(character)
        if tokens is None:
            tokens = self.encode_plain(character)
            if len(self._characters) < _REMEMBERED:
                self._characters[character] = tokens
        return tokens


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[PlainTokens]:
    """Encodes untrusted texts by the cheapest way that the tokenizer has."""
    if isinstance(tokenizer, HFTokenizer):
        return tokenizer.encode_many(texts)
    return [tokenizer.encode_plain(text) for text in texts]


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


def _character_offsets(data: bytes, lengths: Ints32) -> tuple[Ints32, Ints32]:
    """First character, and one past the last, of tokens that spell UTF-8 ``data``."""
    ends = np.cumsum(lengths, dtype=np.int32)
    starts = ends - lengths
    if data.isascii():
        return starts, ends
    begins = (np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80
    character = np.cumsum(begins, dtype=np.int32) - np.int32(1)
    return character[starts], character[ends - 1] + np.int32(1)


def _ascending(offsets: Ints32, size: int) -> tuple[Ints32, Ints32, Bools]:
    """Starts and ends forced into order, and which of them were in order by themselves."""
    starts = np.maximum.accumulate(np.clip(offsets[:, 0], 0, size))
    ends = np.maximum.accumulate(np.clip(offsets[:, 1], 0, size))
    same: Bools = (starts == offsets[:, 0]) & (ends == offsets[:, 1]) & (starts < ends)
    return starts, ends, same


def _no_tokens() -> PlainTokens:
    none = np.empty(0, dtype=np.int32)
    return PlainTokens(none, none, none, np.empty(0, dtype=np.bool_))


def _joined(pieces: Sequence[tuple[int, PlainTokens]]) -> PlainTokens:
    return PlainTokens(
        np.concatenate([p.ids for _, p in pieces]),
        np.concatenate([p.starts + np.int32(at) for at, p in pieces]),
        np.concatenate([p.ends + np.int32(at) for at, p in pieces]),
        np.concatenate([p.copyable for _, p in pieces]),
    )


def _plain_chat(messages: Sequence[Mapping[str, str]]) -> str:
    """For base models without a template: the contents, one after another."""
    return "\n\n".join(m["content"] for m in messages if m["content"]) + "\n\n"


@lru_cache(maxsize=65_536)
def _fold(text: str) -> str:
    """Case, accents and white space aside: what lossy tokenizers drop."""
    if text.isascii():
        return "".join(text.lower().split())
    spread = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in spread if not unicodedata.combining(c) and not c.isspace())
