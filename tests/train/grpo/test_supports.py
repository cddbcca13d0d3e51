"""Log-probabilities are those of the legal set; forced tokens carry nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from recallm_core.errors import RecallmError


def completion_of(run: Any, number: int) -> tuple[Any, list[int]]:
    """A prompt, and some legal output of it."""
    from recallm_core.decoding.constraint import Constraint

    prompt = run.problems.task(number).prompt
    constraint, rng, ids = Constraint(prompt.rules), random.Random(number), []
    for _ in range(40):
        mask = constraint.mask()
        legal = range(20, 300) if mask.only is None else mask.only.tolist()
        token = rng.choice([t for t in legal if mask.allows(t)])
        constraint.consume(token)
        ids.append(token)
    return prompt, ids


@pytest.mark.parametrize("number", range(4))
def test_log_probs_are_those_of_the_legal_set_and_forced_tokens_have_none(
    open_tiny: Callable[..., Any], number: int
) -> None:
    import torch

    from recallm_core.decoding.constraint import Constraint
    from recallm_core.train.grpo.supports import constrained_logps, legal_places

    prompt, ids = completion_of(open_tiny(), number)
    vocab = prompt.spec.vocab_size
    generator = torch.Generator().manual_seed(number)
    logits = torch.randn(len(ids), vocab, generator=generator, requires_grad=True)
    logps, entropies = constrained_logps(logits, torch.tensor(ids), legal_places(prompt.rules, ids))
    logps.sum().backward()
    logps = logps.detach()
    constraint, forced = Constraint(prompt.rules), 0
    for place, token in enumerate(ids):
        mask = constraint.mask()
        legal = [t for t in range(vocab) if mask.allows(t)]
        rest = logits[place].detach()[legal].log_softmax(0)
        assert float(logps[place]) == pytest.approx(float(rest[legal.index(token)]), abs=1e-5)
        assert float(entropies[place]) == pytest.approx(float(-(rest.exp() * rest).sum()), abs=1e-4)
        if len(legal) == 1:
            forced += 1
            assert float(logps[place]) == 0
            assert not logits.grad[place].any()
        illegal = [t for t in range(vocab) if not mask.allows(t)]
        assert not logits.grad[place][illegal].any()
        constraint.consume(token)
    assert forced > 3


def test_a_prompt_without_attempts_is_refused() -> None:
    from recallm_core.train.grpo.supports import Supports

    with pytest.raises(RecallmError, match="no attempt was made"):
        Supports().of([1, 2], [3])
