"""The sequences that the engine holds, and what one step proposes for each of them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

from recallm_core.backends import FinishReason
from recallm_core.backends.local.protocol import Slot
from recallm_core.backends.local.rescoring import Bias, NotScoredError
from recallm_core.backends.local.sampling import Best, Chooser, Scores
from recallm_core.backends.stream import Job
from recallm_core.decoding.constraint import Constraint, Mask


@dataclass(slots=True, eq=False)
class Running:
    """A sequence that the worker is generating."""

    job: Job
    slot: Slot
    constraint: Constraint
    chooser: Chooser
    newest: int  # not yet read by the model
    left: int  # tokens that may still come
    pending: int | None = None  # the newest, where the constraint waits for a score to consume it
    awaited: Future[Bias] | None = None  # the score without which nothing can be done

    @property
    def waits(self) -> bool:
        """Whether there is nothing to do before a score is there."""
        return self.awaited is not None and not self.awaited.done()

    def consume(self, token: int) -> None:
        """Moves the constraint on by a chosen token, later where what follows isn't scored yet."""
        self.pending = token
        try:
            self.constraint.consume(token)
        except NotScoredError as error:
            self.awaited = error.score
        else:
            self.pending = None

    def plan(self, draft_tokens: int) -> Plan | None:
        """Proposes what can be foreseen: copies with one way on, and forced tokens.

        None: before anything can be chosen, the evidence has to be scored.

        Args:
            draft_tokens: Tokens that are proposed at most.
        """
        if self.waits:
            return None
        constraint = self.constraint
        limit = min(draft_tokens, self.left - 1)
        try:
            if self.pending is not None:
                constraint.consume(self.pending)
                self.pending = None
            plan = Plan([], [constraint.mask()])
        except NotScoredError as error:
            self.awaited = error.score
            return None
        ahead: deque[int] = deque()
        while len(plan.draft) < limit:
            mask = plan.masks[-1]
            if not ahead:
                ahead.extend(constraint.draft(limit - len(plan.draft)) or only_choice(mask))
            if not ahead or not mask.allows(ahead[0]) or ahead[0] in constraint.rules.ends:
                break
            if not plan.extend(constraint, ahead.popleft()):
                break
        return plan

    def choose(self, plan: Plan, scores: list[Scores | Best]) -> list[int]:
        """Chooses at each place of a plan in turn, as far as the choices agree with the draft.

        Args:
            plan: What was proposed.
            scores: Of the places where there is a choice.

        Returns:
            The tokens; the constraint has consumed them, but for the last while that is pending.
        """
        tokens: list[int] = []
        remaining = iter(scores)
        for place, mask in enumerate(plan.masks):
            forced = only_choice(mask)
            chooser = self.chooser
            tokens.append(
                chooser.take_forced(forced[0]) if forced else chooser.pick(next(remaining))
            )
            if place == len(plan.draft) or tokens[-1] != plan.draft[place]:
                self.constraint.rollback(len(plan.draft) - place)
                self.consume(tokens[-1])
                break
        self.newest = tokens[-1]
        self.left -= len(tokens)
        return tokens

    @property
    def reason(self) -> FinishReason | None:
        """Why it has to end now, if it has to."""
        if self.constraint.done:
            return "stop"
        return None if self.left else "length"


@dataclass(slots=True, eq=False)
class Reading:
    """A sequence whose prompt is being read."""

    job: Job
    slot: Slot
    constraint: Constraint


@dataclass(slots=True)
class Plan:
    """What one step proposes for one sequence.

    Attributes:
        draft: Proposed tokens; the constraint has consumed them.
        masks: What is legal before each of them, and after the last.
    """

    draft: list[int]
    masks: list[Mask]

    @property
    def open_places(self) -> list[int]:
        """The places where there is something to choose."""
        return [i for i, mask in enumerate(self.masks) if mask.only is None or len(mask.only) > 1]

    def extend(self, constraint: Constraint, token: int) -> bool:
        """Adds a token that is foreseen; False: what follows it isn't scored yet."""
        length = constraint.length
        try:
            constraint.consume(token)
            mask = constraint.mask()
        except NotScoredError:
            constraint.rollback(constraint.length - length)
            return False
        self.draft.append(token)
        self.masks.append(mask)
        return True

    def cut(self, constraint: Constraint, count: int) -> None:
        """Shortens the draft to ``count`` tokens."""
        if len(self.draft) > count:
            constraint.rollback(len(self.draft) - count)
            del self.draft[count:]
            del self.masks[count + 1 :]


def only_choice(mask: Mask) -> list[int]:
    """Returns the one legal token, where there is just one."""
    return [int(mask.only[0])] if mask.only is not None and len(mask.only) == 1 else []
