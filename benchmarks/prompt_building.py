"""What building a prompt costs: of a few long documents, and of thousands of tiny ones.

    python benchmarks/prompt_building.py

Milliseconds of CPU time for 1,000 tokens of prompt, one thread, by recallm-mini's tokenizer and
reader; no model is run. The first question to documents tokenizes them, the second finds that done;
``collected`` is what Python's garbage collections took of the first. The long texts are PEPs of
RECALLM_DATA (default: ../shared/data), the tiny documents a sentence each, made of words.
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from recallm_core import RecaLLM
from recallm_core.documents.document import Document
from recallm_core.testing import ScriptedBackend

DATA = Path(os.environ.get("RECALLM_DATA", Path(__file__).parents[2] / "shared" / "data"))
TEXT = "the river rises in hills near a small town and flows north through valleys to the sea"
WORDS = TEXT.split()
TINY, LONG = 5000, 3
QUESTIONS = ("Why was the proposal rejected?", "Who wrote the specification of the format?")


@dataclass
class Collections:
    """Seconds of CPU time that garbage collections took."""

    seconds: float = 0.0
    began: float = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        """Is told when one begins, and when it ends."""
        if phase == "start":
            self.began = time.process_time()
        else:
            self.seconds += time.process_time() - self.began


def peps() -> list[str]:
    """Texts of 20,000 to 30,000 characters."""
    with gzip.open(DATA / "docs_peps.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [str(json.loads(line)["text"]) for line in lines]
    return [text for text in texts if 20_000 < len(text) < 30_000]


def tiny(source: random.Random) -> list[str]:
    """Sentences of 18 words."""
    return [" ".join(source.choices(WORDS, k=18)).capitalize() + "." for _ in range(TINY)]


def row(llm: RecaLLM, name: str, texts: Sequence[str], prior: str) -> str:
    """One line of the table."""
    documents = [Document(text, f"{name}{number}") for number, text in enumerate(texts)]
    times, tokens, collections = [], 0, Collections()
    gc.collect()
    gc.callbacks.append(collections)
    for question in QUESTIONS:
        began = time.process_time()
        prompt, _ = llm.prepare([{"role": "user", "content": question}], documents, prior=prior)
        times.append((time.process_time() - began) * 1000)
        tokens = len(prompt.token_ids)
        if collections in gc.callbacks:
            gc.callbacks.remove(collections)
    first, second = (f"{spent / tokens * 1000:.2f}" for spent in times)
    collected = f"{collections.seconds * 1000:.0f} of {times[0]:,.0f} ms"
    return f"| {len(texts):,} | {tokens:,} | {prior} | {first} | {second} | {collected} |"


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    source, long = random.Random(0), peps()
    with RecaLLM.load("recallm-mini") as mini:
        recipe = replace(mini.recipe, pack_tokens=0)  # everything is given
        llm = RecaLLM(mini.tokenizer, ScriptedBackend(tokenizer=mini.tokenizer), recipe)
        llm.prepare(
            [{"role": "user", "content": "How tall?"}], ["It is 90 cm tall."], prior="reader"
        )
        print("| documents | tokens | prior | first | second | collected |")
        print("|---|---|---|---|---|---|")
        for number, prior in enumerate(("none", "sentences", "reader")):
            texts = long[number * LONG : (number + 1) * LONG]
            print(row(llm, f"long {prior} ", texts, prior), flush=True)
            print(row(llm, f"tiny {prior} ", tiny(source), prior), flush=True)


if __name__ == "__main__":
    main()
