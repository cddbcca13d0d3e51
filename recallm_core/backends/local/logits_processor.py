"""The constraint for people who call ``model.generate`` themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessor

from recallm_core.backends.masking import masked_copy
from recallm_core.decoding.constraint import Constraint, ConstraintRules, Mask, Prior
from recallm_core.errors import ConstraintError

Ids = NDArray[np.int64]
_BYTES = 8  # of a token in an output


@dataclass(slots=True)
class _KnownSequence:
    """A sequence that was seen, and the state after its first ``legal`` output tokens.

    It is shorter than the output where that goes on after its end (padding) or where an assistant
    drafted something illegal, which is bound to be rejected. It belongs to one row, in which it
    moves on in place. The output is kept as bytes, which are compared at once.
    """

    prompt: int
    output: bytes
    state: Constraint
    legal: int

    @property
    def length(self) -> int:
        """Tokens of the output."""
        return len(self.output) // _BYTES

    @property
    def mask(self) -> Mask | None:
        """What is legal next; None: nothing to hold to."""
        over = self.legal < self.length or self.state.done
        return None if over else self.state.mask()

    def moved_on(self, prompt: int, output: bytes, token: int) -> bool:
        """Whether the output is this one and a token more, which was then taken in."""
        before = self.output
        if len(output) != len(before) + _BYTES or prompt != self.prompt:
            return False
        if not output.startswith(before):
            return False
        if self.legal == self.length:
            self.legal += _went_on(self.state, token)
        self.output = output
        return True


def _went_on(state: Constraint, token: int) -> bool:
    """Whether a token was legal, and was then taken in."""
    if state.done:
        return False
    try:
        state.consume(token)
    except ConstraintError:
        return False
    return True


class RecallLogitsProcessor(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Holds recall spans to the passages inside ``model.generate``.

    What is legal depends on the token ids alone and not on what was called before, so beam search,
    ``num_return_sequences``, assisted decoding and prompt lookup all keep the promise. Settings
    that forbid tokens on their own account (``suppress_tokens``, ``no_repeat_ngram_size``) give way
    inside a span. A fresh tensor is returned; legal logits keep their bits, illegal ones become
    minus infinity. Make one processor per call of ``generate``.

    Args:
        rules: One constraint per prompt, in the order of the prompts.
        prompt_ids: The ``input_ids`` given to ``generate``, padding included.
        prior: Recomputes the tilt of span starts; None: the static one of each spec.

    Raises:
        ConstraintError: Rules and prompts differ in number.
    """

    def __init__(
        self,
        rules: ConstraintRules | Sequence[ConstraintRules],
        prompt_ids: torch.Tensor,
        *,
        prior: Prior | None = None,
    ) -> None:
        self._rules = [rules] if isinstance(rules, ConstraintRules) else list(rules)
        prompts = prompt_ids[None] if prompt_ids.ndim == 1 else prompt_ids
        if len(prompts) != len(self._rules):
            raise ConstraintError(
                f"there must be one set of rules per prompt, got {len(self._rules)} for "
                f"{len(prompts)} prompts"
            )
        self._prompts = prompts.cpu().numpy().astype(np.int64)
        self._prior = prior
        self._known: list[_KnownSequence] = []
        self._checked = False

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """Returns the scores with everything illegal at minus infinity.

        Raises:
            ConstraintError: The rows don't begin with the prompts, or the widths differ.
        """
        self._check(input_ids, scores)
        width = self._prompts.shape[1]
        on_host = input_ids.is_cpu
        outputs = input_ids.numpy()[:, width:] if on_host else input_ids[:, width:].cpu().numpy()
        outputs = outputs.astype(np.int64, copy=False)
        before, self._known = self._known, []
        for row, output in enumerate(outputs):
            prompt = self._prompt_of(row, len(outputs))
            self._known.append(self._sequence_of(before, row, prompt, output))
        return masked_copy(scores, [known.mask for known in self._known])

    def _prompt_of(self, row: int, rows: int) -> int:
        """``generate`` repeats each prompt in place for beams and returned sequences."""
        return row * len(self._rules) // rows

    def _check(self, input_ids: torch.Tensor, scores: torch.Tensor) -> None:
        rows, prompts, width = len(input_ids), len(self._rules), self._prompts.shape[1]
        if self._checked and rows % prompts == 0:
            return
        if rows % prompts or input_ids.shape[1] < width:
            raise ConstraintError(
                f"{prompts} prompts of {width} tokens can't have become rows of shape "
                f"{tuple(input_ids.shape)}; pass input_ids, not inputs_embeds, to generate, and "
                "make one processor per call"
            )
        repeated = self._prompts[[self._prompt_of(row, rows) for row in range(rows)]]
        if (input_ids[:, :width].cpu().numpy() != repeated).any():
            raise ConstraintError(
                "the rows don't begin with the prompts this processor was made for; make one "
                "processor per call of generate, with the very input_ids that it gets"
            )
        for rules in self._rules:
            if rules.spec.vocab_size != scores.shape[-1]:
                raise ConstraintError(
                    f"the rules were made for logits {rules.spec.vocab_size:,} wide, the model's "
                    f"are {scores.shape[-1]:,} wide"
                )
        self._checked = True

    def _sequence_of(
        self, before: Sequence[_KnownSequence], row: int, prompt: int, output: Ids
    ) -> _KnownSequence:
        """The state of a row: moved on in place where the row goes on from what it was.

        A row that has become another's (beams) finds that one's state, moved on or not: a copy of
        it is rolled back to what both have in common.
        """
        whole = output.tobytes()  # the caller's array may change
        if row < len(before) and len(output):
            known = before[row]
            if known.moved_on(prompt, whole, output.item(-1)):
                return known
        return self._follow([*before, *self._known], prompt, whole)

    def _follow(
        self, several: Sequence[_KnownSequence], prompt: int, whole: bytes
    ) -> _KnownSequence:
        """The state after an output, from the known sequence that shares most of it."""
        output: Ids = np.frombuffer(whole, dtype=np.int64)
        best, shared = None, 0
        for known in several:
            before = np.frombuffer(known.output, dtype=np.int64)
            common = _common(before, output) if known.prompt == prompt else 0
            if common > shared:
                best, shared = known, common
        if best is None:
            state, legal = self._rules[prompt].start(self._prior), 0
        else:
            state, legal = best.state.copy(), min(best.legal, shared)
            state.rollback(best.legal - legal)
            if legal < shared:
                return _KnownSequence(prompt, whole, state, legal)
        for token in output[legal:].tolist():
            if not _went_on(state, token):
                break
            legal += 1
        return _KnownSequence(prompt, whole, state, legal)


def _common(one: Ids, other: Ids) -> int:
    """Length of the common beginning."""
    size = min(len(one), len(other))
    differ = np.flatnonzero(one[:size] != other[:size])
    return int(differ[0]) if differ.size else size
