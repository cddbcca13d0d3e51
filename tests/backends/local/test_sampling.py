"""Choices under a mask: legal, distributed as asked, and the same as by sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from recallm_core.backends import Sampling
from recallm_core.backends.local.sampling import Best, Chooser
from recallm_core.backends.local.torch_scores import legal_scores
from recallm_core.decoding.constraint import Mask
from recallm_core.errors import GenerationError

VOCAB = 700  # more than the number of logits that are looked at first


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    some = st.lists(st.integers(0, VOCAB - 1), unique=True, max_size=20)
    if draw(st.booleans()):
        only = ids(*sorted(draw(some.filter(bool))))
        bias = draw(st.none() | st.just(np.linspace(-3, 3, len(only))))
        return Mask(only=only, bias=bias)
    forbid, raised = ids(*sorted(draw(some))), ids(*draw(some))
    tilted = Mask(None, forbid, np.linspace(0, 6, len(raised)), raised)
    return draw(st.sampled_from([Mask(only=None, forbid=forbid), tilted]))


def naive(row: np.ndarray, mask: Mask, temperature: float) -> np.ndarray:
    """The distribution over the whole vocabulary, before its nucleus is taken."""
    legal = np.full(VOCAB, -np.inf)
    if mask.only is None:
        legal[:] = row
        if mask.tilted is not None:
            legal[mask.tilted] += mask.bias
        legal[mask.forbid] = -np.inf
    else:
        legal[mask.only] = row[mask.only] + (0 if mask.bias is None else mask.bias)
    if temperature == 0:
        return np.eye(VOCAB)[legal.argmax()]
    shares = np.exp((legal - legal.max()) / temperature)
    return np.asarray(shares / shares.sum())


@given(
    rows=st.lists(masks(), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    top_p=st.sampled_from([0.2, 0.9, 0.999, 1.0]),
)
@example(rows=[Mask(None, forbid=ids())], seed=3, temperature=0.3, top_p=0.999)
def test_choices_come_from_the_distribution_of_the_whole_vocabulary(
    rows: list[Mask], seed: int, temperature: float, top_p: float
) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(rows), VOCAB)) * 2)
    before = logits.clone()
    scores = legal_scores(logits, rows, [temperature == 0] * len(rows))
    assert torch.equal(logits, before)
    for row, mask, found in zip(logits.numpy(), rows, scores, strict=True):
        expected = naive(row, mask, temperature)
        chooser = Chooser(Sampling(temperature=temperature, top_p=top_p, seed=seed))
        token = chooser.pick(found)
        assert mask.allows(token)
        assert expected[token] > 0
        if temperature:
            nucleus = found.nucleus(temperature, top_p)
            kept = expected[nucleus.ids]
            shares = np.diff(nucleus.sums, prepend=0) / nucleus.sums[-1]
            assert np.allclose(shares, kept / kept.sum(), atol=1e-5)
            # the fewest of the likeliest that reach top_p, but for what 32-bit logits can't tell
            assert kept.sum() > top_p - 1e-5
            assert top_p == 1 or kept.sum() - kept[-1] < top_p + 1e-5
            assert kept.min() >= np.delete(expected, nucleus.ids).max(initial=0) - 1e-5


def test_frequencies_are_those_of_the_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 5.0] + [-30.0] * 400])
    mask = Mask(only=None, forbid=ids(4))
    chooser = Chooser(Sampling(temperature=1.0, top_p=0.95, seed=0))
    scores = legal_scores(logits, [mask], [False])[0]
    counts = np.bincount([chooser.pick(scores) for _ in range(3000)], minlength=5)
    shares = np.exp([2.0, 1.0, 0.0])
    assert counts[3:].sum() == 0
    assert np.allclose(counts[:3] / 3000, shares / shares.sum(), atol=0.04)


def test_allowed_logits_keep_their_bits_in_every_type() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits = torch.randn(2, VOCAB).to(dtype)
        scores = legal_scores(logits, [Mask(None, forbid=ids(3))] * 2, [False, False])
        for row, found in zip(logits, scores, strict=True):
            assert found.row is not None
            assert found.row.logits[3] == -torch.inf
            kept = np.delete(np.arange(VOCAB), 3)
            assert torch.equal(found.row.logits[kept], row[kept])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("mask", [Mask(ids(1, 2)), Mask(None, forbid=ids(0))])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_arent_numbers_are_refused(
    value: float, mask: Mask, temperature: float
) -> None:
    logits = torch.full((1, VOCAB), value)
    chooser = Chooser(Sampling(temperature=temperature, seed=1))
    with pytest.raises(GenerationError, match="aren't finite"):
        chooser.pick(legal_scores(logits, [mask], [temperature == 0])[0])


def test_seeds_of_any_size_work() -> None:
    for seed in (-1, 0, 2**80, None):
        scores = legal_scores(torch.zeros(1, VOCAB), [Mask(ids(5, 6))], [False])[0]
        assert Chooser(Sampling(seed=seed)).pick(scores) in (5, 6)


@given(
    st.lists(st.sampled_from([0.0, -1.5, 2.0, np.inf, -np.inf, np.nan]), min_size=1, max_size=12)
)
def test_the_best_of_a_few_is_what_arrays_call_the_best(values: list[float]) -> None:
    only = ids(*range(0, 3 * len(values), 3))
    logits = torch.zeros(1, VOCAB)
    logits[0, torch.from_numpy(only)] = torch.tensor(values)
    (best,) = legal_scores(logits, [Mask(only)], [True])
    assert isinstance(best, Best)
    assert best.token == only[np.array(values).argmax()]
    assert best.value == values[np.array(values).argmax()] or np.isnan(best.value)
