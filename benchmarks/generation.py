"""Whole generations: what the constraint costs, what a prefix cache and drafted copies save.

    python benchmarks/generation.py [--model FOLDER] [--tokens 8192] [--pairs 20]

Every run writes the same script: text, then a span copied from the prompt, and so on; a hook raises
the logit of the token that is due, so that model, sampler, constraint and cache all work as usual.
Without a folder the shipped model is measured, or a random one of 4M parameters where there is
none. All times are CPU time of the process with one thread; the machine may be busy.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scripted import Case, make_case, make_rules_for

from recallm_core.backends.local.transformers import TransformersBackend
from recallm_core.models.checkpoint import load_model

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "recallm_core" / "models" / "recallm-mini"


class Forced:
    """Makes a model write a script: the token due at each position gets the largest logit."""

    def __init__(self, model: Any) -> None:
        self.at: dict[int, int] = {}
        self._positions = torch.zeros(1, 0)
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after)

    def _before(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        positions, keep = kwargs.get("position_ids"), kwargs.get("logits_to_keep")
        if positions is None or not self.at:
            self._positions = torch.zeros(0)  # a backend that tries the model out
            return
        positions = positions[0]
        self._positions = positions[-keep:] if isinstance(keep, int) else positions[keep]

    def _after(self, _module: Any, _args: Any, output: Any) -> None:
        for place, position in enumerate(self._positions.tolist()):
            token = self.at.get(position + 1)
            if token is not None:
                output.logits[0, place, token] = 1e4


def run(
    backend: TransformersBackend, forced: Forced, case: Case, **how: bool
) -> tuple[float, float]:
    """CPU seconds to the first token, and from there to the last."""
    forced.at = {len(case.ids) + i: token for i, token in enumerate(case.script)}
    began = time.process_time()
    stream = backend.generate(case.request(**how))
    output = list(next(stream))
    first = time.process_time()
    output += [token for tokens in stream for token in tokens]
    last = time.process_time()
    assert output == case.script, "the script wasn't followed"
    return first - began, last - first


def overhead(backend: TransformersBackend, forced: Forced, case: Case, pairs: int) -> float:
    """Constrained over unconstrained tokens per second, the order alternating."""
    run(backend, forced, case)
    ratios = []
    for number in range(pairs):
        both = {}
        for free in (number % 2 == 0, number % 2 == 1):
            both[free] = run(backend, forced, case, free=free)[1]
        ratios.append(both[True] / both[False])
    return float(np.median(ratios))


def second_question(
    backend: TransformersBackend, forced: Forced, vocab: int, size: int
) -> list[float]:
    """CPU seconds to the first token of questions over the same passages."""
    case = make_case(vocab, size, 2)
    times = []
    for number in range(4):
        ids = case.ids.copy()
        ids[-40:] = np.random.default_rng(number).integers(0, vocab - 4, 40)
        rules = make_rules_for(case, ids)
        times.append(run(backend, forced, Case(ids, rules, case.script))[0])
    return times


@dataclass
class Speeds:
    """CPU seconds and tokens, inside spans and outside."""

    seconds: dict[bool, float]
    tokens: dict[bool, int]

    def per_second(self, inside: bool) -> float:
        """Tokens per second."""
        return self.tokens[inside] / self.seconds[inside]


def speeds(backend: TransformersBackend, forced: Forced, case: Case, rounds: int) -> Speeds:
    """Times every step and books it as recall or plain text, by where it began."""
    engine = backend._engine
    found = Speeds({True: 0.0, False: 0.0}, {True: 0, False: 0})
    step = engine._step

    def timed() -> None:
        running = engine._running[0]
        inside, left = running.constraint.in_span, running.left
        began = time.thread_time()
        step()
        found.seconds[inside] += time.thread_time() - began
        found.tokens[inside] += left - running.left

    engine._step = timed  # type: ignore[method-assign]
    for _ in range(rounds):
        run(backend, forced, case)
    engine._step = step  # type: ignore[method-assign]
    return found


def load(folder: Path | None) -> tuple[Any, str]:
    """The model to measure, and what to call it."""
    if folder is not None:
        return load_model(folder, device=torch.device("cpu"), dtype="auto"), str(folder)
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=8192, hidden_size=192, intermediate_size=512, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=32768,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    return model, f"random Qwen2, {size:.1f}M parameters, 6 layers of 192"


def heading(name: str) -> Iterator[str]:
    """What was measured, on what."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    yield f"machine: {platform.processor() or platform.machine()}, {platform.platform()}, 1 thread"
    yield f"model: {name}"
    yield f"commit: {commit}; torch {torch.__version__}"
    yield f"command: python {' '.join(sys.argv)}\n"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SHIPPED if SHIPPED.is_dir() else None)
    parser.add_argument("--tokens", type=int, default=8192, help="prompt of the second question")
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, name = load(options.model)
    forced = Forced(model)
    plain = TransformersBackend(model, draft_tokens=0)
    for line in heading(name):
        print(line)
    vocab = plain.vocab_size
    case = make_case(vocab, min(2048, plain.window // 2), 400)
    ratio = overhead(plain, forced, case, options.pairs)
    print("| what | found | bar |\n|---|---|---|")
    what = f"constrained over unconstrained tokens/s, median of {options.pairs} pairs"
    print(f"| {what} | {ratio:.3f} | 0.98 |", flush=True)
    size = min(options.tokens, plain.window - 8)
    first, *later = second_question(plain, forced, vocab, size)
    second = float(np.median(later))
    what = f"second question over first, time to first token, {size:,} tokens"
    print(f"| {what} | {second / first:.3f} ({first:.2f} s, {second:.3f} s) | at most 0.10 |")
    base = speeds(plain, forced, case, 3).per_second(False)
    for draft in (4, 8, 16, 32):
        drafting = TransformersBackend(model, draft_tokens=draft)
        recall = speeds(drafting, forced, case, 3).per_second(True)
        what = f"recall over plain tokens/s, drafts of {draft}"
        found = f"{recall / base:.2f} ({recall:.0f}/s, {base:.0f}/s)"
        print(f"| {what} | {found} | at least 3 |", flush=True)
        drafting.close()
    plain.close()


if __name__ == "__main__":
    main()
