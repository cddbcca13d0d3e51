"""One problem: documents, a question, where the gold evidence stands, and how answers are scored.

A lesson shows a model what to write; a problem only says what a good answer is, so that a model's
own attempts can be rewarded.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recallm_core.train.tasks.training_example import Quote, TrainingExample

if TYPE_CHECKING:
    from recallm_core.train.tasks.families.sources import Sources

Passage = tuple[str, str]
AnswerKind = Literal["values", "solved", "boxed", "label", "choice", "words", "ranking", "cited"]
Overlap = Literal["all", "top", "any", "always"]


@dataclass(frozen=True, slots=True)
class Gold:
    """A range of a passage that an answer rests on.

    Attributes:
        place: The range.
        label: What names it in the document (an id, a label): a span that doesn't show it counts
            half; None: it has none.
    """

    place: Quote
    label: Quote | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """What a right answer is.

    Attributes:
        kind: How answers are compared: each of several ``values`` in the answer; one ``solved``
            value; what stands in ``boxed`` braces, else the end of the answer; a ``label``; the
            letter of a ``choice``; ``words`` of one of several wordings; a ``ranking`` of ids;
            answers ``cited`` by number.
        values: The wanted items, each with its wordings.
        partial: ``solved``: the key that leads to the value; an answer with it alone is worth a
            quarter.
        grades: ``ranking``: relevance of each id; ids that are absent have none.
        references: ``cited``: the numbers of the passages to cite.
    """

    kind: AnswerKind
    values: tuple[tuple[str, ...], ...] = ()
    partial: str = ""
    grades: tuple[tuple[str, float], ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the quotes of one family are rewarded.

    Attributes:
        overlap: ``all``: the mean over the gold ranges; ``top``: over the ``top`` best of them;
            ``any``: full for any span; ``always``: full for all (spans are neither needed nor
            wanted).
        threshold: The overlap from which on a gold range counts as quoted.
        top: See ``overlap``.
        free_spans: Spans that cost nothing, however short the response.
        least_characters: Shorter spans count as misuse.
    """

    overlap: Overlap = "all"
    threshold: float = 0.9
    top: int = 0
    free_spans: int = 2
    least_characters: int = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """What a model is asked, and what its attempt is measured by.

    Attributes:
        family: One of the ten.
        kind: The set within the family.
        passages: Pairs of title and text, as the prompt shows them.
        question: The question, with what the answer should look like.
        key: What a right answer is.
        golds: Where the evidence stands; empty where nothing is to be quoted.
        scoring: How quotes are rewarded.
    """

    family: str
    kind: str
    passages: tuple[Passage, ...]
    question: str
    key: Key
    golds: tuple[Gold, ...] = ()
    scoring: Scoring = Scoring()

    def __post_init__(self) -> None:
        for gold in self.golds:
            for quote in (gold.place, gold.label or gold.place):
                size = (
                    len(self.passages[quote.passage][1])
                    if 0 <= quote.passage < len(self.passages)
                    else -1
                )
                if not 0 <= quote.start < quote.end <= size:
                    raise ValueError(f"{quote} is no range of a passage of the {self.kind} problem")

    def text(self, quote: Quote) -> str:
        """Returns what a range says."""
        return self.passages[quote.passage][1][quote.start : quote.end]


Draw = Callable[[random.Random, "Sources", int], "Problem | None"]
"""Makes a problem of about so many characters; None: this draw came to nothing, try again."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family of problems.

    Attributes:
        name: As configs call it.
        what: One line for people.
        kinds: Its sets, each with its share and what draws it.
        needs: Files of the data folder, by kind; kinds that aren't here need none.
        stand_in: Where the paper's own set isn't to be had: what stands in for it.
    """

    name: str
    what: str
    kinds: tuple[tuple[str, float, Draw], ...]
    needs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    stand_in: str = ""


def from_lesson(lesson: TrainingExample, family: str, key: Key, scoring: Scoring) -> Problem:
    """Returns a lesson's documents and question as a problem; its quotes are the gold."""
    golds = tuple(Gold(quote) for quote in lesson.evidence)
    return Problem(family, lesson.task, lesson.passages, lesson.question, key, golds, scoring)
