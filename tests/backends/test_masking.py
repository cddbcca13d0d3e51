"""Masks over rows of logits on the host: in place, and as a copy; devices in tests/serving."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.backends import masking
from recallm_core.backends.masking import RowMask, masked_copy, write_masks
from recallm_core.decoding.constraint import Mask

WIDTH = 40
TYPES = (torch.float32, torch.float16, torch.float64, torch.bfloat16)


@st.composite
def masks(draw: st.DrawFn) -> list[Mask | None]:
    """A mask for each of some rows, or none; some leave much, some little."""
    listed: list[Mask | None] = []
    for _ in range(draw(st.integers(1, 5))):
        some = sorted(draw(st.sets(st.integers(0, WIDTH - 1), min_size=1)))
        ids = np.array(some, dtype=np.int64)
        bias = draw(st.sampled_from([None, np.linspace(-2, 2, len(ids))]))
        raised = np.array(sorted(draw(st.sets(st.integers(0, WIDTH - 1), min_size=1))))
        tilted = Mask(None, ids[:-1], np.linspace(1, 9, len(raised)), raised)
        choices = [None, Mask(ids, bias=bias), Mask(None, forbid=ids[:-1]), tilted]
        listed.append(draw(st.sampled_from(choices)))
    return listed


@given(masks(), st.sampled_from(TYPES), st.sampled_from([3, 256]), st.integers(0, 99))
def test_a_copy_has_what_is_written_in_place(
    listed: list[Mask | None], dtype: torch.dtype, wide: int, seed: int
) -> None:
    scores = torch.randn(len(listed), WIDTH, generator=torch.Generator().manual_seed(seed))
    scores = scores.to(dtype)
    scores[-1] = torch.where(scores[-1] > 0, scores[-1], -torch.inf)  # others forbid as well
    before, after = scores.clone(), scores.clone()
    rows = [RowMask(n, mask, WIDTH) for n, mask in enumerate(listed) if mask is not None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "_WIDE", wide)
        write_masks(after, rows)
    assert torch.equal(masked_copy(scores, listed), after)
    assert torch.equal(scores, before)
    for mask, row in zip(listed, after.float(), strict=True):
        legal = [mask is None or mask.allows(token) for token in range(WIDTH)]
        assert not torch.isfinite(row[~torch.tensor(legal)]).any()
        assert torch.isfinite(row).any() or mask is None or mask.only is None


@pytest.mark.parametrize("rows", [1, 3])
def test_tensors_that_torch_guards_are_written_as_any_other(rows: int) -> None:
    listed = [RowMask(n, Mask(np.array([n, 9])), WIDTH) for n in range(rows)]
    plain = torch.randn(rows, WIDTH)
    expected = plain.clone()
    write_masks(expected, listed)
    with torch.inference_mode():
        inferred = plain.clone()
    learned = torch.nn.Parameter(plain.clone())
    for guarded in (inferred, learned):
        write_masks(guarded, listed)
        assert torch.equal(guarded.detach(), expected)
    with torch.inference_mode():
        inferred = plain.clone()
        write_masks(inferred, listed)
        assert torch.equal(inferred, expected)


@given(masks(), st.sampled_from(TYPES), st.booleans())
def test_what_is_preferred_is_raised_and_nothing_else(
    listed: list[Mask | None], dtype: torch.dtype, on_device: bool
) -> None:
    before = torch.zeros(len(listed), WIDTH, dtype=dtype)
    after = before.clone()
    rows = [RowMask(n, mask, WIDTH) for n, mask in enumerate(listed) if mask is not None]
    with pytest.MonkeyPatch.context() as patch:
        if on_device:
            patch.setattr(masking, "host_rows", lambda logits: None)
        write_masks(after, rows)
    for mask, row in zip(listed, after, strict=True):
        if mask is None or mask.only is not None:
            continue
        expected = torch.zeros(WIDTH, dtype=dtype)
        if mask.tilted is not None and mask.bias is not None:
            expected[torch.from_numpy(mask.tilted)] = torch.from_numpy(mask.bias).to(dtype)
        expected[torch.from_numpy(mask.forbid)] = -torch.inf
        assert torch.equal(row, expected)
