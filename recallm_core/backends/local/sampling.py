"""Choosing the next token from logits under a mask: greedy, or temperature and nucleus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recallm_core.backends import Sampling
from recallm_core.backends.masking import host_rows
from recallm_core.decoding.constraint import Mask
from recallm_core.errors import GenerationError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TOP = 256  # logits looked at before the whole row is sorted


class Chooser:
    """One sequence's choices; its random numbers depend on its seed and its choices alone."""

    def __init__(self, sampling: Sampling) -> None:
        self.greedy = sampling.temperature == 0
        self.temperature = sampling.temperature
        self.top_p = sampling.top_p
        seed = None if sampling.seed is None else sampling.seed % 2**64
        self._random = np.random.default_rng(seed)

    def pick(self, scores: Scores | Best) -> int:
        """Returns one token id."""
        if isinstance(scores, Best):
            _check(scores.value)
            return scores.token
        best = int(scores.values.argmax())
        _check(float(scores.values[best]))
        if self.greedy:
            return int(scores.ids[best])
        nucleus = scores.nucleus(self.temperature, self.top_p)
        draw = self._random.random() * nucleus.sums[-1]
        place = int(np.searchsorted(nucleus.sums, draw, "right"))
        return int(nucleus.ids[min(place, len(nucleus.ids) - 1)])


@dataclass(slots=True)
class Best:
    """The best legal token of one position, and its logit: all that greedy decoding asks for."""

    token: int
    value: float


@dataclass(frozen=True, slots=True)
class _Nucleus:
    ids: Ints
    sums: Floats


@dataclass(frozen=True, slots=True)
class Scores:
    """The logits of one position that matter for a choice.

    Attributes:
        ids: Token ids.
        values: Their logits, the tilt of a prior included.
        row: The whole row on its device where ``ids`` are only its largest; None: they are all.
    """

    ids: Ints
    values: Floats
    row: torch.Tensor | None = None

    def nucleus(self, temperature: float, top_p: float) -> _Nucleus:
        """Returns the most likely ids that together reach ``top_p``, likeliest first."""
        if self.row is None:
            order = np.argsort(-self.values, kind="stable")
            ids, scaled = self.ids[order], self.values[order] / temperature
            total = _log_sum(scaled)
        else:
            ids, scaled = self.ids, self.values / temperature
            total = float(torch.logsumexp(self.row.float() / temperature, dim=-1))
        sums = np.cumsum(np.exp(scaled - total))
        if self.row is not None and (sums[-1] < top_p or top_p >= 1) and len(ids) < len(self.row):
            return self._whole().nucleus(temperature, top_p)
        count = int(np.searchsorted(sums, top_p, "left")) + 1 if top_p < 1 else len(ids)
        return _Nucleus(ids[:count], sums[:count])

    def _whole(self) -> Scores:
        assert self.row is not None
        return Scores(np.arange(len(self.row), dtype=np.int64), _host(self.row))


def _host(values: torch.Tensor) -> Floats:
    """Copies logits here; by way of float32, since some accelerators know no float64."""
    return values.float().cpu().numpy().astype(np.float64)


def _log_sum(values: Floats) -> float:
    top = float(values.max())
    return top + math.log(float(np.exp(values - top).sum()))


def _check(total: float) -> None:
    if not math.isfinite(total):
        raise GenerationError(
            "the model's logits aren't finite; it overflowed, as float16 models do: load it with "
            "dtype='bfloat16' or dtype='float32'"
        )


def legal_scores(
    logits: torch.Tensor, masks: Sequence[Mask], greedy: Sequence[bool]
) -> list[Scores | Best]:
    """Reduces rows of logits to what a choice under each mask needs, in one transfer per kind.

    Args:
        logits: One row per mask, the width of the vocabulary; never changed.
        masks: What is legal in each row.
        greedy: Whether each row needs its best legal token only.
    """
    inside = [i for i, mask in enumerate(masks) if mask.only is not None]
    outside = [i for i, mask in enumerate(masks) if mask.only is None]
    scores: dict[int, Scores | Best] = {}
    if inside:
        few = _candidates(logits, [masks[i] for i in inside], inside, [greedy[i] for i in inside])
        scores |= zip(inside, few, strict=True)
    if outside:
        rows = logits[outside] if len(outside) < len(masks) else logits.clone()
        _forbid(rows, [masks[i] for i in outside])
        best = all(greedy[i] for i in outside)
        scores |= zip(outside, _best(rows) if best else _largest(rows), strict=True)
    return [scores[i] for i in range(len(masks))]


def _candidates(
    logits: torch.Tensor, masks: Sequence[Mask], rows: Sequence[int], greedy: Sequence[bool]
) -> list[Scores | Best]:
    """Inside a span: the logits of the few legal ids, and nothing else."""
    several = [mask.only for mask in masks if mask.only is not None]
    sizes = np.array([len(only) for only in several])
    ids = np.concatenate(several)
    values = _picked(logits, np.repeat(np.asarray(rows), sizes), ids)
    if any(mask.bias is not None for mask in masks):
        zeros = (np.zeros(size) for size in sizes.tolist())
        parts = (z if m.bias is None else m.bias for z, m in zip(zeros, masks, strict=True))
        values = values + np.concatenate(list(parts))
    if all(greedy) and sizes.all():
        return _best_of_each(ids, values, sizes)
    parts_of_rows = zip(several, np.split(values, np.cumsum(sizes)[:-1]), strict=True)
    return [Scores(only, part) for only, part in parts_of_rows]


def _picked(logits: torch.Tensor, rows: Ints, ids: Ints) -> Floats:
    """Some logits, as numbers of 64 bits."""
    array = host_rows(logits)
    if array is not None:
        return array[rows, ids].astype(np.float64)
    device = logits.device
    return _host(logits[torch.from_numpy(rows).to(device), torch.from_numpy(ids).to(device)])


def _best_of_each(ids: Ints, values: Floats, sizes: Ints) -> list[Scores | Best]:
    """The first of the best of each row's candidates, which stand one row after the other."""
    firsts = np.cumsum(sizes) - sizes
    best = np.maximum.reduceat(values, firsts)
    places = np.flatnonzero((values == np.repeat(best, sizes)) | np.isnan(values))
    tokens = ids[places[np.searchsorted(places, firsts)]]
    return [Best(t, v) for t, v in zip(tokens.tolist(), best.tolist(), strict=True)]


def _forbid(rows: torch.Tensor, masks: Sequence[Mask]) -> None:
    """Puts the illegal ids of each row at minus infinity; the others keep their bits."""
    ids = [mask.forbid for mask in masks if mask.forbid is not None]
    sizes = [len(i) for i in ids]
    if sum(sizes):
        flat = torch.from_numpy(np.concatenate(ids)).to(rows.device)
        places = torch.from_numpy(np.repeat(np.arange(len(ids)), sizes)).to(rows.device)
        rows[places, flat] = -torch.inf


def _best(rows: torch.Tensor) -> list[Scores | Best]:
    values, ids = rows.max(dim=-1)
    return [Best(i, v) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]


def _largest(rows: torch.Tensor) -> list[Scores | Best]:
    values, ids = rows.topk(min(_TOP, rows.shape[-1]), dim=-1)
    ids_host = ids.cpu().numpy()
    values_host = _host(values)
    return [Scores(ids_host[i], values_host[i], row=rows[i]) for i in range(len(ids_host))]
