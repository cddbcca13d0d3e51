"""Thousands of quotes made from documents get the verdicts that they should get."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from recallm_core.checking import QuoteReport, check_quotes
from recallm_core.checking.changes import is_negation
from recallm_core.documents.document import Document

SEEDS = range(2)


def test_made_quotes_of_six_scripts_get_their_verdicts(bed: Any) -> None:
    right: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for seed in SEEDS:
        rng = random.Random(seed)
        documents = [
            Document(bed.typeset(text, rng), id=f"d{n}") for n, text in enumerate(bed.made(seed, 3))
        ]
        rows = bed.rows(documents, bed.made(seed + 100, 2), seed, 390)
        _judge(rows, documents, right, every)
    _hold(bed, right, every, least=40)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["docs_peps", "xquad_es_zh_ar"])
def test_quotes_of_real_documents_get_their_verdicts(
    bed: Any, data_folder: Path, source: str
) -> None:
    rng = random.Random(7)
    texts = _texts(data_folder / f"{source}.jsonl.gz")
    if source == "xquad_es_zh_ar":
        texts = [bed.typeset(text, rng) for text in texts]
    documents = [Document(text, id=f"d{n}") for n, text in enumerate(texts[::2])]
    right: Counter[str] = Counter()
    every: Counter[str] = Counter()
    rows = bed.rows(documents, texts[1::2], 7, 3_900)
    _judge(rows, documents, right, every)
    for kind in sorted(every):
        print(f"| {kind} | {every[kind]} | {right[kind] / every[kind]:.3f} |")  # noqa: T201
    _hold(bed, right, every, least=100)


def _texts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return list(dict.fromkeys(row.get("text") or row["context"] for row in rows))[:400]


def _judge(
    rows: list[Any], documents: list[Document], right: Counter[str], every: Counter[str]
) -> None:
    report = check_quotes("\n\n".join(row.written for row in rows), documents, repair=True)
    assert len(report.quotes) == len(rows)
    for row, quote in zip(rows, report.quotes, strict=True):
        every[row.kind] += 1
        right[row.kind] += quote.verdict in row.verdicts
    _check_slices(report)
    _check_repairs(report)


def _check_slices(report: QuoteReport) -> None:
    cited = [c for q in report.quotes for c in (q.citation, *q.pieces) if c is not None]
    for citation in (*cited, *report.answer.citations):
        for place in citation.occurrences:
            assert report.sources[place.document_id].text[place.start : place.end] == citation.text
        for part in citation.parts:
            assert report.sources[citation.document_id].text[part.start : part.end] == part.text


def _check_repairs(report: QuoteReport) -> None:
    """No repair changes a digit, a name or a negation."""
    repaired = [quote for quote in report.quotes if quote.replacement is not None]
    assert repaired
    for quote in repaired:
        assert quote.citation is not None
        before, after = (_telling(text) for text in (quote.text, quote.citation.text))
        assert before == after, quote


def _telling(text: str) -> tuple[list[str], list[str]]:
    said = re.sub(r"-\s+(?=\w)", "", text).replace("\u2019", "'").casefold()
    words = re.findall(r"[^\W\d_]+", said.replace("'", ""))
    return re.findall(r"\d", said), [word for word in words if is_negation(word)]


def _hold(bed: Any, right: Counter[str], every: Counter[str], *, least: int) -> None:
    assert {*bed.STRICT, *bed.LENIENT} == set(every)
    for kind, count in every.items():
        floor = 0.99 if kind in bed.STRICT else 0.95
        assert count >= least, f"only {count} rows of {kind}"
        assert right[kind] >= floor * count, f"{kind}: {right[kind]} of {count}"
