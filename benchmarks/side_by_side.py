"""Ours, llguidance, a naive scan and any other implementation, step by step in one process.

    python benchmarks/side_by_side.py --tokenizer FOLDER [--other NAME=PATH ...]

Spans of 64 tokens that stand in a context are copied, one token a step for the whole batch. A step
is what a decoding loop pays on top of the model: legal tokens, logits masked, token consumed. The
engines take turns in an order that rotates, so that a busy machine is unfair to all alike; times
are CPU time of one thread, less what taking it costs. Compare ratios, not microseconds.

Every round copies other spans, each of them ``--repeats`` times. ``step`` is the median and ``p99``
the 99th percentile of all steps. ``worst`` is the slowest that anything took, first mask and
closing included, which on a shared machine is chance; in ``worst, quickest of N`` each mask, step
and closing counts as the quickest of its repeats, so that what is left is the work itself. Below
the table stands what it takes to index the last context, by checkout.

Contexts: ``text`` (prose), ``repetitive`` (256 tokens over and over), ``identical`` (one token).
Batches: 8 rows are 8 contexts, 64 rows are 8 contexts with 8 sequences each. A span begins and ends
anywhere. Engines:

    in place    ``write_masks`` over the logits, as in vLLM
    own loop    ``legal_scores`` and ``Chooser``: what the transformers backend does, no row written
    processor   ``RecallLogitsProcessor``, a fresh tensor for ``model.generate``
    llguidance  ``substring_chars`` with its limits raised; all rows over the first context
    scan        a sliding window over the whole context in torch, as in the model's paper; one row

``--other before=PATH`` adds the engines of a checkout of this project; the path of a Python file
adds one of its own: ``engine(contexts, sequences, vocab_size)`` gives an object with ``contexts``,
``begin()``, ``step(logits, tokens)`` (None: the first mask, nothing is consumed), ``close()`` and,
if it likes, ``feed(tokens)``, which isn't timed: what a decoding loop does without it as well.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import importlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
VOCAB = 151_936
OPEN, CLOSE, EOS = VOCAB - 3, VOCAB - 2, VOCAB - 1
SPAN = 64
SHAPES = {1: (1, 1), 8: (8, 1), 64: (8, 8)}  # rows: contexts, sequences over each
MODULES = {
    "constraint": "decoding.constraint",
    "spec": "decoding.spec",
    "masking": "backends.masking",
    "sampling": "backends.local.sampling",
    "backends": "backends",
    "processor": "backends.local.logits_processor",
}
SCORES = ("backends.local.torch_scores", "backends.local.sampling")  # now, and in older checkouts
Tokens = list[int]
Contexts = list[np.ndarray]


def implementation(root: Path) -> SimpleNamespace:
    """The modules of a checkout, beside those of any other."""
    theirs = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    for name in theirs:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    try:
        modules = {key: importlib.import_module(f"recallm_core.{m}") for key, m in MODULES.items()}
        names = (f"recallm_core.{name}" for name in SCORES)
        place = next(name for name in names if importlib.util.find_spec(name))
        return SimpleNamespace(**modules, scores=importlib.import_module(place))
    finally:
        sys.path.remove(str(root))
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(theirs)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "recallm_core"


def rules_of(code: SimpleNamespace, ids: np.ndarray) -> Any:
    """One run over the whole context; a span may begin and end anywhere."""
    everywhere = np.ones(len(ids), dtype=np.bool_)
    spec = code.spec.ConstraintSpec(
        prompt_length=len(ids),
        prompt_hash=code.spec.hash_tokens(ids),
        vocab_size=VOCAB,
        runs=((0, len(ids)),),
        can_start=everywhere,
        can_end=everywhere,
        can_end_hard=everywhere,
        open=code.spec.Tag("<|start_recall|>", (OPEN,)),
        close=code.spec.Tag("<|end_recall|>", (CLOSE,)),
        think_close=None,
        thinking=False,
        eos=(EOS,),
        max_span_tokens=2 * SPAN,
        max_spans=10_000,
    )
    return code.constraint.ConstraintRules(spec, code.constraint.build_index(spec, ids))


class Ours:
    """A constraint a row; what happens to the logits is the subclasses'."""

    def __init__(
        self, code: SimpleNamespace, contexts: Contexts, sequences: int, vocab_size: int
    ) -> None:
        self.code = code
        self.contexts = contexts
        self.rules = [rules_of(code, ids) for ids in contexts]
        self.sequences = sequences
        self.rows: list[Any] = []

    def begin(self) -> None:
        """Opens a span in every row."""
        self.rows = [rules.start() for rules in self.rules for _ in range(self.sequences)]
        for row in self.rows:
            row.consume(OPEN)

    def step(self, logits: torch.Tensor, tokens: Tokens | None) -> None:
        """The tokens of the last step are consumed, and what may follow is looked for."""
        if tokens is not None:
            for row, token in zip(self.rows, tokens, strict=True):
                row.consume(token)
        self.choose(logits)

    def choose(self, logits: torch.Tensor) -> None:
        """Puts the masks of all rows to use."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the span of every row."""
        for row in self.rows:
            row.consume(CLOSE)


class InPlace(Ours):
    """Everything illegal becomes minus infinity where the logits lie."""

    def begin(self) -> None:
        """Opens a span in every row."""
        super().begin()
        self.calls = (self.code.masking.RowMask, self.code.masking.write_masks)

    def choose(self, logits: torch.Tensor) -> None:
        """Writes a mask over each row."""
        row_mask, write_masks = self.calls
        masks = [row_mask(number, row.mask(), VOCAB) for number, row in enumerate(self.rows)]
        write_masks(logits, masks)


class OwnLoop(Ours):
    """The legal logits are read, and the best of them is chosen."""

    def begin(self) -> None:
        """Opens a span in every row."""
        super().begin()
        sampling = self.code.backends.Sampling(max_new_tokens=9, temperature=0.0)
        self.choosers = [self.code.sampling.Chooser(sampling) for _ in self.rows]
        self.legal_scores = self.code.scores.legal_scores

    def choose(self, logits: torch.Tensor) -> None:
        """Chooses a token in each row."""
        masks = [row.mask() for row in self.rows]
        scores = self.legal_scores(logits, masks, [True] * len(masks))
        for chooser, values in zip(self.choosers, scores, strict=True):
            chooser.pick(values)


class Processor(Ours):
    """The processor of ``model.generate``, which sees all ids at each step."""

    def begin(self) -> None:
        """A fresh processor, and ids that have room for a span."""
        prompts = torch.from_numpy(np.stack([r.prompt for r in self.rules]).astype(np.int64))
        self.processor = self.code.processor.RecallLogitsProcessor(self.rules, prompts)
        self.width = prompts.shape[1] + 1
        rows = prompts.repeat_interleave(self.sequences, dim=0)
        opened = torch.full((len(rows), SPAN + 2), OPEN)
        self.ids = torch.cat([rows, opened], dim=1)
        self.seen = self.ids[:, : self.width]
        self.after = torch.zeros(len(rows), VOCAB)  # logits behind the span
        self.processor(self.ids[:, : self.width - 1], self.after)

    def __init__(
        self, code: SimpleNamespace, contexts: Contexts, sequences: int, vocab_size: int
    ) -> None:
        super().__init__(code, contexts, sequences, vocab_size)
        for rules, ids in zip(self.rules, contexts, strict=True):
            rules.prompt = ids

    def feed(self, tokens: Tokens) -> None:
        """One more id in each row, as ``generate`` appends it."""
        self.ids[:, self.width] = torch.tensor(tokens)
        self.width += 1
        self.seen = self.ids[:, : self.width]

    def step(self, logits: torch.Tensor, tokens: Tokens | None) -> None:
        """One call."""
        self.processor(self.seen, logits)

    def close(self) -> None:
        """One more call, the closing marks among the ids."""
        self.processor(self.seen, self.after)


class Llguidance:
    """Substrings of the first context by characters; rows are copies of one compiled grammar."""

    def __init__(self, tokenizer: Any, contexts: Contexts, sequences: int, vocab_size: int) -> None:
        import llguidance
        import llguidance.numpy

        self.masks = llguidance.numpy
        text = json.dumps(tokenizer.hf.decode(contexts[0].tolist()), ensure_ascii=False)
        large = 1_000_000_000
        limits = llguidance.LLParserLimits(
            max_items_in_row=1_000_000,
            initial_lexer_fuel=large,
            step_lexer_fuel=large,
            step_max_items=large,
            max_lexer_states=10_000_000,
            max_grammar_size=large,
        )
        grammar = 'start: SUB\nSUB: %regex {"substring_chars": ' + text + "}"
        self.compiled = llguidance.LLMatcher(tokenizer.ll, grammar, limits=limits)
        if self.compiled.is_error():
            raise SystemExit(f"llguidance: {self.compiled.get_error()[:300]}")
        self.count = len(contexts) * sequences
        self.contexts = [contexts[0]] * len(contexts)
        self.bits = llguidance.numpy.allocate_token_bitmask(1, VOCAB)

    def begin(self) -> None:
        """A fresh copy for each row."""
        self.rows = [self.compiled.deep_copy() for _ in range(self.count)]

    def step(self, logits: torch.Tensor, tokens: Tokens | None) -> None:
        """Consumes, and applies a bitmask to each row."""
        view = logits.numpy()
        for number, row in enumerate(self.rows):
            if tokens is not None:
                row.consume_token(tokens[number])
            self.masks.fill_next_token_bitmask(row, self.bits)
            self.masks.apply_token_bitmask_inplace(view[number : number + 1], self.bits)

    def close(self) -> None:
        """Nothing is listed when a span ends."""


class Scan:
    """Every window of the context is compared with what was copied, at each step anew."""

    def __init__(self, contexts: Contexts, sequences: int, vocab_size: int) -> None:
        self.contexts = contexts
        self.wide = [torch.from_numpy(ids.astype(np.int64)) for ids in contexts]
        self.sequences = sequences

    def begin(self) -> None:
        """Forgets what was copied."""
        self.copied: list[Tokens] = [[] for _ in self.contexts for _ in range(self.sequences)]

    def step(self, logits: torch.Tensor, tokens: Tokens | None) -> None:
        """Looks for all windows that equal the copy."""
        for number, copied in enumerate(self.copied):
            context = self.wide[number // self.sequences]
            if tokens is not None:
                copied.append(tokens[number])
            hits = slice(None)
            if copied:
                windows = context[:-1].unfold(0, len(copied), 1)
                hits = (windows == torch.tensor(copied)).all(dim=-1)
            allowed = torch.unique(context[len(copied) :][hits])
            mask = torch.full_like(logits[number], -torch.inf)
            mask[allowed] = 0
            mask[CLOSE] = 0
            logits[number] += mask

    def close(self) -> None:
        """Nothing is listed when a span ends."""


Engine = Any
Maker = Callable[[Contexts, int, int], Engine]


def engines_of(code: SimpleNamespace, label: str) -> dict[str, Maker]:
    """The engines of one checkout by name."""
    kinds = {"in place": InPlace, "own loop": OwnLoop, "processor": Processor}

    def maker(kind: type[Ours]) -> Maker:
        return lambda contexts, sequences, vocab: kind(code, contexts, sequences, vocab)

    return {f"{label}{name}": maker(kind) for name, kind in kinds.items()}


def checkouts(arguments: list[str]) -> dict[str, SimpleNamespace]:
    """This checkout, and those that ``NAME=PATH`` stands for, by what their engines begin with."""
    pairs = [argument.partition("=")[::2] for argument in arguments]
    others = {
        f"{name}: ": implementation(Path(path)) for name, path in pairs if Path(path).is_dir()
    }
    return {"": implementation(ROOT), **others}


def other(argument: str) -> dict[str, Maker]:
    """The engine that ``NAME=PATH`` of a Python file stands for."""
    name, _, path = argument.partition("=")
    if Path(path).is_dir():
        return {}
    place = importlib.util.spec_from_file_location(f"other_{name}", path)
    if place is None or place.loader is None:
        raise SystemExit(f"--other wants NAME=PATH of a checkout or a Python file, got {argument}")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return {name: module.engine}


def contexts_of(kind: str, size: int, tokenizer: Any) -> Contexts:
    """Eight contexts of one kind."""
    if kind == "identical":
        return [np.full(size, 1000 + n, dtype=np.int32) for n in range(8)]
    text = prose()
    if kind == "repetitive":
        ids = np.array(tokenizer.encode(text[: 8 * 4000]), dtype=np.int32)
        return [np.resize(ids[256 * n : 256 * (n + 1)], size) for n in range(8)]
    step = len(text) // 8
    parts = (text[n * step : n * step + 6 * size] for n in range(8))
    rows = [np.array(tokenizer.encode(part), dtype=np.int32)[:size] for part in parts]
    return [np.resize(row, size) for row in rows]


def prose() -> str:
    """Prose from RECALLM_DATA, else from ../shared/data."""
    data = Path(os.environ.get("RECALLM_DATA", ROOT.parent / "shared" / "data"))
    texts = []
    for name in ("docs_peps.jsonl.gz", "wiki_passages.jsonl.gz"):
        with gzip.open(data / name, "rt", encoding="utf-8") as lines:
            texts += [str(json.loads(line)["text"]) for line in lines]
    return "\n\n".join(texts)


class Times:
    """Microseconds of one engine, for the whole batch."""

    def __init__(self) -> None:
        self.made: list[float] = []
        self.spans: dict[int, list[list[float]]] = {}  # first mask, steps and closing

    def line(self) -> list[float]:
        """First mask, median and 99th percentile of a step, the worst twice, span with set-up."""
        repeats = np.array([*self.spans.values()])
        steps = repeats[:, :, 1:-1]
        whole = np.median(self.made) + np.median(repeats.sum(axis=2))
        middle, high = np.percentile(steps, [50, 99])
        quickest = repeats.min(axis=1).max()
        first = np.median(repeats[:, :, 0])
        return [float(f) for f in (first, middle, high, repeats.max(), quickest, whole)]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Microseconds of this thread, and what came of it."""
    began = time.thread_time_ns()
    value = run()
    return (time.thread_time_ns() - began) / 1000, value


@cache
def idle() -> float:
    """Microseconds that are measured where nothing is done."""
    return float(np.median([timed(lambda: None)[0] for _ in range(2001)]))


def measure(engine: Engine, sequences: int, seed: int) -> list[float]:
    """One span in every row: the microseconds of first mask, steps and closing."""
    rng = np.random.default_rng(seed)
    rows = [ids for ids in engine.contexts for _ in range(sequences)]
    starts = rng.integers(0, len(rows[0]) - SPAN - 1, len(rows))
    fresh = torch.randn(1, VOCAB).expand(len(rows), VOCAB)
    logits = fresh.clone()
    feed = getattr(engine, "feed", lambda tokens: None)
    engine.begin()
    gc.collect()
    spent = [timed(lambda: engine.step(logits, None))[0]]
    for at in range(SPAN):
        logits.copy_(fresh)  # a model writes all of them between two steps
        tokens = [int(ids[start + at]) for ids, start in zip(rows, starts, strict=True)]
        feed(tokens)
        spent.append(timed(lambda tokens=tokens: engine.step(logits, tokens))[0])
    feed([CLOSE] * len(rows))
    spent.append(timed(engine.close)[0])
    return [time - idle() for time in spent]


def compare(
    makers: dict[str, Maker], contexts: Contexts, batch: int, rounds: int, repeats: int
) -> dict[str, Times]:
    """All engines over the same spans, in rotating order."""
    count, sequences = SHAPES[batch]
    contexts = contexts[:count]
    results = {name: Times() for name in makers}
    engines: dict[str, Engine] = {}
    for name, make in makers.items():
        for _ in range(1 if name in ("llguidance",) else 2):
            engines.pop(name, None)
            spent, engines[name] = timed(lambda make=make: make(contexts, sequences, VOCAB))
            results[name].made.append(spent)
    names = list(makers)
    for number in range(rounds * repeats):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            span = measure(engines[name], sequences, number // repeats)
            results[name].spans.setdefault(number // repeats, []).append(span)
    return results


def index_of(code: SimpleNamespace, ids: np.ndarray) -> str:
    """What the index of a context takes."""
    spec = rules_of(code, ids).spec
    builds = [timed(lambda: code.constraint.build_index(spec, ids)) for _ in range(9)]
    arrays = [a for a in vars(builds[-1][1]).values() if isinstance(a, np.ndarray)]
    size = sum(array.nbytes for array in arrays if array.base is None) / len(ids)
    return f"{np.median([spent for spent, _ in builds]) / 1000:.1f} ms, {size:.1f} bytes a token"


def commit() -> str:
    """The commit that is measured."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def tokenizer_of(folder: str) -> SimpleNamespace:
    """A tokenizer, and llguidance's view of it."""
    import llguidance.hf

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    view = llguidance.hf.from_tokenizer(tokenizer, n_vocab=VOCAB)
    encode = tokenizer.backend_tokenizer.encode
    return SimpleNamespace(
        hf=tokenizer, ll=view, encode=lambda text: encode(text, add_special_tokens=False).ids
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer")
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 32_768, 131_072])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--kinds", nargs="+", default=["text", "repetitive", "identical"])
    parser.add_argument("--rounds", type=int, default=5, help="spans of each row")
    parser.add_argument("--repeats", type=int, default=3, help="how often each is copied")
    parser.add_argument("--other", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--skip", nargs="*", default=[], help="engines to leave out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    tokenizer = tokenizer_of(options.tokenizer)
    codes = checkouts(options.other)
    makers = {n: m for label, code in codes.items() for n, m in engines_of(code, label).items()}
    for argument in options.other:
        makers |= other(argument)
    makers["llguidance"] = lambda *case: Llguidance(tokenizer, *case)
    makers["scan"] = lambda *case: Scan(*case)
    makers = {name: make for name, make in makers.items() if name not in options.skip}
    print(f"machine: {platform.processor() or platform.machine()}, {platform.platform()}, 1 thread")
    print(f"commit: {commit()}; torch {torch.__version__}; vocabulary {VOCAB:,}")
    print(f"command: python {' '.join(sys.argv)}\n")
    print("microseconds of CPU time for the whole batch, mask included\n")
    print(
        "| context | tokens | batch | engine | first mask | step | p99 | worst | "
        f"worst, quickest of {options.repeats} | span, set up |"
    )
    print("|---" * 10 + "|")
    for size in options.sizes:
        for kind in options.kinds:
            contexts = contexts_of(kind, size, tokenizer)
            for batch in options.batches:
                rows = {n: m for n, m in makers.items() if n != "scan" or batch == 1}
                measured = compare(rows, contexts, batch, options.rounds, options.repeats)
                for name, times in measured.items():
                    figures = " | ".join(f"{value:,.{value < 100:d}f}" for value in times.line())
                    print(f"| {kind} | {size:,} | {batch} | {name} | {figures} |", flush=True)
    print("\nindex of the last context: ", end="")
    print("; ".join(label + index_of(code, contexts[0]) for label, code in codes.items()))


if __name__ == "__main__":
    main()
