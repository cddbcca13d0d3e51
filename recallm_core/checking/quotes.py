"""What a check says of each quote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recallm_core.answers.answer import Citation
from recallm_core.checking.changes import Change
from recallm_core.checking.written import Form

Verdict = Literal["exact", "drift", "altered", "stitched", "misattributed", "absent"]
VERDICTS: tuple[Verdict, ...] = (
    "exact", "drift", "altered", "stitched", "misattributed", "absent",
)  # fmt: skip
SOUND: frozenset[Verdict] = frozenset(("exact", "drift"))


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote of a text and what the documents say of it.

    Attributes:
        text: The quote as it is written, without its marks.
        start: First character in the text that was checked; None for a quote that only the data
            of a message hold and that supports the whole of it.
        end: One past the last.
        verdict: ``exact``: the document's very characters. ``drift``: the same words in other
            writing (case, spaces, line breaks, hyphens, ligatures, punctuation, an article).
            ``altered``: stands in one place but for words, names, numbers or a negation that
            aren't the document's. ``stitched``: made of pieces from several places
            without a sign of it. ``misattributed``: stands in another document than the one
            named. ``absent``: stands nowhere.
        citation: The document's own slice: what is quoted, or for ``altered`` what it should be;
            None for ``absent``. Its ``parts`` are the pieces around an ellipsis.
        pieces: The slices that a ``stitched`` quote is made of.
        changes: What differs in more than writing.
        claimed: Ids of the documents that the quote is said to be from; None where nothing is
            said, empty where no such document was given.
        form: How it is marked: ``marks``, ``block``, ``tag``, ``field`` or ``citation`` (the data
            of a message).
        score: The part of its words that stands where the citation says, 0 to 1.
        replacement: What takes the place of ``[start, end)`` in a repaired text; None where the
            quote stays as it is.
    """

    text: str
    start: int | None
    end: int | None
    verdict: Verdict
    citation: Citation | None
    pieces: tuple[Citation, ...] = ()
    changes: tuple[Change, ...] = ()
    claimed: tuple[str, ...] | None = None
    form: Form = "marks"
    score: float = 0.0
    replacement: str | None = None

    @property
    def sound(self) -> bool:
        """Whether the document says so where the quote says it does."""
        return self.verdict in SOUND
