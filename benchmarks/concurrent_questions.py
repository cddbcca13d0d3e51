"""Callers who ask at once, each over a pack of its own: who waits for whose evidence.

    python benchmarks/concurrent_questions.py --before CHECKOUT [--callers 8] [--rounds 3]

One more stream, without a prior, writes meanwhile: its longest silence shows whether decoding waits
for an encoder. Each round measures the checkout given and this one, in a fresh process each, one
after the other; the table has the medians of the rounds. Times are wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("Skerry", "Hallow", "Brae", "Tarn", "Orrin", "Wick", "Selby", "Marl", "Dunnet", "Quay")
NAMES = ("Ann Lee", "Bo Hart", "Cy Moss", "Di Frost", "Ed Vane", "Flo Reed", "Gil Nash", "Hal Dow")
FIGURES = {
    "ready": "prompt built, s",
    "first": "first token, s",
    "last_first": "slowest first token, s",
    "all": "all answers, s",
    "rate": "tokens per second, all callers",
    "other": "tokens per second, the other stream",
    "silence": "longest silence of the other stream, ms",
}


def pack(seed: int, documents: int = 4, sentences: int = 30) -> tuple[str, list[str]]:
    """Returns a question and texts that hold its answer in two hops, among much that is alike."""
    source = random.Random(seed)
    texts = []
    for _ in range(documents):
        lines = [
            f"The ferry from {a} to {b} leaves at {hour}:{minute:02d} and costs {price} euros."
            for a, b, hour, minute, price in (
                (*source.sample(PLACES, 2), source.randint(5, 22), source.randint(0, 59), n + 3)
                for n in range(sentences)
            )
        ]
        person, place = source.choice(NAMES), source.choice(PLACES)
        lines.insert(source.randrange(sentences), f"{person} runs the harbour of {place}.")
        texts.append(" ".join(lines))
    person = source.choice(NAMES)
    texts[0] += f" {person} built lighthouse {seed}. {person} was born in {source.choice(PLACES)}."
    return f"Where was the person born who built lighthouse {seed}?", texts


def measure(model: str, callers: int, seed: int) -> dict[str, float]:
    """Asks all at once, in this process; returns the figures."""
    from recallm_core import RecaLLM

    llm = RecaLLM.load(model, max_batch=callers + 1)
    question, texts = pack(10_000)
    llm.answer(question, texts, max_new_tokens=64)  # loads what is loaded lazily
    start = threading.Barrier(callers + 1)
    rows: list[tuple[float, float, float, int]] = []
    over = threading.Event()
    silences: list[float] = []

    def ask(number: int) -> None:
        question, texts = pack(seed * 100 + number)
        start.wait()
        begun = time.perf_counter()
        stream = llm.stream(question, texts, temperature=0, max_new_tokens=200)
        ready = time.perf_counter() - begun
        tokens = iter(stream._tokens)
        first, count, ends = 0.0, 0, stream._prompt.spec.eos
        for part in tokens:
            first = first or time.perf_counter() - begun
            count += sum(token not in ends for token in part)
        rows.append((ready, first, time.perf_counter() - begun, count))

    def write() -> None:
        start.wait()
        while not over.is_set():
            before = None
            for _ in endless(llm, pack(1)[1][:1]):
                now = time.perf_counter()
                silences.append(0.0 if before is None else now - before)
                before = now
                if over.is_set():
                    return

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(callers)]
    writer = threading.Thread(target=write)
    for thread in (*threads, writer):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    writer.join()
    return {
        "ready": median(row[0] for row in rows),
        "first": median(row[1] for row in rows),
        "last_first": max(row[1] for row in rows),
        "all": max(row[2] for row in rows),
        "rate": sum(row[3] for row in rows) / max(row[2] for row in rows),
        "other": len(silences) / max(row[2] for row in rows),
        "silence": 1000 * max(silences, default=0.0),
        "tokens": sum(row[3] for row in rows),
    }


def endless(llm: Any, texts: list[str]) -> Iterator[Any]:
    """Yields the tokens of an answer without quotes that nothing ends but its length."""
    from recallm_core.backends import GenerationRequest, Sampling
    from recallm_core.decoding.constraint import ConstraintRules, build_index

    quiet = {"prior": "none", "recall_in": "none", "answer_form": "words", "max_new_tokens": 9}
    prompt, _ = llm.prepare([{"role": "user", "content": "Which is cheapest?"}], texts, **quiet)
    spec = prompt.spec
    spec = replace(spec, forbidden=(*spec.forbidden, *spec.eos), max_thinking_tokens=0)
    rules = ConstraintRules(spec, build_index(spec, prompt.token_ids))
    length = llm.backend.window - len(prompt.token_ids)
    yield from llm.backend.generate(
        GenerationRequest(prompt.token_ids, rules, Sampling(length, 0.0))
    )


def in_process_of(checkout: Path, args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Runs ``measure`` over the sources of a checkout."""
    command = [sys.executable, __file__, "--measure", str(seed)]
    command += ["--callers", str(args.callers), "--model", args.model]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def commit(checkout: Path) -> str:
    """Returns the commit of a checkout."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, default=ROOT, metavar="CHECKOUT")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="recallm-mini")
    parser.add_argument("--measure", type=int, metavar="SEED", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        sys.stdout.write(json.dumps(measure(args.model, args.callers, args.measure)))
        return
    checkouts = {"before": args.before.resolve(), "now": ROOT}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for number in range(args.rounds):
        for name, checkout in checkouts.items():
            rounds[name].append(in_process_of(checkout, args, number))
            print(f"round {number + 1}, {name}: {rounds[name][-1]}", file=sys.stderr)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, {platform.platform()}")
    print(f"commits: {commit(checkouts['before'])} before, {commit(ROOT)} now")
    print(f"command: python {' '.join(sys.argv)}\n")
    print("| | before | now |\n|---|---|---|")
    for key, title in FIGURES.items():
        values = [f"{median(row[key] for row in rounds[name]):.3g}" for name in checkouts]
        print(f"| {title} | {' | '.join(values)} |")
    totals = [{int(row["tokens"]) for row in rounds[name]} for name in checkouts]
    print(f"\ntokens written: {'the same' if totals[0] == totals[1] else totals}")


if __name__ == "__main__":
    main()
