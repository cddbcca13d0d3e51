"""What the parser of an output costs: microseconds of CPU time a token, the replay of it alone too.

    python benchmarks/trace_parser.py [--quotes 12 1200]

The output quotes so many times while it thinks and writes an answer; tokens are words, fed one by
one as they come from a model. The constraint is replayed over each of them.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from statistics import median

from recallm_core.answers.trace_parser import TraceParser
from recallm_core.documents.document import Document
from recallm_core.generator import RecaLLM
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.testing import ByteTokenizer, ScriptedBackend

TEXT = "the river rises in the hills near a small town and flows north through a valley to the sea"
WORDS = TEXT.split()
ROUNDS_OF = 40_000  # tokens in all rounds together, at least three rounds


def words(source: random.Random, count: int) -> str:
    """Words that make no sense."""
    return " ".join(source.choice(WORDS) for _ in range(count))


def output(text: str, quotes: int, source: random.Random) -> str:
    """Reasoning with quotes of a text, and an answer."""
    pieces = []
    for _ in range(quotes):
        start = text.index(" ", source.randrange(len(text) // 2))  # as tokens begin
        quote = text[start : start + 200].rsplit(" ", 1)[0]
        pieces.append(f"{words(source, 40)}. <|start_recall|>{quote}<|end_recall|>")
    lines = "".join(f"{words(source, 40)}.\n" for _ in range(10))
    return "".join(pieces) + "</think>" + lines


def timed(run: Callable[[], None], tokens: int) -> float:
    """Microseconds a token."""
    times = []
    for _ in range(max(ROUNDS_OF // tokens, 3)):
        began = time.thread_time_ns()
        run()
        times.append((time.thread_time_ns() - began) / 1000 / tokens)
    return median(times)


def main() -> None:
    """Prints both figures for each number of quotes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quotes", type=int, nargs="+", default=[12])
    options = parser.parse_args()
    source = random.Random(1)
    text = words(source, 20_000)
    backend = ScriptedBackend(tokenizer=ByteTokenizer([f" {word}" for word in set(WORDS)]))
    llm = RecaLLM(backend.tokenizer, backend, trained_recipe(system="{open}{close}"))
    prompt = llm.prepare(
        [{"role": "user", "content": "Where?"}],
        [Document(text, "a")],
        evidence="free",
        prior="none",
        max_new_tokens=500_000,
        max_thinking_tokens=None,
        max_spans=max(options.quotes),
    )[0]
    for quotes in options.quotes:
        measure(prompt, backend.tokenizer, output(text, quotes, source))


def measure(prompt: Prompt, tokenizer: ByteTokenizer, written: str) -> None:
    """Prints both figures of one output."""
    tokens = tokenizer.encode_template(written)

    def parse() -> None:
        parser = TraceParser(prompt, tokenizer)
        for token in tokens:
            parser.feed([token])

    def replay() -> None:
        constraint = prompt.rules.start()
        for token in tokens:
            constraint.consume(token)

    print(f"{len(tokens):,} tokens: {timed(parse, len(tokens)):.1f} us a token, ", end="")
    print(f"{timed(replay, len(tokens)):.1f} of it the replay")


if __name__ == "__main__":
    main()
