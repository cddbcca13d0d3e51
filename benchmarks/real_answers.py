"""Verdicts on what real models write, and on the styles in which public assistants quote.

Run as ``python benchmarks/real_answers.py [--rows FILE ...] [--models FOLDER ...] [--n N]
[--keep FILE]``, with RECALLM_DATA set.

Rows are what ``recallm eval cited --out DIR`` leaves: answers that nobody told to quote, with us
and without; what they quote is checked, and their other sentences are looked up by their words.

Each model is asked questions over three paragraphs each (the suites of that command), by its own
chat template, greedily and unconstrained, and told to quote one sentence word for word in quotation
marks. What it writes is kept in FILE and checked; an answer that FILE has isn't asked for again.

Styles need no model: sentences of the paragraphs, true and falsified, are written as assistants
write them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from recallm_core.checking import QuoteReport, check_quotes
from recallm_core.checking.quotes import VERDICTS
from recallm_core.documents.document import Document
from recallm_core.evaluation.cited import baseline
from recallm_core.evaluation.cited.items import suite_items
from recallm_core.evaluation.items import Item
from recallm_core.generator import RecaLLM
from recallm_core.text.lexical import sentences

DATA = Path(os.environ.get("RECALLM_DATA", "../shared/data"))
SUITES = ("nq", "squad2")
TOLD = (
    "Answer the question by quoting one sentence of the documents word for word, in quotation "
    "marks, followed by the number of its document in square brackets."
)
Style = Callable[[str, int, Document], Any]  # a quote, its document's number, the document


def items(n: int) -> list[Item]:
    """Returns so many questions of each suite."""
    return list(chain.from_iterable(suite_items(name, DATA, n, 0) for name in SUITES))


def answers(folder: Path, asked: Sequence[Item], keep: Path) -> Iterator[tuple[Item, str]]:
    """Yields what a model writes to each question, from the file where it is there."""
    lines = keep.read_text("utf-8").splitlines() if keep.exists() else []
    rows = [json.loads(line) for line in lines]
    known = {(row["model"], row["id"]): row["text"] for row in rows}
    model: baseline.ByPlainModel | None = None
    for item in asked:
        key = (folder.name, item.id)
        if key not in known:
            if model is None:
                baseline.INSTRUCTION = TOLD
                model = baseline.ByPlainModel(RecaLLM.load(folder), 80)
            known[key] = model([item])[0].text
            row = {"model": folder.name, "id": item.id, "text": known[key]}
            with keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        yield item, known[key]


def show_models(folders: Sequence[Path], n: int, keep: Path) -> None:
    """Prints the verdicts on each model's quotes."""
    print(
        "| model | answers | with a quote | quotes |", " | ".join(VERDICTS), "| false | repaired |"
    )
    print("|---" * (len(VERDICTS) + 6) + "|")
    for folder in folders:
        reports = [
            check_quotes(text, item.documents, repair=True)
            for item, text in answers(folder, items(n), keep)
        ]
        counts = Counter(quote.verdict for report in reports for quote in report.quotes)
        quotes = sum(counts.values())
        quoting = sum(bool(report.quotes) for report in reports)
        unsound = sum(not quote.sound for report in reports for quote in report.quotes)
        cells = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
        part = f"{unsound / quotes:.2f}" if quotes else "-"
        mended = sum(report.repairs for report in reports)
        print(
            f"| {folder.name} | {len(reports)} | {quoting} | {quotes} | {cells} | {part} "
            f"| {mended} |",
            flush=True,
        )


def show_rows(paths: Sequence[Path]) -> None:
    """Prints what becomes of answers that were given without being told to quote."""
    asked = {item.id: item for name in SUITES for item in suite_items(name, DATA, 100, 0)}
    print("| answers | way | n | quotes |", " | ".join(VERDICTS), "| other sentences | found |")
    print("|---" * (len(VERDICTS) + 6) + "|")
    for path in paths:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for way in dict.fromkeys(row["condition"] for row in rows):
            reports = [
                check_quotes(row["text"], asked[row["id"]].documents, claims=True)
                for row in rows
                if row["condition"] == way and row["id"] in asked
            ]
            counts = Counter(quote.verdict for report in reports for quote in report.quotes)
            claims = [claim for report in reports for claim in report.claims]
            matched = sum(claim.citation is not None for claim in claims)
            cells = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
            print(
                f"| {path.parent.name} | {way} | {len(reports)} | {sum(counts.values())} | {cells} "
                f"| {len(claims)} | {matched} |",
                flush=True,
            )


STYLES: dict[str, Style] = {
    '"..." [1]': lambda q, n, _: f'As it says, "{q}" [{n}].',
    '"..."[^1^]': lambda q, n, _: f'As it says, "{q}"[^{n}^].',
    '"..."\u30104:0\u2020source\u3011': lambda q, _, __: f'- "{q}"\u30104:0\u2020source\u3011',
    "\u201c...\u201d (title)": lambda q, _, d: f"It says: \u201c{q}\u201d ({d.title}).",
    "**\u201c...\u201d** [1]": lambda q, n, _: f"1. **\u201c{q}\u201d** [{n}]",
    "> block \u2014 title": lambda q, _, d: f"The text:\n\n> {q}\n>\n> \u2014 {d.title}\n",
    "> *block* [1]": lambda q, n, _: f"> *{q}* [{n}]\n",
    "<quote source=id>": lambda q, _, d: f'<quote source="{d.id}">{escaped(q)}</quote>',
    "<cite>": lambda q, _, __: f"<cite>{escaped(q)}</cite>",
    "JSON field": lambda q, _, d: json.dumps({"answer": "x", "quote": q, "source": d.id}),
    "\u201e...\u201c": lambda q, n, _: f"Dort steht: \u201e{q}\u201c [{n}].",
    "\u00ab ... \u00bb": lambda q, n, _: f"Il est \u00e9crit : \u00ab\u00a0{q}\u00a0\u00bb [{n}].",
    "\u300c...\u300d": lambda q, n, _: (
        f"\u66f8\u304b\u308c\u3066\u3044\u308b\uff1a\u300c{q}\u300d[{n}]"
    ),
    "Anthropic citations": lambda q, n, d: {
        "role": "assistant",
        "content": [
            {
                "type": "text",
                "text": "It does.",
                "citations": [{"type": "char_location", "cited_text": q, "document_index": n - 1}],
            }
        ],
    },
    "LangChain citation": lambda q, n, d: {
        "type": "ai",
        "content": [
            {
                "type": "text",
                "text": "It does.",
                "annotations": [{"type": "citation", "cited_text": q, "title": d.title}],
            }
        ],
    },
}


def escaped(text: str) -> str:
    """A text between two tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def falsified(text: str) -> Iterator[tuple[str, str]]:
    """Yields a sentence as it is and as it shouldn't be, each with the verdict it should get."""
    yield text, "exact"
    yield text.upper(), "drift"
    digit = re.search(r"\d", text)
    if digit:
        other = str((int(digit.group()) + 1) % 10)
        yield text[: digit.start()] + other + text[digit.end() :], "altered"
    yield "The committee of seven met twice to weigh purple umbrellas", "absent"


def show_styles(n: int) -> None:
    """Prints for each style how many quotes were read, and judged and traced rightly."""
    print("| style | quotes | read as one quote | verdict right | of the right document |")
    print("|---|---|---|---|---|")
    for name, style in STYLES.items():
        counts: Counter[str] = Counter()
        for item in items(n):
            for number, document in enumerate(item.documents, 1):
                others = [other for other in item.documents if other is not document]
                for quote, verdict in chain.from_iterable(
                    map(falsified, quotable(document, others))
                ):
                    report = check_quotes(style(quote, number, document), item.documents)
                    counts.update(judged(report, verdict, document))
        print(f"| {name} |", " | ".join(str(counts[k]) for k in ("all", *MARKS)), "|", flush=True)


MARKS = ("read", "verdict", "document")


def judged(report: QuoteReport, verdict: str, document: Document) -> Iterator[str]:
    """Yields what is right about the check of one quote."""
    yield "all"
    if len(report.quotes) != 1:
        return
    yield "read"
    quote = report.quotes[0]
    if quote.verdict == verdict:
        yield "verdict"
    if quote.citation is None or quote.citation.document_id == document.id:
        yield "document"


def quotable(document: Document, others: Sequence[Document]) -> Iterator[str]:
    """Yields a document's first sentence that can stand between any marks, and in no other text."""
    for start, end in sentences(document.text):
        text = document.text[start:end].strip()
        plain = not re.search(r"[\"'*_`<>\[\]()\u2018-\u201f\u00ab\u00bb\n|]|\.\.", text)
        if plain and 40 < len(text) < 250 and not any(text in other.text for other in others):
            yield text
            return


def main() -> None:
    """Prints three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", type=Path, default=[], metavar="FILE")
    parser.add_argument("--models", nargs="*", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--n", type=int, default=20, help="questions of each suite")
    parser.add_argument("--keep", type=Path, default=Path("real_answers.jsonl"), metavar="FILE")
    args = parser.parse_args()
    show_styles(args.n)
    print()
    show_rows(args.rows)
    print()
    show_models(args.models, args.n, args.keep)


if __name__ == "__main__":
    main()
