"""What an output owes before it may end: the rules as one value, and the words they watch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from recallm_core.errors import ConstraintError

Policy = Literal["required", "first"]
POLICIES: tuple[Policy, ...] = ("required", "first")

MOST_EVIDENCE = 3  # quotes before an answer
PATIENCE = 64  # tokens of the answer without the end of a sentence


@dataclass(frozen=True, slots=True)
class EvidenceRules:
    """Whether and where an output has to quote; without such rules it quotes where it likes.

    With ``first``, the answer begins with quotes, which aren't part of its text: ``least`` are
    forced open, then the model chooses between another and ``lead_in``, after which the answer is
    words alone, at least one. With ``required``, the output can't end before a quote is closed,
    and where the model hasn't opened one by the end of a sentence of its answer, it is forced open
    there; a model that says one of the ``abstain`` phrases owes nothing.

    Under either, no quote begins where an earlier one of the same phase began, and before the
    answer none begins anywhere inside what was copied.

    Attributes:
        policy: ``first`` or ``required``.
        lead_in: Ids between the evidence and the words of the answer (``first``); they are forced
            and belong to neither.
        blank: Ids that are white space alone; the answer begins with another (``first``).
        least, most: Quotes before the answer (``first``).
        room: Copied tokens from which on no further quote is opened before it.
        ends: Ids that end a sentence or a line (``required``).
        points: Those of them that are a full stop and nothing else.
        numbers: Ids that are digits alone: a full stop behind one may be a decimal point.
        abbreviations: Ids behind which a full stop ends nothing.
        abstain: Token sequences by which the model says that the documents hold no answer.
        patience: Tokens of the answer after which a quote is forced without the end of a sentence.
    """

    policy: Policy
    lead_in: tuple[int, ...] = ()
    blank: frozenset[int] = frozenset()
    least: int = 1
    most: int = MOST_EVIDENCE
    room: int = 256
    ends: frozenset[int] = frozenset()
    points: frozenset[int] = frozenset()
    numbers: frozenset[int] = frozenset()
    abbreviations: frozenset[int] = frozenset()
    abstain: tuple[tuple[int, ...], ...] = ()
    patience: int = PATIENCE

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConstraintError(f"policy must be one of {POLICIES}, got {self.policy!r}")
        if self.policy == "first" and not self.lead_in:
            raise ConstraintError("the policy first needs a lead_in: what ends the evidence")
        if not 1 <= self.least <= self.most or self.patience < 1:
            raise ConstraintError(
                "least must be at least 1, most at least that, and patience at least 1, got "
                f"{self.least}, {self.most} and {self.patience}"
            )
        if any(not phrase for phrase in self.abstain):
            raise ConstraintError("a phrase of abstention needs at least one token")

    @property
    def count(self) -> int:
        """How many quotes may be owed in all; ``required`` is content with one."""
        return self.most if self.policy == "first" else 1

    @property
    def ids(self) -> set[int]:
        """Every id that the rules name."""
        return {
            *self.lead_in,
            *self.blank,
            *self.ends,
            *self.points,
            *self.numbers,
            *self.abbreviations,
            *(token for phrase in self.abstain for token in phrase),
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the rules as plain JSON values."""
        return {
            "policy": self.policy,
            "lead_in": list(self.lead_in),
            "blank": sorted(self.blank),
            "least": self.least,
            "most": self.most,
            "room": self.room,
            "ends": sorted(self.ends),
            "points": sorted(self.points),
            "numbers": sorted(self.numbers),
            "abbreviations": sorted(self.abbreviations),
            "abstain": [list(phrase) for phrase in self.abstain],
            "patience": self.patience,
        }


@dataclass(frozen=True, slots=True)
class OwnWords:
    """What the model has written of its answer so far, as far as ``required`` has to know.

    Attributes:
        tail: The last tokens, as many as the longest phrase of abstention has.
        count: Tokens in all.
        said: Whether a phrase of abstention was written.
        ended: Whether the last token ends a sentence.
        perhaps: Whether it may, if what follows isn't a number.
    """

    tail: tuple[int, ...] = ()
    count: int = 0
    said: bool = False
    ended: bool = False
    perhaps: bool = False

    def after(self, token: int, rules: EvidenceRules) -> OwnWords:
        """The words with one more token."""
        last = self.tail[-1] if self.tail else -1
        keep = max((len(phrase) for phrase in rules.abstain), default=1)
        tail = (*self.tail, token)[-keep:]
        count = self.count + 1
        stops = token in rules.ends and self.count > 0
        point = token in rules.points
        perhaps = stops and point and last in rules.numbers
        abbreviated = point and last in rules.abbreviations
        return OwnWords(
            tail=tail,
            count=count,
            said=self.said or any(tail[-len(phrase) :] == phrase for phrase in rules.abstain),
            ended=(stops and not perhaps and not abbreviated) or count >= rules.patience,
            perhaps=perhaps,
        )


_ENDS = tuple(".!?\u2026\u3002\uff01\uff1f\u061f\u0964")
_BEHIND = " \t\"'\u201d\u2019\u00bb)]*_`"
_TITLES = ("Dr", "Mr", "Mrs", "Ms", "St", "Prof", "Jr", "Sr", "Gen", "Col", "Capt", "Lt", "Rev")
_SHORT = ("vs", "No", "Inc", "Ltd", "Co", "Corp", "cf", "al", "ca", "etc", "Fig", "Vol", "pp")
_ARTICLES = ("a", "an", "the")
_ABBREVIATIONS = frozenset((*_TITLES, *_SHORT))


@dataclass(frozen=True, slots=True)
class SentenceTokens:
    """The tokens of a vocabulary that policies watch; see ``EvidenceRules``."""

    ends: frozenset[int]
    points: frozenset[int]
    numbers: frozenset[int]
    abbreviations: frozenset[int]
    blank: frozenset[int]
    articles: frozenset[int]

    @classmethod
    def of(cls, pieces: Iterable[tuple[int, bytes | None]]) -> SentenceTokens:
        """Sorts the tokens of a vocabulary, given with what they stand for."""
        names = ("ends", "points", "numbers", "abbreviations", "blank", "articles")
        sets: dict[str, set[int]] = {name: set() for name in names}
        for token, piece in pieces:
            text = (piece or b"").decode("utf-8", "ignore")
            bare = text.strip()
            if bare.casefold() in _ARTICLES:
                sets["articles"].add(token)
            if "\n" in text or text.rstrip(_BEHIND).endswith(_ENDS):
                sets["ends"].add(token)
            if bare == ".":
                sets["points"].add(token)
            elif text and not bare:
                sets["blank"].add(token)
            elif bare.isdecimal():
                sets["numbers"].add(token)
            elif bare in _ABBREVIATIONS or (len(bare) == 1 and bare.isupper()):
                sets["abbreviations"].add(token)
        return cls(*(frozenset(tokens) for tokens in sets.values()))
