"""The mini: Llama's architecture in plain torch, with a structured start and watched heads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own habit)


@dataclass(frozen=True, slots=True)
class MiniShape:
    """Sizes of the network; ``width`` must be ``heads`` times 64."""

    vocab_size: int = 6144
    width: int = 192
    layers: int = 6
    heads: int = 3
    hidden: int = 512
    rope_theta: float = 10_000.0
    context_length: int = 16_384

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads


@dataclass(frozen=True, slots=True)
class SupervisedScores:
    """Attention scores before the softmax of the three supervised heads, (batch, query, key)."""

    copy: Tensor
    answer: Tensor
    retrieve: Tensor


class Block(nn.Module):
    """One layer; parameters are kept in 32 bits."""

    def __init__(self, shape: MiniShape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.heads = shape.heads
        self.input_norm = nn.Parameter(torch.ones(width))
        self.post_norm = nn.Parameter(torch.ones(width))
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the new states, and the rotated queries and keys (batch, head, token, width)."""
        batch, length, width = x.shape
        dtype = x.dtype
        y = F.rms_norm(x, (width,), self.input_norm.to(dtype), 1e-6)
        weight = torch.cat((self.q.weight, self.k.weight, self.v.weight)).to(dtype)
        bias = torch.cat((self.q.bias, self.k.bias, self.v.bias)).to(dtype)
        qkv = F.linear(y, weight, bias).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        mixed = _attend(q, k, v)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        x = x + F.linear(mixed, self.o.weight.to(dtype))
        y = F.rms_norm(x, (width,), self.post_norm.to(dtype), 1e-6)
        both = F.linear(y, torch.cat((self.gate.weight, self.up.weight)).to(dtype))
        gate, up = both.chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down.weight.to(dtype)), q, k


class Mini(nn.Module):
    """The network. Attention of three heads can be watched, so that it can be taught."""

    def __init__(self, shape: MiniShape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Parameter(torch.randn(shape.vocab_size, shape.width) * 0.02)
            self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
            self.norm = nn.Parameter(torch.ones(shape.width))
            self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Structured start: two heads look one and two tokens back, equal tokens attract."""
        scale = 1.0 / math.sqrt(self.shape.width)
        for block in self.blocks:
            assert isinstance(block, Block)
            for linear in (block.q, block.v, block.gate, block.up):
                nn.init.normal_(linear.weight, std=scale * 0.7)
            for linear in (block.o, block.down):
                std = 0.5 / math.sqrt(linear.in_features * self.shape.layers)
                nn.init.normal_(linear.weight, std=std)
            block.k.weight.copy_(block.q.weight)
            for linear in (block.q, block.k, block.v):
                nn.init.zeros_(linear.bias)
        first = self.blocks[0]
        assert isinstance(first, Block)
        for head, back in ((0, 1), (1, 2)):
            if head < self.shape.heads:
                self._look_back(first, head, back)

    def _look_back(self, block: Block, head: int, back: int) -> None:
        """Makes a head attend ``back`` tokens back, by biases on the fastest rotations alone."""
        width = self.shape.head_width
        low = head * width
        speeds = self.shape.rope_theta ** (-torch.arange(0, width, 2) / width)
        fast = min(10, width // 2)
        for name in (block.q, block.k):
            name.weight[low : low + width] *= 0.1
        block.q.bias[low : low + fast] = 6.0
        angle = speeds[:fast] * back
        block.k.bias[low : low + fast] = 6.0 * torch.cos(angle)
        block.k.bias[low + width // 2 : low + width // 2 + fast] = 6.0 * torch.sin(angle)

    @property
    def watched_layers(self) -> tuple[int, int]:
        """The layers of the copying heads and of the retrieving head."""
        layers = self.shape.layers
        return max(layers - 2, 0), max(layers // 2, 0)

    def forward(
        self, ids: Tensor, positions: Tensor, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, SupervisedScores]:
        """Returns the last states (batch, token, width) and the scores of the watched heads."""
        width = self.shape.head_width
        speeds = self.shape.rope_theta ** (
            -torch.arange(0, width, 2, device=ids.device, dtype=torch.float32) / width
        )
        angles = positions[:, None, :, None].float() * speeds
        cos = torch.cos(angles).repeat(1, 1, 1, 2).to(dtype)
        sin = torch.sin(angles).repeat(1, 1, 1, 2).to(dtype)
        x = F.embedding(ids, self.embed).to(dtype)
        copying, retrieving = self.watched_layers
        scores: dict[str, Tensor] = {}
        for number, block in enumerate(self.blocks):
            x, q, k = block(x, cos, sin)
            if number == copying:
                scores["copy"] = q[:, 0] @ k[:, 0].transpose(1, 2)
                last = min(1, self.shape.heads - 1)
                scores["answer"] = q[:, last] @ k[:, last].transpose(1, 2)
            if number == retrieving:
                scores["retrieve"] = q[:, 0] @ k[:, 0].transpose(1, 2)
        x = F.rms_norm(x, (self.shape.width,), self.norm.to(dtype), 1e-6)
        return x, SupervisedScores(scores["copy"], scores["answer"], scores["retrieve"])

    def logits(self, states: Tensor) -> Tensor:
        """Returns the logits of some states, (n, width) to (n, vocabulary)."""
        return F.linear(states, self.embed.to(states.dtype))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention; short rows are faster without the fused kernel on a CPU."""
    length = q.shape[2]
    if q.is_cuda or length > 512:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.transpose(2, 3)) * (1.0 / math.sqrt(q.shape[3]))
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
