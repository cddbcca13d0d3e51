"""Whether the likeliest sentence holds the answer, by language and by what scores it.

Each question has its paragraph and two others of the same language; a row counts where the
sentence with the highest score holds the gold answer. No language model is asked.

    RECALLM_DATA=... python benchmarks/languages.py
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from recallm_core.evidence.reader import default_reader
from recallm_core.evidence.reader_bias import ReaderScorer
from recallm_core.evidence.reader_languages import LanguageGate
from recallm_core.evidence.sentence_scorer import SentenceScorer
from recallm_core.retrieval.embedding import default_embedder

Row = tuple[str, list[str], str]


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60, help="for each language")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| language | rows | " + " | ".join(WAYS) + " | the reader knows it |")
    print("|" + "---|" * (len(WAYS) + 3))
    for language in ("en", "es", "zh", "ar"):
        many = args.rows if language != "en" else max(args.rows, 100)
        rows = list(_rows(language, many, args.seed))
        hits = {name: sum(_hits(way, row) for row in rows) for name, way in WAYS.items()}
        known = sum(_knows(row) for row in rows)
        shares = [f"{hits[name] / len(rows):.2f}" for name in WAYS]
        print(f"| {language} | {len(rows)} | " + " | ".join(shares), f"| {known / len(rows):.2f} |")


def _rows(language: str, many: int, seed: int) -> Iterator[Row]:
    name = "squad2" if language == "en" else "xquad_es_zh_ar"
    with gzip.open(_data() / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    pages = [row for row in found if row.get("lang", "en") == language]
    chance = random.Random(seed)
    for page in chance.sample(pages, min(many, len(pages))):
        asked: list[Any] = [qa for qa in page["qas"] if not qa.get("impossible")]
        if not asked:
            continue
        question = chance.choice(asked)
        others = chance.sample([p for p in pages if p is not page], 2)
        texts = [p["context"] for p in (page, *others)]
        chance.shuffle(texts)
        yield question["question"], texts, question["answers"][0]["text"]


def _data() -> Path:
    folder = os.environ.get("RECALLM_DATA")
    if not folder:
        raise SystemExit("set RECALLM_DATA to the folder of squad2.jsonl.gz and xquad_es_zh_ar")
    return Path(folder)


def _by_words(texts: Sequence[str]) -> SentenceScorer:
    return SentenceScorer(texts)


def _by_meaning(texts: Sequence[str]) -> SentenceScorer:
    return SentenceScorer(texts, None, default_embedder())


def _by_reader(texts: Sequence[str]) -> ReaderScorer:
    return ReaderScorer(_by_meaning(texts), default_reader(), texts, [None] * len(texts))


def _hits(way: Callable[[Sequence[str]], Any], row: Row) -> bool:
    question, texts, answer = row
    scorer = way(texts)
    best = int(np.argmax(scorer.scores(question)))
    flat = [text[a:b] for text, spans in zip(texts, scorer.spans, strict=True) for a, b in spans]
    return answer in flat[best]


class _Everywhere(ReaderScorer):
    """A reader that is asked whatever the language is."""

    def scores(self, *args: Any, **options: Any) -> np.ndarray:
        with patch.object(LanguageGate, "reads", lambda *_: True):
            return super().scores(*args, **options)


def _ungated(texts: Sequence[str]) -> ReaderScorer:
    return _Everywhere(_by_meaning(texts), default_reader(), texts, [None] * len(texts))


def _knows(row: Row) -> bool:
    return _by_reader(row[1]).knows(row[0])


WAYS: dict[str, Callable[[Sequence[str]], Any]] = {
    "words": _by_words,
    "words and meaning": _by_meaning,
    "reader, heard everywhere": _ungated,
    "reader, where it knows the language": _by_reader,
}

if __name__ == "__main__":
    main()
