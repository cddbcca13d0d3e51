"""Choosing the next token from logits under a mask: greedy, or temperature and nucleus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recallm_core.backends import Sampling
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

    def pick(self, scores: Scores) -> int:
        """Returns one token id."""
        best = int(scores.values.argmax())
        _check(float(scores.values[best]))
        if self.greedy:
            return int(scores.ids[best])
        kept = scores.nucleus(self.temperature, self.top_p)
        place = int(np.searchsorted(kept.sums, self._random.random() * kept.sums[-1], "right"))
        return int(kept.ids[min(place, len(kept.ids) - 1)])


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
) -> list[Scores]:
    """Reduces rows of logits to what a choice under each mask needs, in one transfer per kind.

    Args:
        logits: One row per mask, the width of the vocabulary; never changed.
        masks: What is legal in each row.
        greedy: Whether each row needs its best legal token only.
    """
    inside = [i for i, mask in enumerate(masks) if mask.only is not None]
    outside = [i for i, mask in enumerate(masks) if mask.only is None]
    found: dict[int, Scores] = {}
    if inside:
        found |= zip(inside, _candidates(logits, [masks[i] for i in inside], inside), strict=True)
    if outside:
        rows = logits[outside] if len(outside) < len(masks) else logits.clone()
        _forbid(rows, [masks[i] for i in outside])
        best = all(greedy[i] for i in outside)
        found |= zip(outside, _best(rows) if best else _largest(rows), strict=True)
    return [found[i] for i in range(len(masks))]


def _candidates(logits: torch.Tensor, masks: Sequence[Mask], rows: Sequence[int]) -> list[Scores]:
    """Inside a span: the logits of the few legal ids, and nothing else."""
    ids = [mask.only for mask in masks if mask.only is not None]
    sizes = [len(i) for i in ids]
    flat = torch.from_numpy(np.concatenate(ids)).to(logits.device)
    places = torch.from_numpy(np.repeat(np.asarray(rows), sizes)).to(logits.device)
    values = _host(logits[places, flat])
    scores = []
    for mask, only, part in zip(masks, ids, np.split(values, np.cumsum(sizes)[:-1]), strict=True):
        scores.append(Scores(only, part if mask.bias is None else part + mask.bias))
    return scores


def _forbid(rows: torch.Tensor, masks: Sequence[Mask]) -> None:
    """Puts the illegal ids of each row at minus infinity; the others keep their bits."""
    ids = [mask.forbid for mask in masks if mask.forbid is not None]
    sizes = [len(i) for i in ids]
    if sum(sizes):
        flat = torch.from_numpy(np.concatenate(ids)).to(rows.device)
        places = torch.from_numpy(np.repeat(np.arange(len(ids)), sizes)).to(rows.device)
        rows[places, flat] = -torch.inf


def _best(rows: torch.Tensor) -> list[Scores]:
    values, ids = rows.max(dim=-1)
    return [
        Scores(np.array([i], dtype=np.int64), np.array([v], dtype=np.float64))
        for i, v in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def _largest(rows: torch.Tensor) -> list[Scores]:
    values, ids = rows.topk(min(_TOP, rows.shape[-1]), dim=-1)
    ids_host = ids.cpu().numpy()
    values_host = _host(values)
    return [Scores(ids_host[i], values_host[i], row=rows[i]) for i in range(len(ids_host))]
