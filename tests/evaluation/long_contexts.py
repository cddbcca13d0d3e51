"""What the tests of the long-context suites share: a data folder of a few rows, and answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.items import Item

SENTENCE = "The {0} of the {1} was painted by the people of the {2} in that year."
NOUNS = ("roof", "mill", "village", "bridge", "town", "door", "library", "harbour")


def prose(count: int) -> str:
    return " ".join(
        SENTENCE.format(*(NOUNS[(n + 3 * k) % len(NOUNS)] for k in range(3))) for n in range(count)
    )


def data_folder(path: Path) -> Path:
    """A data folder with a few rows of every file that the suites read."""
    path.mkdir(exist_ok=True)
    texts = [(f"Title {n}", f"Number {n}. {prose(6)}") for n in range(40)]
    _write(path, "docs_18f_handbook", [{"id": "a", "title": "A", "text": prose(60)}])
    _write(path, "wiki_passages", [{"title": t, "text": x} for t, x in texts])
    _write(path, "squad2", [_squad(n, *texts[n]) for n in range(12)])
    _write(path, "hotpotqa_dev", [_hotpot(n, texts) for n in range(4)])
    _write(path, "nq_multidoc_eval", [_natural(n, texts) for n in range(4)])
    labels = ("card_lost", "top_up", "exchange_rate")
    rows = [
        {"id": n, "split": ("train", "test")[n % 4 == 3], "label": labels[n % 3]}
        | {"text": f"{labels[n % 3].replace('_', ' ')} number {n}"}
        for n in range(60)
    ]
    _write(path, "banking77", rows)
    _write(path, "clinc150", rows)
    _write(path, "quotesum_dev", [_quotesum(n, texts) for n in range(3)])
    _write(path, "clapnq_dev", [_clapnq(n, texts) for n in range(4)])
    return path


def _write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _squad(n: int, title: str, text: str) -> dict[str, Any]:
    answers = [{"text": f"Number {n}", "start": 0}, {"text": str(n), "start": 7}]
    qas = [{"id": f"q{n}", "question": f"Which {n}?", "impossible": False, "answers": answers}]
    return {"id": n, "title": title, "context": text, "qas": qas}


def _hotpot(n: int, texts: list[tuple[str, str]]) -> dict[str, Any]:
    paragraphs = [
        {"title": title, "sentences": [text[:40], text[40:]], "gold": number < 2}
        for number, (title, text) in enumerate(texts[n : n + 6])
    ]
    return {
        "id": n,
        "question": f"Which one, {n}?",
        "answer": f"Number {n}",
        "paragraphs": paragraphs,
    }


def _natural(n: int, texts: list[tuple[str, str]]) -> dict[str, Any]:
    others = [{"title": title, "text": text, "score": 1.0} for title, text in texts[4 : 4 + 29]]
    gold = {"title": f"Gold {n}", "text": f"The keeper was Ada{n}. {prose(3)}"}
    return {
        "id": f"nq-{n}",
        "question": f"who was keeper {n}",
        "answers": [f"Ada{n}"],
        "gold": gold,
        "distractors": others,
    }


def _quotesum(n: int, texts: list[tuple[str, str]]) -> dict[str, Any]:
    sources = [
        {"n": k, "title": t, "text": x, "short_answer": f"Number {n + k}"}
        for k, (t, x) in enumerate(texts[n : n + 3], start=1)
    ]
    quotes = [{"n": 1, "text": sources[0]["text"][:30], "verbatim": True}]
    return {"id": n, "qid": n, "question": f"How many, {n}?", "quotes": quotes, "sources": sources}


def _clapnq(n: int, texts: list[tuple[str, str]]) -> dict[str, Any]:
    title, text = texts[n]
    sentences = [text[:40], text[40:]]
    passages = [{"title": title, "text": text, "sentences": sentences}]
    answers = [{"answer": text[:40], "selected_sentences": [text[:40]]}]
    return {
        "id": n,
        "answerable": n % 2 == 0,
        "question": f"What, {n}?",
        "passages": passages,
        "answers": answers if n % 2 == 0 else [],
    }


def record(text: str, **changes: Any) -> AnswerRecord:
    return AnswerRecord(text, text, **changes)


def everything(item: Item) -> AnswerRecord:
    """An answer that says all that there is."""
    return record("\n".join(document.text for document in item.documents))
