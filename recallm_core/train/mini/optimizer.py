"""Muon for matrices and Adam for the rest, small enough to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """Returns matrices with all singular values near 1, (n, rows, columns)."""
    tall = stack.shape[1] > stack.shape[2]
    x = stack.transpose(1, 2) if tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    done: Tensor = x.transpose(1, 2) if tall else x
    return done


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised; matrices of one shape are done together."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.1
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates all matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(tuple(p.shape), []).append(p)
            for shape, params in by_shape.items():
                self._step(params, group, shape)

    def _step(
        self, params: list[nn.Parameter], group: dict[str, Any], shape: tuple[int, ...]
    ) -> None:
        directions = []
        for p in params:
            assert p.grad is not None
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            directions.append(p.grad.lerp(state["momentum"], group["momentum"]))
        stack = orthogonalise(torch.stack(directions).to(torch.bfloat16))
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        for p, update in zip(params, stack, strict=True):
            p.mul_(1 - group["lr"] * group["decay"])
            p.add_(update.to(p.dtype), alpha=-group["lr"] * scale)
