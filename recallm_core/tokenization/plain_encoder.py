"""Untrusted text to token ids, each token's place in the text exact."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recallm_core.errors import TokenizerError

_REMEMBERED = 65_536  # single characters whose encoding is kept
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


def _character_offsets(data: bytes, lengths: Ints32) -> tuple[Ints32, Ints32]:
    """First character, and one past the last, of tokens that spell UTF-8 ``data``."""
    ends = np.cumsum(lengths, dtype=np.int32)
    starts = ends - lengths
    if data.isascii():
        return starts, ends
    begins = (np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80
    character = np.cumsum(begins, dtype=np.int32) - np.int32(1)
    return character[starts], character[ends - 1] + np.int32(1)


def _in_order(offsets: Ints32, size: int) -> tuple[Ints32, Ints32, Bools]:
    """Starts and ends forced into order, and which of them were in order by themselves."""
    starts = np.maximum.accumulate(np.clip(offsets[:, 0], 0, size))
    ends = np.maximum.accumulate(np.clip(offsets[:, 1], 0, size))
    same: Bools = (starts == offsets[:, 0]) & (ends == offsets[:, 1]) & (starts < ends)
    return starts, ends, same


def _no_tokens() -> PlainTokens:
    none = np.empty(0, dtype=np.int32)
    return PlainTokens(none, none, none, np.empty(0, dtype=np.bool_))


def _join(pieces: Sequence[tuple[int, PlainTokens]]) -> PlainTokens:
    return PlainTokens(
        np.concatenate([p.ids for _, p in pieces]),
        np.concatenate([p.starts + np.int32(at) for at, p in pieces]),
        np.concatenate([p.ends + np.int32(at) for at, p in pieces]),
        np.concatenate([p.copyable for _, p in pieces]),
    )


@lru_cache(maxsize=65_536)
def _fold(text: str) -> str:
    """Case, accents and white space aside: what lossy tokenizers drop."""
    if text.isascii():
        return "".join(text.lower().split())
    spread = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in spread if not unicodedata.combining(c) and not c.isspace())


class PlainEncoder:
    """Untrusted text to tokens whose places in it are exact.

    Args:
        plain: The tokenizer that knows no control token.
        control_ids: What no text may become.
        unknown: The id of what the tokenizer can't write; -1: none.
        spellings: What each token stands for, where that is known.
    """

    def __init__(
        self, plain: Any, control_ids: Set[int], unknown: int, spellings: Sequence[bytes | None]
    ) -> None:
        self._plain, self._control_ids, self._unknown = plain, control_ids, unknown
        self._spelled = [spelling or b"" for spelling in spellings]
        self._lengths = np.array([len(spelling) for spelling in self._spelled], dtype=np.int32)
        self._is_control = np.zeros(len(self._spelled), dtype=np.bool_)
        self._is_control[list(control_ids)] = True
        self._characters: dict[str, PlainTokens] = {}

    def encode(self, text: str) -> PlainTokens:
        """Encodes untrusted text exactly.

        Raises:
            TokenizerError: A single character can only be written as a control token.
        """
        if not text:
            return _no_tokens()
        return self._locate(text, self._plain.encode(text, add_special_tokens=False))

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
            return [self._locate(text, encoding) for text, encoding in encoded]
        stops = np.concatenate([[0], np.cumsum(sizes)])
        parts = zip(texts, encodings, stops[:-1].tolist(), stops[1:].tolist(), strict=True)
        base = np.repeat(bases[:-1], sizes).astype(np.int32)
        size = np.repeat(np.diff(bases), sizes)
        starts, ends = together.starts - base, together.ends - base
        if (starts < 0).any() or (ends > size).any():  # the spellings agree only as a whole
            return [self._locate(text, encoding) for text, encoding, _, _ in parts]
        return [
            PlainTokens(together.ids[a:b], starts[a:b], ends[a:b], together.copyable[a:b])
            for _, _, a, b in parts
        ]

    def _locate(self, text: str, encoding: Any) -> PlainTokens:
        listed: list[int] = encoding.ids
        ids = np.array(listed, dtype=np.int32)
        if self._is_control[ids].any():
            return self._encode_around_controls(text, encoding)
        exact = self._exact_offsets(text, ids, listed)
        if exact is not None:
            return exact
        offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        checked = self._checked_bytes if self._lengths.any() else self._checked_folds
        return checked(text, ids, *_in_order(offsets, len(text)))

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
        alike = (
            i != self._unknown and self._fold_token(i) == _fold(text[a:b]) for i, a, b in slices
        )
        copyable = np.fromiter(alike, dtype=np.bool_, count=len(ids)) & in_order
        return PlainTokens(ids, starts, ends, copyable)

    def _fold_token(self, token: int) -> str:
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
                pieces.append((last, self.encode(text[last:start])))
            pieces.extend((i, self._encode_character(text[i])) for i in range(start, end))
            last = end
        pieces.append((last, self.encode(text[last:])))
        return _join(pieces)

    def _encode_character(self, character: str) -> PlainTokens:
        """One character by itself; remembered, for hostile texts hold many of the few there are."""
        tokens = self._characters.get(character)
        if tokens is None:
            tokens = self.encode(character)
            if len(self._characters) < _REMEMBERED:
                self._characters[character] = tokens
        return tokens
