"""llama.cpp beside transformers: the same weights, the same engine, one thread, in turn.

    python benchmarks/gguf_generation.py FILE.gguf FOLDER [--rounds 3] [--pairs 6] [--memory]

FOLDER holds the same weights for transformers (as tests/real/bring.py makes it). Each engine is in
a process of its own, and the two take turns, so that a busy machine slows both. Times are CPU time.
Memory is what a process holds after loading the model with its tokenizer and writing some words;
with --memory nothing else is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scripted import Case, make_case, make_rules_for

ROOT = Path(__file__).resolve().parent.parent
PROMPT, WORDS, SCRIPT, LONG = 320, 24, 90, 1024  # tokens


class Engine:
    """One engine in this process, made to write what a script says."""

    def __init__(self, kind: str, path: str, draft_tokens: int = 0) -> None:
        from recallm_core import RecaLLM

        options: dict[str, Any] = {"threads": 1} if kind == "llama.cpp" else {"dtype": "float32"}
        if kind != "llama.cpp":
            import torch

            torch.set_num_threads(1)
        began = time.process_time()
        self.llm = RecaLLM.load(path, mode="prompted", draft_tokens=draft_tokens, **options)
        self.loading = time.process_time() - began
        self.backend: Any = self.llm.backend
        self._runner = self.backend._engine._runner
        self._step: Callable[..., Any] = self._runner.step
        self._runner.step = self._forced
        self._due: dict[int, int] = {}

    def _forced(self, slots: Sequence[Any], tokens: Any, wanted: Sequence[Sequence[int]]) -> Any:
        """The model's logits, and the token that is due above all."""
        logits = self._step(slots, tokens, wanted)
        rows = [
            (slot, place) for slot, places in zip(slots, wanted, strict=True) for place in places
        ]
        for row, (slot, place) in zip(logits, rows, strict=True):
            row[self._due[slot.length + place + 1]] = 1e4
        return logits

    def write(self, case: Case, *, free: bool = False) -> tuple[float, float]:
        """CPU seconds to the first token of a script, and from there to its last."""
        self._due = {len(case.ids) + i: token for i, token in enumerate(case.script)}
        began = time.process_time()
        stream = self.backend.generate(case.request(free=free))
        output = list(next(stream))
        first = time.process_time()
        output += [token for tokens in stream for token in tokens]
        assert output == case.script, "the script wasn't followed"
        return first - began, time.process_time() - first

    def plain(self, seed: int) -> dict[str, float]:
        """Tokens per second of reading a prompt that is new, and of writing words."""
        case = make_case(self.backend.vocab_size, PROMPT, WORDS, seed)
        reading, writing = self.write(case, free=True)
        return {"prefill": PROMPT / reading, "decode": (WORDS - 1) / writing}

    def memory(self, seed: int) -> dict[str, float]:
        """Megabytes that this process holds, and its seconds of loading."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"MB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "load": self.loading}

    def overhead(self, seed: int) -> dict[str, float]:
        """Constrained over unconstrained tokens per second of one script."""
        case = make_case(self.backend.vocab_size, 768, SCRIPT, 0)
        seconds = {}
        for free in (seed % 2 == 0, seed % 2 == 1):
            seconds[free] = self.write(case, free=free)[1]
        return {"ratio": seconds[True] / seconds[False]}

    def script(self, seed: int) -> dict[str, float]:
        """Tokens per second of a script that is half recall."""
        case = make_case(self.backend.vocab_size, 768, SCRIPT, 0)
        return {"script": (SCRIPT - 1) / self.write(case)[1]}

    def second(self, seed: int) -> dict[str, float]:
        """CPU seconds to the first token over passages that may be known, by another question."""
        case = make_case(self.backend.vocab_size, LONG, 2, 5)
        ids = case.ids.copy()
        ids[-40:] = np.random.default_rng(seed).integers(0, self.backend.vocab_size - 4, 40)
        return {"first": self.write(Case(ids, make_rules_for(case, ids), case.script))[0]}


class Process:
    """An engine in another process, which does what it is told and tells what it took."""

    def __init__(self, kind: str, path: str, draft_tokens: int = 0) -> None:
        command = [sys.executable, __file__, "--serve", kind, path, str(draft_tokens)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, **pipes)

    def do(self, what: str, seed: int = 0) -> dict[str, float]:
        """One measurement."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{what} {seed}\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """Ends it."""
        self._process.communicate()


def serve(kind: str, path: str, draft_tokens: str) -> None:
    """What the other process does."""
    engine = Engine(kind, path, int(draft_tokens))
    for line in sys.stdin:
        what, seed = line.split()
        print(json.dumps(getattr(engine, what)(int(seed))), flush=True)
    engine.llm.close()


def middle(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: float(np.median([value[name] for value in values])) for name in values[0]}


def beside(file: str, folder: str, rounds: int) -> None:
    """Both engines in turn: speed and memory."""
    engines = {"llama.cpp": Process("llama.cpp", file), "transformers": Process("other", folder)}
    for engine in engines.values():
        engine.do("plain", 999)
    turns = [{name: e.do("plain", seed) for name, e in engines.items()} for seed in range(rounds)]
    ours, other = (
        middle([turn[name] for turn in turns]) | engine.do("memory")
        for name, engine in engines.items()
    )
    for engine in engines.values():
        engine.end()
    for name, unit in (("decode", "tokens/s"), ("prefill", "tokens/s"), ("MB", ""), ("load", "s")):
        ratio = ours[name] / other[name] if unit == "tokens/s" else other[name] / ours[name]
        print(f"| {name} {unit} | {ours[name]:.1f} | {other[name]:.1f} | {ratio:.2f} |", flush=True)


def memory(file: str, folder: str) -> None:
    """What either holds after writing some words, one after the other."""
    sizes = []
    for kind, path in (("llama.cpp", file), ("other", folder)):
        engine = Process(kind, path)
        engine.do("plain", 999)
        sizes.append(engine.do("memory")["MB"])
        engine.end()
    print(f"| MB | {sizes[0]:,.0f} | {sizes[1]:,.0f} | {sizes[1] / sizes[0]:.2f} |", flush=True)


def alone(file: str, rounds: int, pairs: int) -> None:
    """llama.cpp: what the constraint costs, what drafts and beginnings save."""
    plain, drafting = Process("llama.cpp", file), Process("llama.cpp", file, 16)
    for engine in (plain, drafting):
        engine.do("script")
    ratio = middle([plain.do("overhead", seed) for seed in range(pairs)])["ratio"]
    print(f"| constrained over unconstrained tokens/s, {pairs} pairs | {ratio:.3f} | 0.98 |")
    both = [(plain.do("script"), drafting.do("script")) for _ in range(rounds)]
    without, drafted = (
        middle([a for a, _ in both])["script"],
        middle([b for _, b in both])["script"],
    )
    print(f"| a script half of recall, drafts of 16 over none | {drafted / without:.2f} | |")
    first, *later = (plain.do("second", seed)["first"] for seed in range(rounds + 1))
    share = float(np.median(later)) / first
    print(
        f"| second question over first, {LONG:,} tokens | {share:.3f} | at most 0.10 |", flush=True
    )
    for engine in (plain, drafting):
        engine.end()


def main() -> None:
    """Prints the tables of one model."""
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:5])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    print(f"model: {Path(options.file).name}; commit {commit}\n", flush=True)
    print("| what | llama.cpp | transformers | times |\n|---|---|---|---|", flush=True)
    if options.memory:
        memory(options.file, options.folder)
        return
    beside(options.file, options.folder, options.rounds)
    print("\n| what, on llama.cpp | ratio | bar |\n|---|---|---|", flush=True)
    alone(options.file, options.rounds, options.pairs)


if __name__ == "__main__":
    main()
