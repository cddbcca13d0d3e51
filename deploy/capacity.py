"""What a served model needs, worked out on paper: memory per question, questions at once, replicas.

Nothing here is measured. The formulas and assumptions stand in ``deploy/README.md``, whose tables
this prints: ``python deploy/capacity.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

K = 1024
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Model:
    """The sizes that decide; ``weights`` is the number of parameters."""

    name: str
    weights: float
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    def kv_bytes(self, bytes_per_value: int = 2) -> int:
        """Bytes of keys and values that one token takes."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value

    def flops(self, context: float) -> float:
        """Floating-point operations to read or write one token that attends to ``context``."""
        return 2 * self.weights + 4 * self.layers * self.heads * self.head_dim * context


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What one replica runs on, and the share of its peaks that is assumed to be reached."""

    name: str = "one 80 GB H100"
    memory: float = 80e9
    flops: float = 989e12  # dense bfloat16
    bandwidth: float = 3.35e12
    used_memory: float = 0.9
    used_flops: float = 0.4
    used_bandwidth: float = 0.6
    overhead: float = 3e9  # activations, graphs, the vocabulary's logits


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of question.

    Attributes:
        prompt: Tokens of the prompt.
        output: Tokens of the answer, thinking and quotes included.
        cached: The part of the prompt that the prefix cache holds already.
    """

    prompt: int
    output: int = 1024
    cached: float = 0.0


MODELS = (
    Model("Qwen3-1.7B", 1.72e9, 28, 16, 8, 128),
    Model("Qwen2.5-7B", 7.62e9, 28, 28, 4, 128),
    Model("Llama-3.1-8B", 8.03e9, 32, 32, 8, 128),
)
H100 = Accelerator()
BUSY = 0.7  # the share of its time that a replica may be busy before questions queue up
MOST_AT_ONCE = 256  # vLLM's own limit of running sequences


def questions_at_once(model: Model, load: Load, on: Accelerator = H100) -> int:
    """How many questions' keys and values fit beside the weights."""
    left = on.memory * on.used_memory - on.overhead - 2 * model.weights
    return min(MOST_AT_ONCE, int(left / (model.kv_bytes() * (load.prompt + load.output))))


def seconds_per_question(model: Model, load: Load, on: Accelerator = H100) -> float:
    """How long one question keeps a full replica busy: reading its prompt, then its share of steps.

    Reading is bound by arithmetic; a step is bound by memory, which it reads whole: the weights
    once, and the keys and values of every running question.
    """
    fresh = load.prompt * (1 - load.cached)
    middle = load.prompt * (1 + load.cached) / 2  # what a fresh token attends to, on average
    reading = fresh * model.flops(middle) / (on.flops * on.used_flops)
    running = max(1, questions_at_once(model, load, on))
    held = model.kv_bytes() * (load.prompt + load.output / 2) * running
    step = (2 * model.weights + held) / (on.bandwidth * on.used_bandwidth)
    return reading + load.output * step / running


def replicas(model: Model, load: Load, per_second: float, on: Accelerator = H100) -> int:
    """Replicas for a rate of questions; 0: not even one question fits."""
    if questions_at_once(model, load, on) < 1:
        return 0
    return math.ceil(per_second * seconds_per_question(model, load, on) / BUSY)


def memory_table() -> str:
    """Keys and values, by model and length of the context."""
    lines = [
        "| model | KV per token | at 8K | at 32K | at 128K | at once: 8K / 32K / 128K |",
        "|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        sizes = [f"{model.kv_bytes() * n * K / GIB:.2f} GiB" for n in (8, 32, 128)]
        fit = [questions_at_once(model, Load(n * K)) for n in (8, 32, 128)]
        per = f"{model.kv_bytes() / K:g} KiB"
        lines.append(
            f"| {model.name} | {per} | {' | '.join(sizes)} | {' / '.join(map(str, fit))} |"
        )
    return "\n".join(lines)


def rate_table() -> str:
    """Replicas for one and ten questions a second, without and with a warm prefix cache."""
    lines = [
        "| model | prompt | busy per question, cold | nine tenths cached "
        "| replicas for 1 / 10 a second, cold | nine tenths cached |",
        "|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        for size in (8, 32, 128):
            cold, warm = Load(size * K), Load(size * K, cached=0.9)
            busy = [f"{seconds_per_question(model, load):.2f} s" for load in (cold, warm)]
            need = [
                f"{replicas(model, load, 1)} / {replicas(model, load, 10)}" for load in (cold, warm)
            ]
            lines.append(f"| {model.name} | {size}K | {' | '.join(busy)} | {' | '.join(need)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(memory_table(), rate_table(), sep="\n\n")
