"""Filling a budget: which candidates go in, what they cost, and what is said twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from recallm_core.documents.document import Duplicate, Member, Passage, ScoredChunk
from recallm_core.packing.intervals import Interval, IntervalSet

Reason = Literal["budget", "duplicate", "conflict", "empty"]
Overhead = int | Callable[[Passage], int]

_MISSES = 20  # a round of filling ends after so many candidates that didn't fit
_MARK = "\U0010ffff"  # no character: it stands between texts that are searched together
_FULL = 0.97  # of the budget; what is left isn't worth counting everything again
_ROUNDS = 3  # later rounds spend what the estimates of the earlier ones overshot


@dataclass(frozen=True, slots=True)
class Item:
    """A retrieved chunk, or text that surrounds or connects one (its anchor)."""

    chunk: ScoredChunk
    anchor: ScoredChunk | None = None

    @property
    def is_retrieved(self) -> bool:
        """Whether it is a chunk that was found for the question."""
        return self.anchor is None


class Filling:
    """One call's state: which intervals are in, what they cost and what was dropped.

    Args:
        budget: Tokens at most.
        count: Tokens of a text.
        overhead: Tokens that a passage costs beyond its text.
        titles: Titles by document id.
        texts: Full texts by document id, as far as they are known.
        chunk_tokens: A cheap estimate of a chunk's tokens.
    """

    def __init__(
        self,
        budget: int,
        count: Callable[[str], int],
        overhead: Overhead,
        titles: Mapping[str, str | None],
        texts: Mapping[str, str],
        chunk_tokens: Callable[[ScoredChunk], int] | None,
    ) -> None:
        self._budget, self._count, self._overhead = budget, memoise(count), overhead
        self._titles, self._texts = titles, texts
        self._estimate = chunk_tokens or (lambda chunk: self._count(chunk.text))
        self._accepted: dict[Item, int] = {}  # with what each was estimated to add
        self._texts_in: dict[str, ScoredChunk] = {}
        self._reasons: dict[ScoredChunk, Reason] = {}
        self._intervals = IntervalSet(texts)
        self._spent = 0
        self._changed = False  # since it was last made sure that nothing is said twice

    def fill(self, items: Sequence[Item], gap_tokens: int) -> None:
        """Adds candidates while they fit, then fills small gaps between them.

        Exact counting is most of the work, so it is done once, when the estimates say that the
        budget is full; only if they were far off is there another round.
        """
        waiting = list(items)
        for _ in range(_ROUNDS):
            before = len(self._accepted)
            waiting = self._offer_all(waiting)
            if gap_tokens > 0:
                self._offer_all(
                    [g for key in self._intervals.by_document for g in self._gaps(key, gap_tokens)]
                )
            removed = self._settle()
            full = self._spent >= _FULL * self._budget
            if removed or full or not waiting or len(self._accepted) == before:
                break

    def _gaps(self, document_id: str, gap_tokens: int) -> Iterator[Item]:
        source = self._texts.get(document_id)
        intervals = self._intervals.by_document[document_id]
        if source is None:
            return
        for before, after in pairwise(intervals):
            if after.start - before.end > 12 * gap_tokens or self._holds_dropped(
                document_id, before.end, after.start
            ):
                continue
            text = source[before.end : after.start]
            if self._count(text) <= gap_tokens:
                gap = ScoredChunk(document_id, before.end, after.start, text, 0.0)
                yield Item(gap, anchor=gap)

    def _holds_dropped(self, document_id: str, start: int, end: int) -> bool:
        """Whether a duplicate that was dropped on purpose lies in this range."""
        return any(
            chunk.document_id == document_id and chunk.start < end and chunk.end > start
            for chunk, reason in self._reasons.items()
            if reason == "duplicate"
        )

    def _offer_all(self, items: Sequence[Item]) -> list[Item]:
        """Tries each candidate; returns those that didn't fit."""
        misses: list[Item] = []
        for place, item in enumerate(items):
            if len(misses) >= _MISSES:
                return misses + list(items[place:])
            reason = self._offer(item)
            if reason is not None and item.is_retrieved:
                self._reasons[item.chunk] = reason
            if reason == "budget":
                misses.append(item)
        return misses

    def _offer(self, item: Item) -> Reason | None:
        chunk = item.chunk
        if not chunk.text:
            return "empty"
        if item.anchor not in (None, chunk) and Item(item.anchor) not in self._accepted:
            return "budget"
        twin = self._texts_in.get(chunk.text)
        gap = item.anchor == chunk  # many gaps hold the same white space
        if twin is not None and not gap and not _same_place(twin, chunk):
            return "duplicate"
        union = self._intervals.union(chunk)
        if union is None:
            return "conflict"
        interval, replaced = union
        cost = self._cost(chunk, interval, replaced)
        if self._spent + cost > self._budget:
            return "budget"
        self._spent += cost
        self._accept(item, interval, replaced, cost)
        return None

    def _accept(
        self, item: Item, interval: Interval, replaced: Sequence[Interval], cost: int
    ) -> None:
        self._changed = True
        self._reasons.pop(item.chunk, None)
        self._accepted.setdefault(item, cost)
        self._texts_in.setdefault(item.chunk.text, item.chunk)
        self._intervals.put(item.chunk.document_id, interval, replaced)

    def _cost(self, chunk: ScoredChunk, interval: Interval, replaced: Sequence[Interval]) -> int:
        """Estimated tokens that a chunk adds: its new characters, and headers gained or saved."""
        fresh = len(interval.text) - sum(len(old.text) for old in replaced)
        tokens = -(-self._estimate(chunk) * fresh // len(chunk.text)) if fresh else 0
        if isinstance(self._overhead, int):
            return tokens + self._overhead * (1 - len(replaced))
        header = self._overhead(self._passage(chunk.document_id, interval))
        return tokens + header * (1 - len(replaced))

    def price(self, passage: Passage) -> int:
        """Returns the exact number of tokens of a passage with its header."""
        extra = self._overhead if isinstance(self._overhead, int) else self._overhead(passage)
        return self._count(passage.text) + extra

    def _settle(self) -> bool:
        """Replaces estimates by exact counts; takes out what is said twice or doesn't fit."""
        removed = False
        self._drop_contained()
        while self._accepted:
            self._spent = sum(self.price(passage) for passage in self._bare())
            if self._spent <= self._budget:
                return removed
            self._remove_last(1 - self._budget / self._spent)
            self._drop_contained()
            removed = True
        self._spent = 0
        return removed

    def _remove_last(self, share: float) -> None:
        """Takes out what came last, at least one item, up to a share of the estimated total."""
        items = list(self._accepted.items())
        tokens = max(share * sum(self._accepted.values()), 1e-9)
        while items and tokens > 0:
            item, cost = items.pop()
            tokens -= cost
            if item.is_retrieved:
                self._reasons[item.chunk] = "budget"
        self._rebuild(dict(items))

    def _drop_contained(self) -> None:
        """Drops an interval whose whole text another interval contains."""
        dropped = _duplicates(self._bare()) if self._changed else []
        self._changed = False
        if not dropped:
            return
        gone = {item for item in self._accepted if any(_inside(item.chunk, p) for p in dropped)}
        self._rebuild({item: cost for item, cost in self._accepted.items() if item not in gone})
        for item in gone:
            if item.is_retrieved:
                self._reasons[item.chunk] = "duplicate"

    def _rebuild(self, items: Mapping[Item, int]) -> None:
        self._accepted, self._texts_in, self._intervals = {}, {}, IntervalSet(self._texts)
        for item, cost in items.items():
            union = self._intervals.union(item.chunk)
            assert union is not None  # it was no conflict among more intervals than these
            self._accept(item, *union, cost)

    def _bare(self) -> list[Passage]:
        """The intervals as passages without members, by document and offset."""
        by_document = self._intervals.by_document.items()
        return [self._passage(key, one) for key, several in by_document for one in several]

    def _passage(self, document_id: str, interval: Interval) -> Passage:
        return Passage(
            document_id, interval.start, interval.end, interval.text, self._titles.get(document_id)
        )

    def passages(self, ranked: Sequence[ScoredChunk]) -> list[Passage]:
        """Returns the packed passages, with their chunks and the dropped copies of these."""
        bare = self._bare()
        members = self._members(bare, ranked)
        copies = self._copies(bare)
        return [
            replace(
                passage,
                score=max((member.score for member in inside), default=0.0),
                members=inside,
                duplicates=equal,
            )
            for passage, inside, equal in zip(bare, members, copies, strict=True)
        ]

    def _members(
        self, bare: Sequence[Passage], ranked: Sequence[ScoredChunk]
    ) -> list[tuple[Member, ...]]:
        """For each interval, the candidates that lie in it, however they got there."""
        by_document: dict[str, list[int]] = {}
        for number, passage in enumerate(bare):
            by_document.setdefault(passage.document_id, []).append(number)
        scores: list[dict[tuple[int, int], float]] = [{} for _ in bare]
        for chunk in ranked:
            for number in by_document.get(chunk.document_id, ()):
                if chunk.text and _inside(chunk, bare[number]) and _agrees(chunk, bare[number]):
                    scores[number].setdefault((chunk.start, chunk.end), chunk.score)
                    self._reasons.pop(chunk, None)
                    self._accepted.setdefault(Item(chunk), 0)
        return [
            tuple(Member(start, end, ranges[start, end]) for start, end in sorted(ranges))
            for ranges in scores
        ]

    def _copies(self, bare: Sequence[Passage]) -> list[tuple[Duplicate, ...]]:
        """For each interval, the dropped chunks whose text it contains."""
        duplicates: list[list[Duplicate]] = [[] for _ in bare]
        for chunk, reason in list(self._reasons.items()):
            if reason != "duplicate":
                continue
            places = ((n, p.text.find(chunk.text)) for n, p in enumerate(bare))
            place = next(((n, at) for n, at in places if at >= 0), None)
            if place is None:  # what it duplicated had to leave again
                self._reasons[chunk] = "budget"
                continue
            copy = Duplicate(chunk.document_id, chunk.start, chunk.end, place[1])
            duplicates[place[0]].append(copy)
        return [_merged_copies(copies) for copies in duplicates]

    def left_out(self, ranked: Sequence[ScoredChunk]) -> list[tuple[ScoredChunk, Reason]]:
        """Returns the candidates that aren't in the pack, each with the reason, best first."""
        inside = {item.chunk for item in self._accepted if item.is_retrieved}
        return [
            (chunk, self._reasons.get(chunk, "budget")) for chunk in ranked if chunk not in inside
        ]


def _duplicates(passages: Sequence[Passage]) -> list[Passage]:
    """The intervals whose whole text stands in another; of equal ones all but the first."""
    longest_first = sorted(passages, key=lambda passage: -len(passage.text))
    everything = _MARK.join(passage.text for passage in longest_first)
    contained = []
    start = 0
    for passage in longest_first:
        # One search in all longer texts at once; a hit across the mark between two doesn't count.
        place = everything.find(passage.text, 0, start)
        if place >= 0 and (
            _MARK not in passage.text
            or any(passage.text in other.text for other in longest_first if other is not passage)
        ):
            contained.append(passage)
        start += len(passage.text) + len(_MARK)
    return contained


def _same_place(one: ScoredChunk, other: ScoredChunk) -> bool:
    return one.document_id == other.document_id and one.start == other.start


def _inside(chunk: ScoredChunk, passage: Passage) -> bool:
    return (
        chunk.document_id == passage.document_id
        and passage.start <= chunk.start
        and chunk.end <= passage.end
    )


def _agrees(chunk: ScoredChunk, passage: Passage) -> bool:
    return passage.text.startswith(chunk.text, chunk.start - passage.start)


def _merged_copies(copies: Sequence[Duplicate]) -> tuple[Duplicate, ...]:
    """Copies with those that continue each other joined."""
    merged: list[Duplicate] = []
    for copy in sorted(copies, key=lambda each: (each.document_id, each.start, each.end)):
        last = merged[-1] if merged else None
        if last is not None and _continues(last, copy):
            merged[-1] = replace(last, end=copy.end)
        else:
            merged.append(copy)
    return tuple(merged)


def _continues(last: Duplicate, copy: Duplicate) -> bool:
    return (
        last.document_id == copy.document_id
        and last.end == copy.start
        and last.passage_start + last.end - last.start == copy.passage_start
    )


def memoise(count: Callable[[str], int]) -> Callable[[str], int]:
    """Returns a count that looks at each text once."""
    known: dict[str, int] = {}

    def count_once(text: str) -> int:
        if text not in known:
            known[text] = count(text)
        return known[text]

    return count_once
