"""vLLM with the constraint and without: tokens per second, and what a step costs in its worker.

    python benchmarks/vllm_generation.py [--requests 1 8 32] [--pairs 9] [--sizes 32768 131072]

Runs in vLLM's own environment: that of RECALLM_VLLM_PYTHON, or the Python that runs this, with one
thread and the engine in this process. On a CPU that is vLLM's first model runner.

Tokens per second: as many requests at once as a row says write the same script with and without
their constraints, one way after the other, the order alternating: text, then a span copied from the
prompt, and so on. A second logits processor raises the token that is due; it runs both ways. All
prompts differ, and stand in the prefix cache: what is timed is decoding, and what a constraint's
requests need beforehand (specs are read, indexes built).

A step in the worker: the processor gets requests and outputs as the runner gives them, and what it
needs to forbid all that is illegal in a row of 151,936 logits each is timed, against the rescan of
constrained_step.py. Spans of 64 tokens start at random places.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from constrained_step import CLOSE, OPEN, SPAN, VOCAB, commit, contexts, make_rules, time_rescan
from generation import ROOT, SHIPPED, make_case

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
PAIRED = 40  # requests that are answered both ways, at least
SPANS, LEAST_ROUNDS = 16, 3  # spans that are copied in a measurement; and by each request


def enter_environment() -> None:
    """Starts this script again where vLLM is, with the settings it reads when it is imported."""
    if os.environ.items() >= ENVIRONMENT.items():
        if find_spec("vllm") is None:
            raise SystemExit(
                f"{sys.executable} has no vLLM; set RECALLM_VLLM_PYTHON to the Python of an "
                "environment that has it (make vllm makes one: .venv-vllm/bin/python)"
            )
        return
    python = os.environ.get("RECALLM_VLLM_PYTHON", sys.executable)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}
    os.execve(python, [python, *sys.argv], environment)


# Tokens per second.

APPLIED: list[float] = []  # microseconds that the processor took for the steps of a batch


def timed() -> type[Any]:
    """The processor, which notes how long each of its steps takes."""
    from recallm_core.serving.processor import RecallProcessor

    class Timed(RecallProcessor):
        """Its time is that of its thread."""

        def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
            """Forbids what is illegal."""
            began = time.thread_time_ns()
            masked: torch.Tensor = super().apply(logits, ctx)
            APPLIED.append((time.thread_time_ns() - began) / 1000)
            return masked

    return Timed


def forced() -> type[Any]:
    """A processor under which each request writes the script among its arguments."""
    from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

    class Forced(AdapterLogitsProcessor):  # type: ignore[misc] # untyped
        """Raises the token that is due next."""

        def is_argmax_invariant(self) -> bool:
            """No: it changes what is written."""
            return False

        def new_req_logits_processor(self, params: Any) -> Any:
            """What is called for each row of a request."""
            script = params.extra_args["script"]

            def raise_due(output: list[int], row: Any) -> Any:
                row[script[len(output)]] = 1e4
                return row

            return raise_due

    return Forced


@dataclass(frozen=True)
class Speed:
    """Seconds of the processor and of the clock for a batch; microseconds of a step's masks."""

    processor: float
    clock: float
    masks: float


class Engine:
    """vLLM in this process, and requests that write scripts.

    Args:
        model: The folder.
        most: Requests at once.
        prompt: Tokens of each prompt.
        output: Tokens that each request writes.
    """

    def __init__(self, model: Path, most: int, prompt: int, output: int) -> None:
        from vllm import LLM

        self._llm = LLM(
            model=str(model),
            load_format="safetensors",
            dtype="float32",
            enforce_eager=True,
            max_model_len=prompt + output + 1,
            max_num_seqs=most,
            gpu_memory_utilization=0.5,
            logits_processors=[forced(), timed()],
        )
        self.config = self._llm.llm_engine.vllm_config
        vocab = self.config.model_config.get_vocab_size()
        self._cases = [make_case(vocab, prompt, output, seed) for seed in range(most)]
        self._specs = [case.rules.spec.to_json() for case in self._cases]

    def run(self, requests: int, *, free: bool) -> Speed:
        """Answers that many requests at once, which have to write their scripts."""
        from vllm import SamplingParams

        cases = self._cases[:requests]
        prompts = [{"prompt_token_ids": case.ids.tolist()} for case in cases]
        params = [
            SamplingParams(
                temperature=0.0,
                max_tokens=len(case.script),
                ignore_eos=True,
                detokenize=False,
                extra_args={"script": case.script} | ({} if free else {"recallm": spec}),
            )
            for case, spec in zip(cases, self._specs, strict=False)
        ]
        gc.collect()
        APPLIED.clear()
        clock, processor = time.perf_counter(), time.process_time()
        found = self._llm.generate(prompts, params, use_tqdm=False)
        spent = (time.process_time() - processor, time.perf_counter() - clock)
        for case, output in zip(cases, found, strict=True):
            if list(output.outputs[0].token_ids) != case.script:
                raise SystemExit("the script wasn't followed; the figures would mean nothing")
        return Speed(*spent, float(np.median(APPLIED)))

    def compare(self, requests: int, pairs: int) -> tuple[list[Speed], list[Speed]]:
        """Speeds without the constraint and with it, pair by pair."""
        self.run(requests, free=True)
        self.run(requests, free=False)
        found: dict[bool, list[Speed]] = {True: [], False: []}
        for number in range(pairs):
            for free in (number % 2 == 0, number % 2 == 1):
                found[free].append(self.run(requests, free=free))
        return found[True], found[False]


def speed_rows(engine: Engine, options: argparse.Namespace) -> Iterator[str]:
    """The first table."""
    sizes = f"prompts of {options.prompt:,} tokens, {options.output} new ones each"
    yield f"tokens per second, {sizes}; medians (quartiles) of pairs\n"
    yield (
        "| requests | pairs | without, CPU | with, CPU | with over without, CPU | without, clock "
        "| with, clock | with over without, clock | masks of a step, CPU us |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for requests in options.requests:
        pairs = max(options.pairs, PAIRED // requests)
        free, held = engine.compare(requests, pairs)
        tokens, cells = requests * options.output, []
        for name in ("processor", "clock"):
            seconds = np.array([[getattr(s, name) for s in speeds] for speeds in (free, held)])
            slow, fast = tokens / np.median(seconds, axis=1)
            ratios = seconds[0] / seconds[1]
            low, middle, high = np.percentile(ratios, (25, 50, 75))
            cells += [f"{slow:,.0f}", f"{fast:,.0f}", f"{middle:.3f} ({low:.3f} to {high:.3f})"]
        cells.append(f"{np.median([speed.masks for speed in held]):,.0f}")
        yield f"| {requests} | {pairs} | " + " | ".join(cells) + " |"


# A step in the worker.


@dataclass
class Steps:
    """Microseconds of a whole batch: for its first masks of all, and for one step."""

    begins: float = 0.0
    opens: list[float] = field(default_factory=list)
    copies: list[float] = field(default_factory=list)


class Worker:
    """The processor with a batch of requests over one prompt, fed as vLLM's first runner does.

    Args:
        config: vLLM's.
        ids: The prompt.
        spec: The constraint, as it travels.
        batch: How many requests.
    """

    def __init__(self, config: Any, ids: np.ndarray, spec: str, batch: int) -> None:
        from vllm import SamplingParams
        from vllm.v1.sample.logits_processor import BatchUpdate

        from recallm_core.serving.processor import RecallProcessor

        self._processor = RecallProcessor(config, torch.device("cpu"), False)
        self._outputs: list[list[int]] = [[] for _ in range(batch)]
        self._fresh = torch.randn(batch, VOCAB)
        self.logits = self._fresh.clone()
        prompt, params = ids.tolist(), SamplingParams(extra_args={"recallm": spec})
        added = [(row, params, prompt, output) for row, output in enumerate(self._outputs)]
        self._update = BatchUpdate(batch, removed=(), added=added, moved=())

    def step(self, tokens: list[int]) -> float:
        """Microseconds until all rows are masked, once each has written one more token."""
        for output, token in zip(self._outputs, tokens, strict=False):
            output.append(token)
        self.logits.copy_(self._fresh)
        began = time.thread_time_ns()
        self._processor.update_state(self._update)
        self._processor.apply(self.logits)
        self._update = None
        return (time.thread_time_ns() - began) / 1000


def time_worker(config: Any, ids: np.ndarray, spec: str, batch: int) -> Steps:
    """Copies spans from random places, a step at a time for the whole batch."""
    rng = np.random.default_rng(1)
    worker, steps = Worker(config, ids, spec, batch), Steps()
    steps.begins = worker.step([])
    gc.collect()
    for _ in range(max(SPANS // batch, LEAST_ROUNDS)):
        starts = rng.integers(0, len(ids) - SPAN - 1, batch)
        copied = [ids[starts + place].tolist() for place in range(SPAN)]
        steps.opens.append(worker.step([OPEN] * batch))
        for tokens in copied:
            if not legal(worker.logits, tokens) or legal(worker.logits, [OPEN] * batch):
                raise SystemExit("the mask is wrong; the figures would mean nothing")
            steps.copies.append(worker.step(tokens))
        worker.step([CLOSE] * batch)
    return steps


def legal(logits: torch.Tensor, tokens: list[int]) -> bool:
    """Whether each row allows its token."""
    return bool(torch.isfinite(logits[torch.arange(len(tokens)), tokens]).all())


def worker_rows(engine: Engine, options: argparse.Namespace) -> Iterator[str]:
    """The second table."""
    yield f"microseconds of CPU time per step of the whole batch, vocabulary {VOCAB:,}\n"
    yield (
        "| context | tokens | batch | first masks | opens a span | median | p99 "
        "| rescan, median | ratio |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for size in options.sizes:
        for kind in options.kinds:
            ids = contexts(kind, size)
            spec = make_rules(ids).spec.to_json()
            slow = float(np.median(time_rescan(ids, 1).later))
            for batch in options.batches:
                steps = time_worker(engine.config, ids, spec, batch)
                median = float(np.median(steps.copies))
                yield (
                    f"| {kind} | {size:,} | {batch} | {steps.begins:,.0f} "
                    f"| {np.median(steps.opens):,.0f} | {median:,.1f} "
                    f"| {np.percentile(steps.copies, 99):,.0f} | {slow * batch:,.0f} "
                    f"| {slow * batch / median:,.0f} |"
                )


def heading(options: argparse.Namespace) -> Iterator[str]:
    """What was measured, on what."""
    import vllm

    machine = f"{platform.processor() or platform.machine()}, {platform.platform()}, 1 thread"
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    yield f"machine: {machine}; {os.cpu_count()} cores, load {load}"
    yield f"commit: {commit()}; vLLM {vllm.__version__}, torch {torch.__version__}"
    yield f"model: {options.model.name}"
    yield f"command: python {' '.join(sys.argv)}\n"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=2048, help="tokens of each prompt")
    parser.add_argument("--output", type=int, default=128, help="tokens that each request writes")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1 << 15, 1 << 17])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--kinds", nargs="+", default=["zipf", "repetitive", "identical"])
    options = parser.parse_args()
    enter_environment()
    torch.set_num_threads(1)
    engine = Engine(options.model, max(options.requests), options.prompt, options.output)
    for line in heading(options):
        print(line)
    for rows in (speed_rows, worker_rows):
        for line in rows(engine, options):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
