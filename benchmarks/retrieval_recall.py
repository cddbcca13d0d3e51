"""How often the text that answers a question is in the pack, by method and token budget.

Run as ``python benchmarks/retrieval_recall.py [--questions 100] [--embedder NAME]``. It reads the
evaluation data from the folder in RECALLM_DATA (default: ../shared/data).

A figure is the share of gold ranges of which every visible character is in the pack. Every method
pays the same for a passage: its tokens and 12 for a header. A token is four bytes of UTF-8, or with
``--exact`` a word piece of the shipped embedder.

Corpora: ``wiki`` holds the passages of nq_multidoc_eval, quotesum_dev and hotpotqa_dev with 16,863
others; ``peps`` is every second PEP (the others trained the shipped embedder), asked with some
words of a sentence, half of them with the PEP's title.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from recallm_core.documents.chunking import BYTES_PER_TOKEN
from recallm_core.documents.document import Chunk, Document, Location, Passage, ScoredChunk
from recallm_core.retrieval import CorpusIndex, Mode, segment
from recallm_core.retrieval.embedding import Embedder, StaticEmbedder, as_embedder
from recallm_core.retrieval.ranking import State, part
from recallm_core.text.lexical import sentences, terms

DATA = Path(os.environ.get("RECALLM_DATA", Path(__file__).parents[1] / "../shared/data"))
BUDGETS = (2048, 4096, 8192, 16384, 32768)
HEADER = 12


@dataclass(frozen=True, slots=True)
class Question:
    """A question and where its evidence stands."""

    task: str
    text: str
    gold: tuple[Location, ...]


def rows(name: str) -> list[dict[str, Any]]:
    """Returns the rows of an evaluation file."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class Corpus:
    """Documents by content, so that a passage that several tasks use is there once."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], Document] = {}

    def add(self, title: str, text: str) -> Document:
        """Returns the document with this content, made if it isn't there."""
        made = Document(text, id=f"w{len(self.documents):06d}", title=title)
        return self.documents.setdefault((title, text), made)


def wiki() -> tuple[list[Document], list[Question]]:
    """Returns many short passages and three kinds of questions about them."""
    corpus = Corpus()
    questions = [*natural_questions(corpus), *quotes(corpus), *hops(corpus)]
    for row in rows("wiki_passages"):
        corpus.add(row["title"], row["text"])
    return list(corpus.documents.values()), questions


def natural_questions(corpus: Corpus) -> Iterator[Question]:
    """Yields questions whose gold is a whole passage."""
    for row in rows("nq_multidoc_eval"):
        gold = corpus.add(row["gold"]["title"], row["gold"]["text"])
        for other in row["distractors"]:
            corpus.add(other["title"], other["text"])
        yield Question("nq", row["question"], (Location(gold.id, 0, len(gold.text)),))


def quotes(corpus: Corpus) -> Iterator[Question]:
    """Yields questions whose gold is the quotes of their answers."""
    for row in rows("quotesum_dev"):
        found = {
            source["n"]: corpus.add(source["title"], source["text"]) for source in row["sources"]
        }
        gold = []
        for quote in row["quotes"]:
            source = found.get(quote["n"])
            start = -1 if source is None else source.text.find(quote["text"])
            if source is not None and start >= 0:
                gold.append(Location(source.id, start, start + len(quote["text"])))
        if gold:
            yield Question("quotesum", row["question"], tuple(gold))


def hops(corpus: Corpus, name: str = "hotpotqa_dev") -> Iterator[Question]:
    """Yields questions whose gold is sentences of two passages."""
    for row in rows(name):
        gold = []
        for paragraph in row["paragraphs"]:
            document = corpus.add(paragraph["title"], "".join(paragraph["sentences"]))
            for title, number in row["supporting"]:
                if title == paragraph["title"] and number < len(paragraph["sentences"]):
                    start = len("".join(paragraph["sentences"][:number]))
                    end = start + len(paragraph["sentences"][number])
                    gold.append(Location(document.id, start, end))
        yield Question("hotpotqa", row["question"], tuple(gold))


def peps() -> tuple[list[Document], list[Question]]:
    """Returns the PEPs that didn't train the shipped embedder, and questions about them."""
    return asked_peps(rows("docs_peps")[1::2])


def asked_peps(picked: Sequence[Mapping[str, Any]]) -> tuple[list[Document], list[Question]]:
    """Returns long documents and questions made of words of one sentence."""
    generator = random.Random(7)
    documents = [Document(row["text"], id=row["id"], title=row["title"]) for row in picked]
    questions = []
    for document in documents:
        spans = [(s, e) for s, e in sentences(document.text) if 60 < e - s < 400 and s > 1500]
        for start, end in generator.sample(spans, min(1, len(spans))):
            words = [w for w in document.text[start:end].split() if terms(w) and w.isalpha()]
            picked = [w for w in words if generator.random() < 0.4][:8]
            title = [document.title or ""] if generator.random() < 0.5 else []
            if len(picked) >= 3:
                asked = " ".join(title + picked)
                questions.append(Question("peps", asked, (Location(document.id, start, end),)))
    return documents, questions


def counter(*, exact: bool) -> Callable[[str], int]:
    """Returns what counts the tokens of a text."""
    if not exact:
        return lambda text: -(-len(text.encode()) // BYTES_PER_TOKEN)
    tokenizer = StaticEmbedder()._tokenizer
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


Packer = Callable[[str, int], Sequence[Passage]]


def ours(index: CorpusIndex, count: Callable[[str], int], **settings: Any) -> Packer:
    """Returns our packs under some settings."""

    def packed(question: str, budget: int) -> Sequence[Passage]:
        report = index.pack_report(question, budget, count, overhead=HEADER, **settings)
        assert report.tokens <= budget
        return report.passages

    return packed


def unmerged(index: CorpusIndex, count: Callable[[str], int], mode: Mode) -> Packer:
    """Our best chunks, each with a header of its own, until the budget is full."""

    @cache
    def found(question: str) -> list[ScoredChunk]:
        return index.search(question, 1000, mode=mode)

    def packed(question: str, budget: int) -> list[Passage]:
        passages, spent = [], 0
        for hit in found(question):
            spent += count(hit.text) + HEADER
            if spent > budget:
                break
            passages.append(Passage(hit.document_id, hit.start, hit.end, hit.text))
        return passages

    return packed


Cut = Callable[[str], Sequence[str]]


def langchain_cut(tokens: int) -> Cut:
    """LangChain's splitter at its usual overlap: 200 characters of 4,000."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    size = BYTES_PER_TOKEN * tokens
    made = RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=size // 20)
    return made.split_text


def llama_index_cut(tokens: int) -> Cut:
    """LlamaIndex's splitter at its usual overlap: 200 tokens of 1,024."""
    from llama_index.core.node_parser import SentenceSplitter

    def estimated(text: str) -> list[int]:
        return [0] * -(-len(text.encode()) // BYTES_PER_TOKEN)

    made = SentenceSplitter(
        chunk_size=tokens, chunk_overlap=tokens * 200 // 1024, tokenizer=estimated
    )
    return made.split_text


FRAMEWORKS = {"LangChain": langchain_cut, "LlamaIndex": llama_index_cut}


def pieces_of(document: Document, cut: Cut) -> list[Document]:
    """The chunks of a framework's splitter, with title and place, as LlamaIndex indexes nodes."""
    found: list[Document] = []
    start = -1
    for text in cut(document.text):
        start = document.text.find(text, start + 1)
        if text and start >= 0:
            place = Location(document.id, start, start + len(text))
            titled = f"{document.title}\n{text}"
            found.append(Document(titled, id=f"{document.id}:{start}", metadata={"at": place}))
    return found


def usual(
    documents: Sequence[Document], embedder: Embedder, count: Callable[[str], int], cut: Cut
) -> tuple[Packer, Packer]:
    """The usual set-up, by vectors and by BM25: the best chunks until the budget is full."""
    pieces = [each for document in documents for each in pieces_of(document, cut)]

    def whole(piece: Document) -> list[Chunk]:
        return [Chunk(piece.id, 0, len(piece.text), piece.text)]

    state = State((part(segment.build(pieces, embedder, whole)),))
    costs: dict[int, int] = {}

    def packed(ranked: Iterable[Any], budget: int) -> list[Passage]:
        passages, spent = [], 0
        for number in map(int, ranked):
            place = pieces[number].metadata["at"]
            text = pieces[number].text[place.start - place.end :]
            if number not in costs:
                costs[number] = count(text) + HEADER
            spent += costs[number]
            if spent > budget:
                break
            passages.append(Passage(place.document_id, place.start, place.end, text))
        return passages

    def by_vectors(question: str, budget: int) -> list[Passage]:
        query = embedder.encode_query(question)
        return packed(state.parts[0].nearest.search(query, 1000)[0], budget)

    def by_words(question: str, budget: int) -> list[Passage]:
        scores = plain_scores(state, question)
        return packed((-scores).argsort(kind="stable")[:1000], budget)

    return by_vectors, by_words


def plain_scores(state: State, question: str) -> Any:
    """BM25 of the chunks alone, as in the frameworks' retrievers."""
    totals = state.words.levels(question)
    return totals[0][0]


def recall(
    passages: Iterable[Passage], documents: Mapping[str, Document], gold: Sequence[Location]
) -> float:
    """The share of gold ranges of which every visible character is in the pack.

    A range may lie in two passages that touch, and in a duplicate that was dropped for an equal
    text: the model reads it all the same.
    """
    kept: dict[str, list[tuple[int, int]]] = {}
    for passage in passages:
        for each in (passage, *passage.duplicates):
            kept.setdefault(each.document_id, []).append((each.start, each.end))
    return sum(
        covered(documents[each.document_id].text, each, kept.get(each.document_id, ()))
        for each in gold
    ) / len(gold)


def covered(text: str, gold: Location, ranges: Iterable[tuple[int, int]]) -> bool:
    """Whether some ranges together hold all of ``gold`` that isn't white space."""
    reached = gold.start
    for start, end in sorted(ranges):
        if text[reached : max(start, reached)].strip() and start > reached:
            break
        reached = max(reached, end)
    return reached >= gold.end or not text[reached : gold.end].strip()


def methods(
    documents: Sequence[Document],
    index: CorpusIndex,
    embedder: Embedder,
    count: Callable[[str], int],
    sizes: Sequence[int],
) -> dict[str, Packer]:
    """Returns ours and the usual set-ups by name."""
    bare = {"expand_top": 0, "gap_tokens": 0}
    made: dict[str, Packer] = {}
    for name, mode in (("words and vectors", "hybrid"), ("words", "lexical"), ("vectors", "dense")):
        made[f"ours, {name}"] = ours(index, count, mode=mode)
        made[f"ours, {name}, not expanded"] = ours(index, count, mode=mode, **bare)
        made[f"ours, {name}, not merged"] = unmerged(index, count, mode)
    for framework, cut in FRAMEWORKS.items():
        for tokens in sizes:
            try:
                by_vectors, by_words = usual(documents, embedder, count, cut(tokens))
            except ModuleNotFoundError as error:
                print(f"{framework} left out: {error}")
                continue
            made[f"{framework}, {tokens:,} tokens, vectors"] = by_vectors
            made[f"{framework}, {tokens:,} tokens, BM25"] = by_words
    return made


def table(
    documents: Sequence[Document],
    questions: Sequence[Question],
    embedder: Embedder,
    count: Callable[[str], int],
    sizes: Sequence[int],
) -> None:
    """Prints the tables of one corpus."""
    started = time.process_time()
    index = CorpusIndex.build(documents, embedder)
    stats = index.stats()
    print(
        f"\n{stats.documents:,} documents, {stats.chunks:,} chunks, {stats.characters / 1e6:.1f} M "
        f"characters, built in {time.process_time() - started:.0f} core-seconds"
    )
    texts = {document.id: document for document in documents}
    packers = methods(documents, index, embedder, count, sizes)
    for task in sorted({question.task for question in questions}):
        asked = [question for question in questions if question.task == task]
        print(
            f"\n| {task}, {len(asked)} questions | " + " | ".join(f"{b:,}" for b in BUDGETS) + " |"
        )
        print("|---" * (len(BUDGETS) + 1) + "|")
        for name, packer in packers.items():
            shares = [
                sum(recall(packer(q.text, budget), texts, q.gold) for q in asked) / len(asked)
                for budget in BUDGETS
            ]
            print(f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |")
            sys.stdout.flush()


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=100, help="per task, at most")
    parser.add_argument("--embedder", default=None, help="a sentence-transformers model")
    parser.add_argument("--exact", action="store_true", help="count with a real tokenizer")
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[512, 1024], help="of the usual set-ups' chunks"
    )
    parser.add_argument("--corpus", choices=("wiki", "peps", "both"), default="both")
    options = parser.parse_args()
    if not (DATA / "nq_multidoc_eval.jsonl.gz").exists():
        print(f"no evaluation data in {DATA}; set RECALLM_DATA to the folder that has it")
        return 0
    embedder = as_embedder(options.embedder)
    generator = random.Random(11)
    corpora = {"wiki": [wiki], "peps": [peps], "both": [wiki, peps]}[options.corpus]
    for documents, questions in (make() for make in corpora):
        chosen = []
        for task in sorted({question.task for question in questions}):
            asked = [question for question in questions if question.task == task]
            chosen += generator.sample(asked, min(options.questions, len(asked)))
        table(documents, chosen, embedder, counter(exact=options.exact), options.sizes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
