"""Answers that are likely, as tokens: what the words of an output are drawn to, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recallm_core.decoding.plain_values import read_amount, read_ids, require_kind
from recallm_core.errors import ConstraintError

MOST_LIKELY = 32  # answers that words are drawn to
STRONGEST = 100.0  # they are drawn


@dataclass(frozen=True, slots=True)
class LikelyAnswerTokens:
    """A likely answer in tokens.

    Attributes:
        ids: Its tokens, at least one.
        share: How probable it is, in (0, 1].
    """

    ids: tuple[int, ...]
    share: float

    def __post_init__(self) -> None:
        if not self.ids or not 0 < self.share <= 1:
            raise ConstraintError(
                "a likely answer needs at least one token and a share above 0, at most 1, got "
                f"{len(self.ids)} tokens and {self.share}"
            )


@dataclass(frozen=True, slots=True)
class LikelyTokens:
    """What the words of an answer are drawn to; see ``likely_words``.

    Attributes:
        answers: Likely answers; at most ``MOST_LIKELY``.
        closers: Ids that end an answer.
        skipped: Ids that an answer may begin with before one of the likely ones: articles.
        strength: What the tilt is multiplied with.
        lead: Ids behind which the answer begins, wherever the model writes them; they aren't
            raised. Empty: its first word begins it.
    """

    answers: tuple[LikelyAnswerTokens, ...]
    closers: frozenset[int]
    skipped: frozenset[int]
    strength: float
    lead: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.answers) > MOST_LIKELY:
            raise ConstraintError(
                f"at most {MOST_LIKELY} likely answers are taken, got {len(self.answers)}"
            )
        if not 0 <= self.strength <= STRONGEST:
            raise ConstraintError(
                f"the strength of likely answers is from 0 to {STRONGEST:g}, got {self.strength}"
            )

    @property
    def ids(self) -> set[int]:
        """Every id that they name."""
        answers = (i for answer in self.answers for i in answer.ids)
        return {*self.closers, *self.skipped, *self.lead, *answers}

    def to_dict(self) -> dict[str, Any]:
        """Returns them as plain JSON values."""
        return {
            "answers": [[list(answer.ids), answer.share] for answer in self.answers],
            "closers": sorted(self.closers),
            "skipped": sorted(self.skipped),
            "strength": self.strength,
            "lead": list(self.lead),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> LikelyTokens:
        """Rebuilds them from untrusted values.

        Raises:
            ConstraintError, KeyError, TypeError, ValueError: They aren't what ``to_dict`` returns.
        """
        answers = [require_kind(answer, list) for answer in require_kind(plain["answers"], list)]
        return cls(
            tuple(LikelyAnswerTokens(read_ids(ids), read_amount(share)) for ids, share in answers),
            closers=frozenset(read_ids(plain["closers"])),
            skipped=frozenset(read_ids(plain["skipped"])),
            strength=read_amount(plain["strength"]),
            lead=read_ids(plain["lead"]),
        )
