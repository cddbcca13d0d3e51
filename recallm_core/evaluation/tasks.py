# ruff: noqa: E501 (the table of suites)
"""The suites: what is asked, over which documents; the same items on every machine."""

from __future__ import annotations

import json
import random
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path

from recallm_core.documents.document import Document
from recallm_core.evaluation import datasets
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.thought.pairs import thought_pairs
from recallm_core.train.tasks.facts import two_hop
from recallm_core.train.tasks.templates import make_page

HANDBOOK = Path(__file__).resolve().parent / "handbook"
_THOUSAND_TOKENS = 2500  # in characters; invented names take many tokens


@dataclass(frozen=True, slots=True)
class Scale:
    """What the lengths of contexts are measured by.

    Attributes:
        count: Tokens of a text, as the model sees it.
        trained_tokens: The longest contexts that the model was trained on.
    """

    count: Callable[[str], int]
    trained_tokens: int = 2048


Maker = Callable[[Scale], Iterator[Item]]


@dataclass(frozen=True, slots=True)
class Suite:
    """One set of items.

    Attributes:
        name: Its name on the command line.
        title: What it is called in a report.
        about: Where its items come from, in a sentence.
        rows: Most items that are taken of it, without a ``--limit``.
        make: Yields its items.
        free: Whether it is also run without the constraint.
        baselines: Whether baselines are run on it.
        all_priors: Whether every prior is run on it, or the first alone.
    """

    name: str
    title: str
    about: str
    rows: int
    make: Maker
    free: bool = False
    baselines: bool = True
    all_priors: bool = True

    def items(self, scale: Scale, limit: int | None = None) -> list[Item]:
        """Returns its items, the first ``limit`` of them; their order keeps kinds balanced.

        Raises:
            MissingDataError: The data folder isn't there.
        """
        count = self.rows if limit is None else min(limit, self.rows)
        items: list[Item] = []
        for item in self.make(scale):
            if len(items) >= count:
                break
            items.append(item)
        return items


def handbook(field: str, *, missing: bool = False) -> Iterator[Item]:
    """Yields the committed questions over their own page.

    Args:
        field: ``question`` or ``paraphrase``.
        missing: The questions that no page answers, instead of those that one does.
    """
    pages = _pages()
    for line in (HANDBOOK / "questions.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if bool(row["answers"]) != missing:
            page = (pages[row["page"]],)
            yield Item(f"{row['id']}-{field}", page, row[field], tuple(row["answers"]))


def _pages() -> dict[str, Document]:
    paths = sorted(HANDBOOK.glob("*.md"))
    return {p.stem: Document(p.read_text("utf-8"), p.stem, p.stem) for p in paths}


def wrapped_pages(scale: Scale) -> Iterator[Item]:
    """Yields the easy questions over their pages as mails and terminals wrap them."""
    for item in handbook("question"):
        for width, prefix in product((30, 45, 60, 78), ("", "> ")):
            group = f"{width} columns{', quoted' if prefix else ''}"
            pages = tuple(
                replace(page, text=_wrap_lines(page.text, width, prefix)) for page in item.documents
            )
            yield replace(item, id=f"{item.id}-{width}{prefix}", documents=pages, group=group)


def _wrap_lines(text: str, width: int, prefix: str) -> str:
    """A text with lines of at most so many columns, each after a prefix; a table's rows stay."""
    lines: list[str] = []
    for line in text.split("\n"):
        is_row = not line or line.startswith("|")
        lines += [line] if is_row else textwrap.wrap(line, width, break_on_hyphens=False)
    return "\n".join(prefix + line for line in lines)


def hops(scale: Scale) -> Iterator[Item]:
    """Yields two-hop questions of the held-out split among pages of it, about 1,000 tokens."""
    for number in range(200):
        rng = random.Random(f"evaluation:two-hop:{number}")
        example = two_hop(rng, size=_THOUSAND_TOKENS, split="held-out")
        assert example.answer is not None
        assert example.answer_at is not None
        documents = tuple(
            Document(text, f"page-{n}", title or None)
            for n, (title, text) in enumerate(example.passages)
        )
        gold = example.answer_at.passage
        yield Item(f"{number}-hops", documents, example.question, (example.answer,), gold)


def _add_filler_pages(
    sources: list[Document], tokens: int, answer: str, scale: Scale, rng: random.Random
) -> tuple[Document, ...]:
    """Puts documents among generated pages that don't hold the answer, up to a number of tokens."""
    room = tokens - sum(scale.count(document.text) for document in sources)
    documents = list(sources)
    while room > 0:
        page = make_page(rng, rng.randint(4, 8), split="held-out")
        if not page.text.strip() or answer.casefold() in page.text.casefold():
            continue
        room -= scale.count(page.text) + 8
        documents.append(Document(page.text, f"filler-{len(documents)}", page.title or None))
    rng.shuffle(documents)
    return tuple(documents)


def lengths(scale: Scale) -> Iterator[Item]:
    """Yields the easy questions among generated pages: as long as trained, and 4 times that."""
    for item in handbook("question"):
        for times in (1, 4):
            yield _among(item, times * scale.trained_tokens, scale, f"{times}x")


def speeds(scale: Scale) -> Iterator[Item]:
    """Yields easy questions over 2,000 tokens, no two over the same pages."""
    for item in handbook("question"):
        yield _among(item, 2000, scale, "")


def _among(item: Item, tokens: int, scale: Scale, group: str) -> Item:
    rng = random.Random(f"evaluation:among:{item.id}")
    documents = _add_filler_pages(list(item.documents), tokens, item.answers[0], scale, rng)
    gold = next(n for n, d in enumerate(documents) if d.id == item.gold_id)
    return replace(item, id=f"{item.id}-{tokens}", documents=documents, gold=gold, group=group)


def missing(scale: Scale) -> Iterator[Item]:
    """Yields the handbook's questions, ten with an answer on their page, then one without."""
    without = (replace(item, group="missing") for item in handbook("question", missing=True))
    fields = {"question": "easy", "paraphrase": "paraphrased"}
    answerable = (replace(i, group=group) for f, group in fields.items() for i in handbook(f))
    for number, item in enumerate(answerable):
        yield item
        if number % 10 == 9:
            yield from islice(without, 1)


def _data(maker: Callable[[], Iterator[Item]]) -> Maker:
    return lambda scale: maker()


_SUITES = (
    Suite("easy", "easy questions", "60 questions over six invented pages, written before training; one page each.",
          60, lambda scale: handbook("question"), free=True),
    Suite("paraphrased", "paraphrased questions", "The same 60 questions in other words than the page's.",
          60, lambda scale: handbook("paraphrase")),
    Suite("wrapped", "easy questions, wrapped lines", "The easy questions, the lines of their pages wrapped at 30, 45, 60 and 78 columns, plain and each line after `> `; rows of tables stay whole.",
          480, wrapped_pages, baselines=False, all_priors=False),
    Suite("handbook-18f", "18F handbook", datasets.HANDBOOK_18F, 60, _data(datasets.handbook_18f)),
    Suite("nq", "Natural Questions, gold + 2", "`nq_multidoc_eval`: the gold passage and two BM25 distractors; the gold passage is first, in the middle and last in turn.",
          200, _data(datasets.natural_questions), free=True),
    Suite("positions", "Natural Questions, each position", "The same, every question with the gold passage at each of the three places.",
          600, _data(datasets.positions), baselines=False, all_priors=False),
    Suite("two-hop", "two hops, unseen", "Generated: entities, statements and questions of the held-out split, none of which training draws; four chains in the same words among other pages, about 1,000 tokens.",
          100, hops, free=True),
    Suite("kv-75", "key-value, 75 keys", "`kv_retrieval`: UUIDs as JSON, one pair a line, 75 pairs.",
          100, _data(lambda: datasets.key_values(75))),
    Suite("kv-140", "key-value, 140 keys", "The same with 140 pairs.", 100, _data(lambda: datasets.key_values(140))),
    Suite("length", "context length", "The easy questions among generated pages of the held-out split, up to the trained length and 4 times that.",
          120, lengths, baselines=False, all_priors=False),
    Suite("missing", "not in the documents: handbook", "Handbook questions, easy and paraphrased, with an answer on their page (120) and without (12).",
          132, missing),
    Suite("missing-nq", "not in the documents: Natural Questions", "Natural Questions with the gold passage among three, and without it.",
          200, _data(datasets.natural_questions_missing)),
    Suite("missing-clapnq", "not in the documents: ClapNQ", "`clapnq_dev`: the answerable and unanswerable rows in turn.",
          200, _data(datasets.clapnq)),
    Suite("thought", "lost in thought", "Dictionaries of 24 numbers and codes. *Direct*: the code of a number; *after reasoning*: the same question, the output made to begin with some sentences of working, or with these and the mark that opens a span; *to be solved*: the number is the solution of an equation; *solution handed*: with the working; *line handed*: also with what stands before the code, and an open span.",
          180, lambda scale: thought_pairs(), free=True, baselines=False),
    Suite("speed", "speed", "Easy questions among generated pages, 2,000 tokens; no pages are shared, nothing is cached.",
          20, speeds, baselines=False, all_priors=False),
)  # fmt: skip
SUITES: Mapping[str, Suite] = {suite.name: suite for suite in _SUITES}
