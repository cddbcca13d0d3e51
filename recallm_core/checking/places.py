"""Where a quote stands in a corpus, and how it was found to stand there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recallm_core.checking.changes import Change
from recallm_core.checking.words import Word

Found = Literal["exact", "drift", "altered", "stitched", "absent"]
SEVERITY: dict[Found, int] = {"exact": 0, "drift": 1, "altered": 2, "stitched": 3, "absent": 4}


@dataclass(frozen=True, slots=True)
class ClaimedPlace:
    """Where a quote is said to be from.

    Attributes:
        documents: Numbers of the documents.
        at: The character at which it is said to begin, where something says so.
    """

    documents: frozenset[int]
    at: int | None = None


@dataclass(frozen=True, slots=True)
class QuoteQuery:
    """A quote ready to be looked for.

    Attributes:
        text: The quote.
        words: Its words.
        ids: Their numbers in the corpus.
        start: Where its first word begins.
        end: One past its last word.
    """

    text: str
    words: tuple[Word, ...] = ()
    ids: tuple[int, ...] = ()
    start: int = 0
    end: int = 0

    @property
    def before(self) -> str:
        """What stands before its first word."""
        return self.text[: self.start]

    @property
    def after(self) -> str:
        """What stands after its last word."""
        return self.text[self.end :]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Words ``[first, past)`` of the corpus, all of one document, and the characters they are."""

    first: int
    past: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of looking for a quote.

    Attributes:
        verdict: How it stands in the documents, wherever that is.
        stretches: The pieces found, in the quote's order; one, but for an ellipsis or a stitch.
        changes: What differs in more than writing.
        score: The part of the quote that was found as it stands, 0 to 1.
    """

    verdict: Found
    stretches: tuple[Stretch, ...] = ()
    changes: tuple[Change, ...] = ()
    score: float = 0.0

    def graver_than(self, other: Finding) -> bool:
        """Whether its verdict is worse than another's."""
        return SEVERITY[self.verdict] > SEVERITY[other.verdict]


ABSENT = Finding("absent")
