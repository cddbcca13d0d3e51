"""Time and memory of building, opening, searching and packing, by number of chunks.

Run as ``python benchmarks/index_scale.py 1000 100000``. The text is synthetic: words of a Zipf
distribution in paragraphs, about 600 characters a chunk and 60 chunks a document. Vectors come from
the shipped embedder, or with ``--vectors random`` from a generator: a million chunks are then
built without waiting for text to be tokenized.

machine: 2 shared cores of an AMD EPYC virtual machine, one thread
commit: 2640cb3; the last row 011e52c (same indexing), lowest priority of many jobs
command: ``python benchmarks/index_scale.py 1000``, ``100000`` and ``1000000 --vectors random``

Build and open in core time; search and pack: median wall time (core time); packs hold 32K tokens
and count each chunk that they try, and their time includes the search and embedding the question:

    chunks     build    peak     saved    opened  search   pack         at most      held, searching
          976    0.3 s  0.11 GB     2 MB  0.01 s    1 ms    47 ( 47) ms  63 ( 63) ms  0.08 GB
      101,626   24   s  0.45 GB   138 MB  0.15 s    8 ms    58 ( 55) ms  76 ( 58) ms  0.24 GB
    1,016,626  164   s  2.09 GB  1377 MB  1.46 s  125 ms   247 (120) ms 328 (162) ms  1.02 GB

The peak holds all texts, vectors and words; what is opened again maps its files. The last row's
build doesn't embed texts, and its search by vector is approximate (2,016 lists, 64 read).
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recallm_core.documents.document import Document
from recallm_core.retrieval import CorpusIndex
from recallm_core.retrieval.embedding import (
    Embedder,
    FunctionEmbedder,
    StaticEmbedder,
    default_embedder,
)

BUDGET = 32_768
HEADER = 12
CHUNKS_PER_DOCUMENT = 60
QUESTIONS = 20


def vocabulary(generator: random.Random) -> list[str]:
    """Returns 50,000 words that look like words."""
    consonants, vowels = "bcdfglmnprstv", "aeiou"
    return [
        "".join(
            generator.choice(consonants) + generator.choice(vowels)
            for _ in range(generator.randint(1, 4))
        )
        + generator.choice(["", "s", "n", "r"])
        for _ in range(50_000)
    ]


def documents(chunks: int) -> Iterator[Document]:
    """Yields documents that are split into about so many chunks."""
    words = vocabulary(random.Random(1))
    ranks = np.arange(1, len(words) + 1)
    weights = np.cumsum(1.0 / ranks)
    numbers = np.random.default_rng(2)
    for number in range(max(1, chunks // CHUNKS_PER_DOCUMENT)):
        size = CHUNKS_PER_DOCUMENT * 70
        picked = np.searchsorted(weights, numbers.random(size) * weights[-1])
        text = " ".join(
            words[each] + (".\n\n" if n % 69 == 68 else "." if n % 17 == 16 else "")
            for n, each in enumerate(picked)
        )
        yield Document(text, id=f"d{number:06}", title=" ".join(words[n] for n in picked[:4]))


def random_vectors() -> Embedder:
    """Returns an embedder that costs next to nothing."""

    def encode(texts: Sequence[str]) -> Any:
        seed = zlib.crc32(texts[0][:100].encode())
        return np.random.default_rng(seed).standard_normal((len(texts), 256), np.float32)

    return FunctionEmbedder(encode, name="random", batch_size=4096)


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Returns wall seconds, core seconds and the result."""
    wall, core = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - wall, time.process_time() - core, result


def peak() -> str:
    """Returns the largest memory that this process has held."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"


def held() -> str:
    """Returns what this process holds now, without files that are only mapped."""
    status = Path("/proc/self/status")
    if not status.exists():
        return "unknown"
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return f"{int(lines['RssAnon'].split()[0]) / 1e6:.2f} GB"


def measure(chunks: int, embedder: Embedder) -> None:
    """Prints one block of the table."""
    wall, core, index = timed(lambda: CorpusIndex.build(documents(chunks), embedder))
    found = index.stats()
    print(f"\n{found.chunks:,} chunks, {found.characters / 1e6:.0f} M characters")
    print(f"  build            {wall:9.2f} s wall {core:9.2f} s core   peak {peak()}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        wall, core, _ = timed(lambda: index.save(path))
        size = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        print(f"  save             {wall:9.2f} s wall {core:9.2f} s core   {size / 1e6:.0f} MB")
        del index
        gc.collect()
        wall, core, index = timed(lambda: CorpusIndex.open(path, embedder))
        print(f"  open, verified   {wall:9.2f} s wall {core:9.2f} s core")
        wall, core, _ = timed(lambda: index.search("first question"))
        print(f"  first search     {wall:9.2f} s wall {core:9.2f} s core")
        questions_over(index)
        print(f"  memory then held {held()}, without mapped files")
        extra = Document("a new document " * 200, id="extra")
        wall, core, _ = timed(lambda: index.add([extra]))
        print(f"  add a document   {1000 * wall:9.1f} ms wall")
        wall, core, _ = timed(index.save)
        print(f"  save the change  {1000 * wall:9.1f} ms wall")


def questions_over(index: CorpusIndex) -> None:
    """Times searching and packing with questions of eight words from one place each."""
    tokenizer = StaticEmbedder()._tokenizer
    generator = random.Random(3)
    search, packs, cores, tokens = [], [], [], []

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    names = list(index.documents)
    for _ in range(QUESTIONS):
        words = index.documents[generator.choice(names)].text.split()
        start = generator.randrange(len(words) - 40)
        question = " ".join(generator.sample(words[start : start + 40], 8))
        search.append(timed(partial(index.search, question, 20))[0])
        pack = partial(
            index.pack_report, question, BUDGET, count, overhead=HEADER, tokens_key="benchmark"
        )
        wall, core, report = timed(pack)
        packs.append(wall)
        cores.append(core)
        tokens.append(report.tokens)
    embedded = timed(lambda: index.embedder.encode_query(question))[0]
    rows = (("search, k = 20", search), ("pack 32K, wall", packs), ("pack 32K, core", cores))
    for name, values in rows:
        print(
            f"  {name:16} {1000 * statistics.median(values):9.1f} ms median "
            f"{1000 * max(values):9.1f} ms at most"
        )
    print(
        f"  embed a question {1000 * embedded:9.1f} ms (part of both)    "
        f"{statistics.mean(tokens):,.0f} tokens packed"
    )


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("chunks", type=int, nargs="*", default=[1000, 100_000])
    parser.add_argument("--vectors", choices=("shipped", "random"), default="shipped")
    options = parser.parse_args()
    embedder = default_embedder() if options.vectors == "shipped" else random_vectors()
    for chunks in options.chunks:
        measure(chunks, embedder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
