"""Quotes that should stand in documents, and quotes that shouldn't, before us and our peers.

Run as ``python benchmarks/quote_peers.py [--each N] [--peers NAME ...]``, in an environment with

    pip install grounded-check==0.1.2 quotecheck==0.1.0 krokai==0.15.0 juricode-verifier==0.1.0 \
        proof-citations==1.45.0 corroborate==0.1.0 verbatimeter==0.1.3 rapidfuzz numpy regex \
        PyStemmer

and this repository on PYTHONPATH. Quotes are made from documents by the rules of
tests/checking/bed.py: PEPs as they are, and Spanish, Chinese and Arabic paragraphs set in lines.
Each tool is asked its own question, does this quote stand in the source, by its own public call. A
quote said to be from another document than it is from is looked for in that document alone. A
figure is the part of the quotes of a kind that were judged rightly: sound ones as standing there,
others as not.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recallm_core.checking import check_quotes
from recallm_core.documents.document import Document

DATA = Path(os.environ.get("RECALLM_DATA", "../shared/data"))
SOUND = ("exact", "case", "space", "ligature", "line", "hyphen", "ellipsis")
UNSOUND = ("digit", "name", "negation", "stitched", "elsewhere", "invented")
Stands = Callable[[str], bool]  # whether a quote stands in the source, as a tool sees it


def bed() -> Any:
    """Returns the maker of quotes that the tests use."""
    path = Path(__file__).parents[1] / "tests" / "checking" / "bed.py"
    spec = importlib.util.spec_from_file_location("bed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bed"] = module
    spec.loader.exec_module(module)
    return module


def texts(name: str) -> list[str]:
    """Returns the texts of a data set, each once."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return list(dict.fromkeys(row.get("text") or row["context"] for row in rows))


def sources(maker: Any, name: str) -> tuple[list[Document], list[str]]:
    """Returns documents to quote, and other texts that invented quotes come from."""
    if name == "docs_peps":
        short = [text for text in texts(name) if len(text) < 20_000][:40]
        return [Document(text, f"d{n}") for n, text in enumerate(short[::2])], short[1::2]
    rng = random.Random(7)
    set_in_lines = [maker.typeset(text, rng) for text in texts(name)[:400]]
    return [Document(t, f"d{n}") for n, t in enumerate(set_in_lines[::2])], set_in_lines[1::2]


def plain(documents: Sequence[Document]) -> Stands:
    """The operator ``in``."""
    return lambda quote: any(quote in document.text for document in documents)


def fuzzy(documents: Sequence[Document]) -> Stands:
    """rapidfuzz: a window alike by 95 of 100, the usual makeshift."""
    from rapidfuzz import fuzz

    return lambda quote: any(
        fuzz.partial_ratio(quote, document.text, score_cutoff=95) for document in documents
    )


def quotecheck(documents: Sequence[Document]) -> Stands:
    """quotecheck: found, or found around something that a page put between."""
    from quotecheck.find import check

    whole = joined(documents)
    return lambda quote: bool(check(quote, whole).ok)


def grounded(documents: Sequence[Document]) -> Stands:
    """grounded-check: a claim of the kind quote is grounded."""
    from grounded import Claim, Kind, Source, verify

    loaded = [Source(Path(document.id), document.text) for document in documents]
    return lambda quote: bool(
        verify([Claim(Kind.QUOTE, quote, 0, len(quote))], loaded).passed
    )  # fmt: skip


def krokai(documents: Sequence[Document]) -> Stands:
    """krokai: its clean verdicts, and those that say only that a quote could be longer."""
    from krokai.corpus import Corpus
    from krokai.verdicts import CLEAN
    from krokai.verify import check

    folder = Path(tempfile.mkdtemp())
    for document in documents:
        (folder / f"{document.id}.txt").write_text(document.text, encoding="utf-8")
    corpus = Corpus([str(folder)], quiet=True)
    standing = {*CLEAN, "TRUNCATED_CONDITION", "TRUNCATED_OPENING"}
    return lambda quote: check(quote, corpus)[0] in standing


def juricode(documents: Sequence[Document]) -> Stands:
    """juricode-verifier: the quote can be snapped to the source."""
    from juricode_verifier import snap_quote

    whole = joined(documents)
    return lambda quote: snap_quote(quote, whole, max_len=10_000) is not None


def proof_citations(documents: Sequence[Document]) -> Stands:
    """proof-citations: verified against a stored page."""
    from proof_citations.verify import verify_citation

    whole = joined(documents)

    def stands(quote: str) -> bool:
        result = verify_citation(
            "https://example.org/page",
            quote,
            "quote",
            snapshot=whole,
            oa_lookup=False,
            skip_live_fetch=True,
            prefer_snapshot=True,
        )
        return bool(result["status"] == "verified")

    return stands


def corroborate(documents: Sequence[Document]) -> Stands:
    """corroborate: an answer that is the quote in quotation marks has no finding."""
    from corroborate import check_answer

    chunks = [document.text for document in documents]
    return lambda quote: bool(check_answer("", chunks, f'"{quote}"').ok())


def verbatimeter(documents: Sequence[Document]) -> Stands:
    """verbatimeter: every word is in a run of three that the source has."""
    from verbatimeter import check

    whole = joined(documents)
    return lambda quote: check(quote, whole, count_tokens=len).matched_ratio == 1.0


def joined(documents: Sequence[Document]) -> str:
    """The documents as one text, for tools that take one."""
    return "\n\n".join(document.text for document in documents)


PEERS: dict[str, Callable[[Sequence[Document]], Stands]] = {
    "in": plain,
    "rapidfuzz 95": fuzzy,
    "quotecheck": quotecheck,
    "grounded-check": grounded,
    "krokai": krokai,
    "juricode-verifier": juricode,
    "proof-citations": proof_citations,
    "corroborate": corroborate,
    "verbatimeter": verbatimeter,
}


def judged_by_us(rows: Sequence[Any], documents: Sequence[Document]) -> list[bool]:
    """Returns for each quote whether ``check_quotes`` lets it stand."""
    report = check_quotes("\n\n".join(row.written for row in rows), documents)
    return [quote.sound for quote in report.quotes]


def judged_by(
    make: Callable[[Sequence[Document]], Stands],
    rows: Sequence[Any],
    documents: Sequence[Document],
) -> list[bool]:
    """Returns for each quote whether a peer lets it stand, in the document named if one is."""
    everywhere = make(documents)
    named = {document.id: document for document in documents}
    return [
        (everywhere if row.source is None else make([named[row.source]]))(row.text) for row in rows
    ]


def shares(rows: Sequence[Any], verdicts: Sequence[bool]) -> dict[str, float]:
    """Returns the part of each kind that was judged rightly."""
    right: dict[str, list[bool]] = {}
    for row, stands in zip(rows, verdicts, strict=True):
        right.setdefault(row.kind, []).append(stands == (row.kind in SOUND))
    return {kind: sum(rights) / len(rights) for kind, rights in right.items()}


def main() -> None:
    """Prints one table for each source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=40, help="quotes of each kind")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    args = parser.parse_args()
    maker = bed()
    for name in ("docs_peps", "xquad_es_zh_ar"):
        documents, others = sources(maker, name)
        rows = maker.rows(documents, others, 7, args.each * len(SOUND + UNSOUND))
        rows = [row for row in rows if '"' not in row.text]
        size = sum(len(document.text) for document in documents)
        print(f"\n{name}: {len(rows):,} quotes, {len(documents)} documents, {size:,} characters\n")
        began = time.process_time()
        table = {"recallm": shares(rows, judged_by_us(rows, documents))}
        seconds = {"recallm": time.process_time() - began}
        for peer in args.peers:
            began = time.process_time()
            table[peer] = shares(rows, judged_by(PEERS[peer], rows, documents))
            seconds[peer] = time.process_time() - began
            print(f"  {peer}: {seconds[peer]:.1f} s", file=sys.stderr, flush=True)
        show(table, seconds)


def show(table: dict[str, dict[str, float]], seconds: dict[str, float]) -> None:
    """Prints a table: tools down, kinds of quotes across."""
    kinds = SOUND + UNSOUND
    print("| |", " | ".join(kinds), "| CPU s |")
    print("|---" * (len(kinds) + 2) + "|")
    for tool, row in table.items():
        cells = " | ".join(f"{row[kind]:.2f}" if kind in row else "-" for kind in kinds)
        print(f"| {tool} | {cells} | {seconds[tool]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
