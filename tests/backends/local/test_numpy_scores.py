"""Rows of numpy give the choices that rows of torch give, which test_sampling.py checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.backends import Sampling
from recallm_core.backends.local import numpy_scores, torch_scores
from recallm_core.backends.local.sampling import Chooser
from recallm_core.decoding.constraint import Mask
from recallm_core.errors import GenerationError

VOCAB = 700  # more than the number of logits that are looked at first


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    some = st.lists(st.integers(0, VOCAB - 1), unique=True, max_size=20)
    if draw(st.booleans()):
        only = np.array(sorted(draw(some.filter(bool))), dtype=np.int64)
        return Mask(only, bias=draw(st.none() | st.just(np.linspace(-3, 3, len(only)))))
    forbid = np.array(sorted(draw(some)), dtype=np.int64)
    raised = np.array(draw(some), dtype=np.int64)
    tilted = Mask(None, forbid, np.linspace(0, 6, len(raised)), raised)
    return draw(st.sampled_from([Mask(None, forbid=forbid), tilted]))


@given(
    mask=masks(),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    top_p=st.sampled_from([0.2, 0.9, 0.999, 1.0]),
    width=st.sampled_from([VOCAB, 200]),
)
def test_the_same_seeds_choose_the_same_tokens(
    mask: Mask, seed: int, temperature: float, top_p: float, width: int
) -> None:
    row = np.random.default_rng(seed).normal(size=VOCAB).astype(np.float32) * 2
    if width < VOCAB:
        mask = Mask(None, forbid=np.arange(5, dtype=np.int64))
    row = row[:width]
    greedy = [temperature == 0]
    (there,) = torch_scores.legal_scores(torch.from_numpy(row[None].copy()), [mask], greedy)
    (here,) = numpy_scores.legal_scores([row.copy()], [mask], greedy)
    choosers = [Chooser(Sampling(100, temperature, top_p, seed)) for _ in range(2)]
    for _ in range(10):
        assert choosers[0].pick(here) == choosers[1].pick(there)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("greedy", [True, False])
def test_logits_that_arent_numbers_are_refused(value: float, greedy: bool) -> None:
    row = np.zeros(VOCAB, dtype=np.float32)
    row[7] = value
    mask = Mask(None, forbid=np.arange(2, dtype=np.int64))
    (scores,) = numpy_scores.legal_scores([row], [mask], [greedy])
    with pytest.raises(GenerationError, match="aren't finite"):
        Chooser(Sampling(1, 0.0 if greedy else 1.0)).pick(scores)
