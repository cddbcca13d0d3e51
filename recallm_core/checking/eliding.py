"""Quotes with words left out or put in by a sign: each piece in order, within one document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import regex
from numpy.typing import NDArray

from recallm_core.checking.changes import Change, change, is_negation
from recallm_core.checking.finding import Finder
from recallm_core.checking.places import ABSENT, ClaimedPlace, Finding, Found, QuoteQuery, Stretch
from recallm_core.checking.words import Ints

GAP = 5_000  # characters that an ellipsis may stand for
_DOTS = r"[\[(]\s*(?:\.{2,}|\u2026)\s*[\])]|(?:\.\s?){3,}|\u2026"
_ELLIPSIS = regex.compile(_DOTS)
_ASIDE = regex.compile(rf"{_DOTS}|\[[^\[\]]{{2,80}}\]")
_SENTENCE_END = regex.compile(r"[.!?](?=\s)|[\u3002\uff01\uff1f]|\n\s*\n")
Place = tuple[int, int]  # words [first, past) of the corpus


class Elider:
    """Looks for quotes as a whole first, then by the pieces around what was left out.

    Args:
        finder: Looks for each piece.
    """

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self._corpus = finder.corpus

    def find(self, text: str, claimed: ClaimedPlace | None = None) -> Finding:
        """Returns the best place of a quote.

        Args:
            text: The quote, without its marks.
            claimed: Where it is said to be from; preferred among places that are equally good.
        """
        best = self._finder.find(self._finder.quote_query(text), claimed)
        for pattern in (_ELLIPSIS, _ASIDE):
            if best.verdict in ("exact", "drift"):
                break
            pieces = [self._finder.quote_query(piece) for piece in pattern.split(text)]
            spoken = [piece for piece in pieces if piece.ids]
            if len(pieces) > 1 and spoken:
                parts = self._find_parts(spoken, claimed, self._changes_in_brackets(text))
                best = best if parts.graver_than(best) else parts
        return best

    def _changes_in_brackets(self, text: str) -> list[Change]:
        """Figures and negations that stand in brackets as if they only explained."""
        changes = []
        for match in _ASIDE.finditer(text):
            inside = self._finder.quote_query(match.group()).words
            differs = change(inside, ())
            if differs is not None and differs.kind in ("number", "negation"):
                changes.append(differs)
        return changes

    def _find_parts(
        self, quotes: Sequence[QuoteQuery], claimed: ClaimedPlace | None, added: Sequence[Change]
    ) -> Finding:
        choices = [self._choices(quote, claimed) for quote in quotes]
        if not all(places.size for places, _ in choices):
            return ABSENT
        chain = self._chain([places for places, _ in choices], claimed)
        if chain is None:
            firsts = tuple(self._finder.stretch(*places[0].tolist()) for places, _ in choices)
            return Finding("stitched", firsts, (), 1.0)
        pairs = [
            self._finder.compare_characters(quote, *place)
            for quote, place in zip(quotes, chain, strict=True)
        ]
        stretches = tuple(stretch for _, stretch in pairs if stretch is not None)
        if len(stretches) < len(pairs):
            return ABSENT
        inner = [difference for _, changes in choices for difference in changes]
        changes = (*inner, *added, *self._omitted_negations(stretches))
        exact = all(equal for equal, _ in pairs)
        verdict: Found = "altered" if changes else "exact" if exact else "drift"
        return Finding(verdict, stretches, changes, 1.0)

    def _choices(
        self, quote: QuoteQuery, claimed: ClaimedPlace | None
    ) -> tuple[Ints, tuple[Change, ...]]:
        """Where a piece may stand, a row ``(first, past)`` each, and what differs there."""
        places = self._corpus.occurrences(quote.ids)
        if places.size:
            return np.column_stack([places, places + len(quote.ids)]), ()
        near = self._finder.nearly(quote, claimed)
        if near.verdict not in ("drift", "altered"):
            return np.zeros((0, 2), dtype=np.int64), ()
        rows = sorted((stretch.first, stretch.past) for stretch in near.stretches)
        return np.array(rows, dtype=np.int64), near.changes

    def _chain(self, choices: Sequence[Ints], claimed: ClaimedPlace | None) -> list[Place] | None:
        """The closest places of all pieces in order, within one document."""
        chains = [choices[0]]  # for each place of the first piece, the nearest of the others
        for places in choices[1:]:
            ends = chains[-1][:, 1]
            at = np.searchsorted(places[:, 0], ends)
            following = places[np.minimum(at, len(places) - 1)]
            near = (at < len(places)) & self._near(ends, following[:, 0])
            chains = [*(chain[near] for chain in chains), following[near]]
        if not chains[0].size:
            return None
        spans = chains[-1][:, 1] - chains[0][:, 0]
        if claimed is not None:
            away = ~self._finder.inside(chains[0][:, 0], claimed)
            spans = spans + away * len(self._corpus.ids)
        best = int(np.argmin(spans))
        return [(int(chain[best, 0]), int(chain[best, 1])) for chain in chains]

    def _near(self, ends: Ints, firsts: Ints) -> NDArray[np.bool_]:
        """Whether places follow others in the same document, within what an ellipsis may skip."""
        corpus = self._corpus
        same = corpus.documents_at(ends - 1) == corpus.documents_at(firsts)
        gap = corpus.starts[firsts] - corpus.ends[ends - 1]
        near: NDArray[np.bool_] = same & (gap <= GAP)
        return near

    def _omitted_negations(self, stretches: Sequence[Stretch]) -> Iterator[Change]:
        """Negations that an ellipsis took out of the midst of a sentence."""
        corpus = self._corpus
        for before, after in pairwise(stretches):
            source = corpus.documents[corpus.document_at(before.first)].text
            if _SENTENCE_END.search(source, before.end, after.start):
                continue
            left_out = self._finder.aligner.words(before.past, after.first)
            if any(is_negation(word.key) for word in left_out):
                yield Change("negation", "\u2026", " ".join(word.raw for word in left_out))
