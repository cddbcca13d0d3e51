"""How long quotes take to check, and where the time goes.

Run as ``python benchmarks/check_quotes.py [--quotes N] [--megabytes M] [--worst]``. Documents are
docs_peps of the folder in RECALLM_DATA (default: ../shared/data), cut to size. The quotes are in
equal parts verbatim, in other writing, with a figure changed, and made of words in another order.
With ``--worst``: one quote of 9,000 words each, in documents made to be slow.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from recallm_core.checking import QuoteChecker, check_quotes
from recallm_core.documents.document import Document
from recallm_core.text.lexical import sentences

DATA = Path(os.environ.get("RECALLM_DATA", "../shared/data"))


def documents(characters: int) -> list[Document]:
    """Returns documents with about so many characters in all."""
    found, size = [], 0
    with gzip.open(DATA / "docs_peps.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if size + len(row["text"]) <= characters:
                found.append(Document(row["text"], row["id"], row["title"]))
                size += len(row["text"])
    return found


def quoted(given: list[Document], count: int, rng: random.Random) -> str:
    """Returns a text with so many quotes."""
    pool = [
        document.text[a:b]
        for document in rng.sample(given, min(60, len(given)))
        for a, b in sentences(document.text)
        if 60 < b - a < 300 and '"' not in document.text[a:b]
    ]
    changes: list[Callable[[str], str]] = [
        lambda text: text,
        lambda text: " ".join(text.split()).upper(),
        lambda text: re.sub(r"\d", lambda m: str((int(m.group()) + 1) % 10), text + " 7"),
        lambda text: " ".join(rng.sample(text.split(), len(text.split()))),
    ]
    made = [changes[n % len(changes)](rng.choice(pool)) for n in range(count)]
    return "\n\n".join(f"<quote>{text.replace('<', '(')}</quote>" for text in made)


def worst() -> Iterator[tuple[str, str, str]]:
    """Yields what is hard to look for: its name, a quote of 9,000 words, and a document."""
    rng = random.Random(1)
    few = [rng.choice("ab") for _ in range(1_000_000)]
    common = [f"w{int(rng.paretovariate(1))}" for _ in range(1_000_000)]
    yield "one word, as it stands", "la " * 9_000, "la " * 1_000_000
    yield "one word, in capitals", "LA  " * 9_000, "la " * 1_000_000
    yield "one word, then another", "la " * 8_999 + "di", "la " * 1_000_000
    yield "one word, broken at every hundredth", ("la " * 99 + "di ") * 90, "la " * 1_000_000
    yield "a pair that the document breaks", "la " * 9_000, "la la di " * 333_333
    yield "two words at random", " ".join(rng.choices("ab", k=9_000)), " ".join(few)
    yield "words as often as in a language", " ".join(rng.sample(common, 9_000)), " ".join(common)
    near = [word if rng.random() > 0.1 else "other" for word in common[5_000:14_000]]
    yield "a passage, every tenth word changed", " ".join(near), " ".join(common)


def show_worst() -> None:
    """Prints one row for each hard case."""
    print("| 9,000 words | seconds of CPU, document read | quote checked | verdict |")
    print("|---|---|---|---|")
    for name, quote, text in worst():
        cited = [{"cited_text": quote}]
        message = {"content": [{"type": "text", "text": "x", "citations": cited}]}
        given = [Document(text, "d")]
        _, reading, _ = measured(lambda given=given: QuoteChecker(given))  # type: ignore[misc]
        _, whole, report = measured(
            lambda message=message, given=given: check_quotes(message, given)  # type: ignore[misc]
        )
        verdict = report.quotes[0].verdict  # type: ignore[attr-defined]
        print(f"| {name} | {reading:.2f} | {whole - reading:.2f} | {verdict} |", flush=True)


def measured(run: Callable[[], object]) -> tuple[float, float, object]:
    """Returns seconds of wall clock and of CPU, and what the run gave."""
    wall, spent = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - wall, time.process_time() - spent, result


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quotes", type=int, default=1_000)
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument("--worst", action="store_true", help="long quotes that are hard to find")
    args = parser.parse_args()
    if args.worst:
        show_worst()
        return
    given = documents(int(args.megabytes * 1_000_000))
    text = quoted(given, args.quotes, random.Random(1))
    size = sum(len(document.text) for document in given)
    print(f"{args.quotes:,} quotes, {len(given)} documents of {size:,} characters in all\n")
    print("| what | seconds | of CPU |\n|---|---|---|")
    wall, spent, checker = measured(lambda: QuoteChecker(given))
    print(f"| documents read | {wall:.2f} | {spent:.2f} |")
    wall, spent, report = measured(lambda: check_quotes(text, given, repair=True))
    print(f"| documents read, quotes checked and repaired | {wall:.2f} | {spent:.2f} |")
    print(f"\n{Counter(quote.verdict for quote in report.quotes)}")  # type: ignore[attr-defined]
    assert isinstance(checker, QuoteChecker)


if __name__ == "__main__":
    main()
