"""A rendered conversation as token ids; texts that were encoded once are remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recallm_core.locks import ForkSafeLock
from recallm_core.prompting.conversation import Field
from recallm_core.tokenization.boundary_tables import Limits, PlacedTokens, limits
from recallm_core.tokenization.tokenizer import PlainTokens, Tokenizer, encode_all

Ints32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """A prompt in tokens.

    Attributes:
        ids: All of it.
        places: The tokens of each passage, and where they stand.
        prefix_length: Tokens before the first message.
    """

    ids: Ints32
    places: tuple[PlacedTokens, ...]
    prefix_length: int


def encode_pieces(pieces: Sequence[str | Field], boundary: str, cache: TokenCache) -> EncodedPrompt:
    """Returns the tokens of a rendered conversation: wording and fields, each encoded by itself.

    Args:
        pieces: As ``Fields.split`` returns them.
        boundary: Where spans may begin and end (``GenerationParams.boundary``).
        cache: Encodes.
    """
    arrays: list[Ints32] = [np.empty(0, np.int32)]
    places: list[PlacedTokens] = []
    length = 0
    prefix: int | None = None
    fields = [piece for piece in pieces if isinstance(piece, Field)]
    tokens = cache.all_tokens([field.text for field in fields])
    quotable = {f.text: tokens[f.text] for f in fields if f.passage is not None}
    bits = cache.all_limits(quotable, boundary)
    for piece in pieces:
        if isinstance(piece, Field):
            if piece.varies and prefix is None:
                prefix = length
            ids = tokens[piece.text].ids
            if piece.passage is not None:
                placed = PlacedTokens(piece.passage, length, tokens[piece.text], bits[piece.text])
                places.append(placed)
        else:
            ids = cache.wording(piece)
        arrays.append(ids)
        length += len(ids)
    return EncodedPrompt(np.concatenate(arrays), tuple(places), prefix or 0)


class TokenCache:
    """Encoded texts, the longest unused ones dropped when all take too many bytes.

    Encoding happens outside the lock: two threads may encode the same text, and get the same.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: OrderedDict[str, PlainTokens] = OrderedDict()
        self._limits: dict[tuple[str, str], Limits] = {}
        self._wording: dict[str, Ints32] = {}
        self._bytes = 0  # of texts and arrays
        self._max_bytes = 192 << 20
        self._boundaries: set[str] = set()
        self._lock = ForkSafeLock()

    def tokens(self, text: str) -> PlainTokens:
        """The tokens of one text."""
        return self.all_tokens([text])[text]

    def all_tokens(self, texts: Iterable[str]) -> dict[str, PlainTokens]:
        """The tokens of some texts."""
        encoded: dict[str, PlainTokens] = {}
        missing: list[str] = []
        with self._lock:
            for text in dict.fromkeys(texts):
                known = self._texts.get(text)
                if known is None:
                    missing.append(text)
                else:
                    self._texts.move_to_end(text)
                    encoded[text] = known
        if missing:
            encoded.update(zip(missing, encode_all(self._tokenizer, missing), strict=True))
            with self._lock:
                for text in missing:
                    self._remember(text, encoded[text])
        return encoded

    def _remember(self, text: str, tokens: PlainTokens) -> None:
        if text not in self._texts:
            self._bytes += self._bytes_of(text, tokens)
            self._texts[text] = PlainTokens(  # not parts of the arrays of many texts
                tokens.ids.copy(), tokens.starts.copy(), tokens.ends.copy(), tokens.copyable.copy()
            )
        while self._bytes > self._max_bytes and len(self._texts) > 1:
            old, tokens = self._texts.popitem(last=False)
            self._bytes -= self._bytes_of(old, tokens)
            for key in [(boundary, old) for boundary in self._boundaries]:
                self._limits.pop(key, None)

    @staticmethod
    def _bytes_of(text: str, tokens: PlainTokens) -> int:
        """What a text takes with its tokens and limits; a token may be a third of a character."""
        per_token = 13 + 3 * 3  # ids, starts, ends, copyable; three limits by each boundary
        per_character = 1 if text.isascii() else 7  # with its UTF-8 form
        return per_character * len(text) + per_token * len(tokens.ids) + 1000

    def all_limits(self, tokens: Mapping[str, PlainTokens], boundary: str) -> dict[str, Limits]:
        """Where spans may begin and end in some texts."""
        looked_up = {text: self._limits.get((boundary, text)) for text in tokens}
        known = {text: bits for text, bits in looked_up.items() if bits is not None}
        missing = [text for text in tokens if text not in known]
        for text, bits in zip(
            missing, limits(missing, [tokens[t] for t in missing], boundary), strict=True
        ):
            known[text] = bits
            with self._lock:
                self._boundaries.add(boundary)
                if text in self._texts:
                    self._limits[boundary, text] = Limits(
                        bits.can_start.copy(), bits.can_end.copy(), bits.can_end_hard.copy()
                    )
        return known

    def wording(self, text: str) -> Ints32:
        """Our own words, in which control tokens are recognised."""
        ids = self._wording.get(text)
        if ids is None:
            ids = np.array(self._tokenizer.encode_template(text), dtype=np.int32)
            if len(text) < 1000 and len(self._wording) < 20_000:
                self._wording[text] = ids
        return ids
