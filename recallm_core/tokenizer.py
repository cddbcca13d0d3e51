"""The tokenizer seam: plain text to ids with exact character offsets, and ids back to text.

Untrusted text never becomes a control token: it is encoded by a copy of the tokenizer that knows
no added tokens at all, and what comes back is checked. Offsets are derived from the bytes of the
tokens where the tokenizer is lossless, so that known faults of offset maps can't matter; a lossy
tokenizer's own offsets are verified token by token, and what can't be verified isn't copyable.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recallm_core.constraint_spec import PAST, Tag
from recallm_core.errors import TokenizerError

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
        self._plain = _rebuild(_plain_state(state))
        self._template = _rebuild(_template_state(state))
        added = tokenizer.added_tokens_decoder
        self._controls = {t.content: i for i, t in added.items() if _is_control(t)}
        for token in tokenizer.all_special_tokens:
            self._controls.setdefault(str(token), tokenizer.convert_tokens_to_ids(str(token)))
        unknown = tokenizer.unk_token_id
        self._unknown = -1 if unknown is None else int(unknown)
        self._control_ids = frozenset(self._controls.values()) - {self._unknown}
        self._vocab_size = int(max(tokenizer.get_vocab().values())) + 1
        hidden = self._control_ids | {self._unknown}
        self._bytes = _byte_table(tokenizer, state, self._vocab_size, hidden)
        self._lengths = np.array([len(b) if b else 0 for b in self._bytes], dtype=np.int64)
        usual = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        self._eos = tuple(dict.fromkeys([*usual, *(int(i) for i in eos_ids)]))
        self._fingerprint = hashlib.blake2b(
            (tokenizer.backend_tokenizer.to_str() + repr(tokenizer.chat_template)).encode(),
            digest_size=16,
        ).hexdigest()

    @classmethod
    def from_folder(
        cls, path: str | Path, *, eos_ids: Iterable[int] = (), **options: Any
    ) -> HFTokenizer:
        """Loads the tokenizer of a model folder or hub id; runs no code of it."""
        from transformers import AutoTokenizer

        try:
            found = AutoTokenizer.from_pretrained(
                str(path), use_fast=True, trust_remote_code=False, **options
            )
        except Exception as error:  # transformers raises many kinds
            raise TokenizerError(
                f"no usable tokenizer at {path}: {error}; a model folder needs tokenizer.json "
                "beside its weights"
            ) from error
        return cls(found, eos_ids=eos_ids)

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
        """Ids of added tokens, but for those that are only white space."""
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
        """Renders the chat template (sandboxed by transformers)."""
        if not self.tokenizer.chat_template:
            return _plain_chat(messages)
        return str(
            self.tokenizer.apply_chat_template(
                [dict(m) for m in messages],
                tokenize=False,
                add_generation_prompt=True,
                **options,
            )
        )

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
        encoding = self._plain.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.int32)
        if self._has_controls(ids):
            return self._encode_around_controls(text, encoding)
        exact = self._exact_offsets(text, ids)
        return self._checked_offsets(text, encoding, ids) if exact is None else exact

    def _has_controls(self, ids: Ints32) -> bool:
        return not self._control_ids.isdisjoint(ids.tolist())

    def _exact_offsets(self, text: str, ids: Ints32) -> PlainTokens | None:
        """Offsets from the tokens' bytes; None unless the tokens spell the text exactly."""
        data = text.encode("utf-8")
        lengths = self._lengths[ids]
        if int(lengths.sum()) != len(data) or not lengths.all():
            return None
        table = self._bytes
        if b"".join([table[i] or b"" for i in ids.tolist()]) != data:
            return None
        ends = np.cumsum(lengths)
        starts = ends - lengths
        if len(data) != len(text):
            char_of = np.cumsum((np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80) - 1
            starts, ends = char_of[starts], char_of[ends - 1] + 1
        return PlainTokens(
            ids, starts.astype(np.int32), ends.astype(np.int32), np.ones(len(ids), dtype=np.bool_)
        )

    def _checked_offsets(self, text: str, encoding: Any, ids: Ints32) -> PlainTokens:
        """The tokenizer's own offsets; a token that they don't fit isn't copyable."""
        offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        starts = np.maximum.accumulate(np.clip(offsets[:, 0], 0, len(text)))
        ends = np.maximum.accumulate(np.clip(offsets[:, 1], 0, len(text)))
        in_order = (starts == offsets[:, 0]) & (ends == offsets[:, 1]) & (starts < ends)
        fits = np.fromiter(
            (
                ok and token != self._unknown and _fold(_bare(piece)) == _fold(text[a:b])
                for ok, token, piece, a, b in zip(
                    in_order.tolist(),
                    ids.tolist(),
                    encoding.tokens,
                    starts.tolist(),
                    ends.tolist(),
                    strict=True,
                )
            ),
            dtype=np.bool_,
            count=len(ids),
        )
        return PlainTokens(ids, starts, ends, fits)

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
            pieces.append((last, self.encode_plain(text[last:start])))
            pieces.extend((i, self.encode_plain(text[i])) for i in range(start, end))
            last = end
        pieces.append((last, self.encode_plain(text[last:])))
        return _joined(pieces)


def text_tag(tokenizer: Tokenizer, text: str) -> Tag:
    """Builds a tag that the model writes as ordinary text.

    Raises:
        TokenizerError: The tokenizer is lossy, or can't spell the tag.
    """
    mark = text.encode("utf-8")
    first, size = mark[:1], len(mark)
    fixed = tokenizer.encode_plain(text)
    spelled = b"".join(tokenizer.token_bytes(int(i)) or b"" for i in fixed.ids)
    if spelled != mark or mark.count(first) != 1 or len(text) != size:
        raise TokenizerError(
            f"the mark {text!r} can't be held to one spelling with this tokenizer; use a model "
            "whose tokenizer is lossless (byte-level BPE or SentencePiece with byte fallback)"
        )
    watch: list[dict[int, int]] = [{} for _ in range(size)]
    for token in range(tokenizer.vocab_size):
        piece = tokenizer.token_bytes(token)
        if piece:
            _watch_piece(watch, mark, token, piece)
    rest = tuple(tuple(tokenizer.encode_plain(text[s:]).ids.tolist()) for s in range(size))
    begun = min(5, size - 1)
    return Tag(text, rest[0], False, tuple(watch), rest, begun)


def _watch_piece(watch: list[dict[int, int]], mark: bytes, token: int, piece: bytes) -> None:
    size = len(mark)
    at = piece.find(mark)
    if at >= 0:
        watch[0][token] = size if at + size == len(piece) else PAST
    elif mark[:1] in piece:
        tail = piece[piece.rindex(mark[:1]) :]
        watch[0][token] = len(tail) if mark.startswith(tail) else 0
    for state in range(1, size):
        left = mark[state:]
        if left.startswith(piece):
            watch[state][token] = state + len(piece)
        elif piece.startswith(left):
            watch[state][token] = PAST


def control_tag(tokenizer: Tokenizer, text: str) -> Tag | None:
    """Builds a tag that is one control token; None where the tokenizer has no such token."""
    found = tokenizer.control_id(text)
    return None if found is None else Tag(text, (found,))


def _is_control(token: Any) -> bool:
    return bool(token.special) or bool(token.content.replace("▁", " ").strip())


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


def _rebuild(state: Mapping[str, Any]) -> Any:
    from tokenizers import Tokenizer as Backend

    return Backend.from_str(json.dumps(state))


def _template_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer without truncation, padding, post-processing and without a dummy space."""
    return {
        **state,
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "normalizer": _without_prepend(state.get("normalizer")),
        "pre_tokenizer": _without_prepend(state.get("pre_tokenizer")),
    }


def _plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same without any added token; a byte-level tokenizer loses its normaliser too.

    Normal forms are for matching, not for copying: without NFC a byte-level tokenizer spells every
    text exactly.
    """
    plain = _template_state(state) | {"added_tokens": []}
    if _is_byte_level(state):
        plain["normalizer"] = None
    return plain


def _without_prepend(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        kept = [k for k in (_without_prepend(p) for p in part[key]) if k is not None]
        return {**part, key: kept}
    if part.get("type") == "Prepend":
        return None
    if part.get("type") == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if part.get("type") == "ByteLevel":
        return {**part, "add_prefix_space": False}
    return part


def _parts(part: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(part, dict):
        yield part
        for key in ("normalizers", "pretokenizers", "decoders"):
            for child in part.get(key) or ():
                yield from _parts(child)


def _is_byte_level(state: Mapping[str, Any]) -> bool:
    stages = (state.get("pre_tokenizer"), state.get("decoder"))
    return any(p.get("type") == "ByteLevel" for stage in stages for p in _parts(stage))


def _byte_table(
    tokenizer: Any, state: Mapping[str, Any], size: int, hidden: frozenset[int]
) -> list[bytes | None]:
    """What each id stands for; all None for tokenizers that aren't made of bytes or pieces."""
    table: list[bytes | None] = [None] * size
    byte_level = _is_byte_level(state)
    pieces = any(
        p.get("type") in ("Metaspace", "ByteFallback") for p in _parts(state.get("decoder"))
    )
    if not byte_level and not pieces:
        return table
    to_byte = _byte_alphabet()
    added = tokenizer.added_tokens_decoder
    for token, number in tokenizer.get_vocab().items():
        if number in hidden:
            continue
        if number in added:
            table[number] = added[number].content.replace("▁", " ").encode()
        elif byte_level:
            spelled = [to_byte.get(c, -1) for c in token]
            table[number] = bytes(spelled) if min(spelled, default=-1) >= 0 else None
        else:
            table[number] = _piece_bytes(token)
    return table


def _piece_bytes(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-ins that byte-level tokenizers write bytes with (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(rest)}


def _bare(piece: str) -> str:
    return piece.removeprefix("##").replace("▁", " ")


def _fold(text: str) -> str:
    """Case, accents and white space aside: what lossy tokenizers drop."""
    spread = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in spread if not unicodedata.combining(c) and not c.isspace())
