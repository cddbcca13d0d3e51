"""HELMET-style tasks, rebuilt from its rules: what is asked, over which documents."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from recallm_core.documents.document import Document
from recallm_core.evaluation.datasets import MissingDataError, rows_of
from recallm_core.evaluation.frame.lengths import Fitter, Meter
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.helmet.classification import many_shot
from recallm_core.evaluation.helmet.places import Make, Place
from recallm_core.evaluation.ruler import tasks as ruler
from recallm_core.evaluation.ruler.questions import SourceQuestion, paragraphs
from recallm_core.evaluation.ruler.questions import hotpot as ruler_hotpot

DEPTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
Text = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
        name: As rows name it.
        category: HELMET's category.
        make: Makes sample ``number`` of a size from a generator of chance.
        need: Files of the data folder that it reads.
        metric: What judges it (``scores``).
        fixed: Whether its documents are given, so that the length has no say.
    """

    name: str
    category: str
    make: Make
    need: tuple[str, ...] = ()
    metric: str = "substring"
    fixed: bool = False


@cache
# recall


def json_kv(rng: random.Random, size: int, number: int, place: Place) -> Sample:
    """Returns a JSON object of ``size`` UUID pairs, the key at one of six depths."""
    pairs = {_uuid(rng): _uuid(rng) for _ in range(max(4, size))}
    keys = list(pairs)
    depth = DEPTHS[number % len(DEPTHS)]
    key = keys[round(depth * (len(keys) - 1))]
    others = rng.sample([k for k in keys if k != key], 2)
    text = "{" + ",\n ".join(f'"{k}": "{v}"' for k, v in pairs.items()) + "}"
    shots = tuple((_asked_kv(k), pairs[k]) for k in others)
    return Sample(
        id="",
        documents=(Document(text, "json", "JSON"),),
        question=_asked_kv(key),
        answers=(pairs[key],),
        budget=100,
        shots=shots,
        facts={"depth": 100 * depth, "pairs": len(pairs)},
    )


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _asked_kv(key: str) -> str:
    return f'What is the value of the key "{key}"?'


def _ruler(name: str) -> Make:
    def make(rng: random.Random, size: int, number: int, place: Place) -> Sample:
        return ruler.TASKS[name].make(rng, size, 0, ruler.Texts(place.data))

    return make


# questions over passages


@cache
def natural(place: Place) -> tuple[SourceQuestion, ...]:
    """Returns Natural Questions with BM25's distractors."""
    return tuple(
        SourceQuestion(
            row["question"].rstrip("?") + "?",
            tuple(row["answers"]),
            ((row["gold"]["title"], row["gold"]["text"]),),
            tuple((d["title"], d["text"]) for d in row["distractors"]),
        )
        for row in rows_of(place.data, "nq_multidoc_eval")
    )


def hotpot(place: Place) -> tuple[SourceQuestion, ...]:
    """Returns HotpotQA's questions with their ten paragraphs."""
    return ruler_hotpot(place.data)


@cache
def released_questions(folder: Path) -> tuple[SourceQuestion, ...]:
    """Returns the questions of HELMET's own files, ``kilt/*.jsonl``; what isn't a row is an error.

    Raises:
        MissingDataError: There are none.
    """
    paths = sorted((folder / "kilt").glob("*.jsonl"))
    if not paths:
        raise MissingDataError(f"no kilt/*.jsonl in {folder}: HELMET's data isn't there")
    return tuple(_kilt(path, line) for path in paths for line in _lines(path))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if line.strip())


def _kilt(path: Path, line: str) -> SourceQuestion:
    try:
        row = json.loads(line)
        texts = tuple((str(c["title"]), str(c["text"])) for c in row["ctxs"])
        answers = row["answers"]
        listed = tuple(map(str, [answers] if isinstance(answers, str) else answers))
        return SourceQuestion(str(row["question"]), listed, texts[:1], texts[1:])
    except (ValueError, KeyError, TypeError) as error:
        raise MissingDataError(
            f"{path.name}: expected lines with question, answers and ctxs[title, text], got "
            f"{line[:60]!r} ({error})"
        ) from error


def _passages(questions: Callable[[Place], Sequence[SourceQuestion]], kind: str) -> Make:
    def make(rng: random.Random, size: int, number: int, place: Place) -> Sample:
        pool = released_questions(place.released) if place.released else questions(place)
        question = pool[number % len(pool)]
        fill = paragraphs(place.data, kind) if _has(place.data, "wiki_passages") else ()
        return _among(question, size, number, rng, fill)

    return make


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.jsonl.gz").is_file()


def _among(
    question: SourceQuestion, size: int, number: int, rng: random.Random, fill: Sequence[Text]
) -> Sample:
    """A question among ``size`` passages, its gold ones from one of six depths on."""
    taken = {text for _, text in (*question.own, *question.near)}
    far = (pair for pair in rng.sample(fill, len(fill)) if pair[1] not in taken)
    others = [*question.near, *far][: max(0, size - len(question.own))]
    rng.shuffle(others)
    depth = DEPTHS[number % len(DEPTHS)]
    at = round(depth * len(others))
    texts = [*others[:at], *question.own, *others[at:]]
    return Sample(
        id="",
        documents=tuple(Document(text, f"d{n}", title) for n, (title, text) in enumerate(texts)),
        question=question.question,
        answers=question.answers,
        gold=at,
        budget=20,
        facts={"depth": 100 * depth, "documents": len(texts)},
    )


# ranking


def rerank(rng: random.Random, size: int, number: int, place: Place) -> Sample:
    """Returns passages to be ranked for a SQuAD question: its own 2, of its article 1, others 0."""
    rows = list(rows_of(place.data, "squad2"))
    row = rows[number * 7919 % len(rows)]
    answerable = [qa for qa in row["qas"] if not qa["impossible"] and qa["answers"]]
    if not answerable:
        return rerank(rng, size, number + 1, place)
    question = rng.choice(answerable)["question"]
    near = [r["context"] for r in rows if r["title"] == row["title"] and r is not row]
    far = [r["context"] for r in rows if r["title"] != row["title"]]
    texts = [(2, row["context"]), *((1, text) for text in near), *((0, t) for t in _some(rng, far))]
    graded = texts[: max(3, size)]
    rng.shuffle(graded)
    grades = {str(n): grade for n, (grade, _) in enumerate(graded, start=1)}
    documents = tuple(Document(text, str(n), f"ID {n}") for n, (_, text) in enumerate(graded, 1))
    best = next(n for n, grade in grades.items() if grade == 2)
    return Sample(
        id="",
        documents=documents,
        question=f"{question} Rank the documents by how well they answer, best first, as "
        "ID3 > ID1 > ID2.",
        answers=(best,),
        gold=int(best) - 1,
        budget=200,
        facts={"grades": grades},
    )


def _some(rng: random.Random, texts: Sequence[str]) -> list[str]:
    return rng.sample(texts, len(texts))


# cited answers


def quotesum(rng: random.Random, size: int, number: int, place: Place) -> Sample:
    """Returns a question of QuoteSum over its sources; people's quotes are known."""
    rows = list(rows_of(place.data, "quotesum_dev"))
    row = rows[number % len(rows)]
    documents = tuple(Document(s["text"], f"s{s['n']}", s["title"]) for s in row["sources"])
    quotes = [[f"s{q['n']}", q["text"]] for q in row["quotes"] if q["verbatim"]]
    golds = [s["short_answer"] for s in row["sources"] if s.get("short_answer")]
    return Sample(
        id="",
        documents=documents,
        question=row["question"],
        answers=tuple(dict.fromkeys(golds)),
        budget=150,
        facts={"quotes": quotes},
    )


def clapnq(rng: random.Random, size: int, number: int, place: Place) -> Sample:
    """Returns a question of ClapNQ, answerable or not in turn; people's sentences are known."""
    rows = list(rows_of(place.data, "clapnq_dev"))
    kinds = [[r for r in rows if r["answerable"] is answerable] for answerable in (True, False)]
    kind = kinds[number % 2]
    row = kind[number // 2 % len(kind)]
    documents = tuple(
        Document(p["text"], f"p{n}", p["title"]) for n, p in enumerate(row["passages"])
    )
    selected = (
        [s for a in row["answers"] for s in a["selected_sentences"]] if row["answerable"] else []
    )
    quotes = [[d.id, text] for text in selected for d in documents if text in d.text]
    golds = tuple(a["answer"] for a in row["answers"]) if row["answerable"] else ()
    return Sample(
        id="",
        documents=documents,
        question=row["question"],
        answers=golds,
        gold=0 if golds else -1,
        budget=150,
        facts={"quotes": quotes},
    )


# long documents


def long_document(rng: random.Random, size: int, number: int, place: Place) -> Sample:
    """Returns a sentence of a page asked about with its number or name left out."""
    from recallm_core.evaluation.datasets import handbook_questions

    pages = [(row["title"], row["text"]) for row in rows_of(place.data, "docs_18f_handbook")]
    order = random.Random(f"helmet:pages:{number}").sample(range(len(pages)), len(pages))
    for index in order:
        entry = next(handbook_questions(pages[index][1], rng), None)
        if entry is None:
            continue
        question, answers, excerpt = entry
        others = [p for n, p in enumerate(pages) if n != index and answers[0] not in p[1]]
        texts = rng.sample(others, min(size, len(others)))
        texts.insert(rng.randint(0, len(texts)), (pages[index][0], excerpt))
        gold = texts.index((pages[index][0], excerpt))
        return Sample(
            id="",
            documents=tuple(Document(t, f"d{n}", title) for n, (title, t) in enumerate(texts)),
            question=question,
            answers=answers,
            gold=gold,
            budget=50,
            facts={"documents": len(texts)},
        )
    raise MissingDataError(f"no page of {place.data} has a sentence that can be asked about")


_TASKS = (
    Task("json_kv", "Recall", json_kv),
    Task("ruler_niah_mk_2", "Recall", _ruler("niah_multikey_2"), metric="all"),
    Task("ruler_niah_mk_3", "Recall", _ruler("niah_multikey_3"), metric="all"),
    Task("ruler_niah_mv", "Recall", _ruler("niah_multivalue"), ("docs_18f_handbook",), "all"),
    Task("nq", "RAG", _passages(natural, "squad"), ("nq_multidoc_eval", "squad2")),
    Task("hotpotqa", "RAG", _passages(hotpot, "hotpot"), ("hotpotqa_dev",)),
    Task("banking77", "ICL", many_shot("banking77"), ("banking77",), "label"),
    Task("clinc150", "ICL", many_shot("clinc150"), ("clinc150",), "label"),
    Task("rerank_squad", "Re-rank-like", rerank, ("squad2",), "ranking"),
    Task("quotesum", "Cite-like", quotesum, ("quotesum_dev",), "quotes", fixed=True),
    Task("clapnq", "Cite-like", clapnq, ("clapnq_dev",), "quotes", fixed=True),
    Task("handbook", "LongQA-like", long_document, ("docs_18f_handbook",)),
)
TASKS: Mapping[str, Task] = {task.name: task for task in _TASKS}


def samples(
    task: Task, length: int, n: int, *, seed: int, meter: Meter, place: Place
) -> list[Sample]:
    """Returns the samples of a task at a length, the same ones for the same seed.

    Raises:
        LengthError: The length is too short for the task.
        MissingDataError: The task's data isn't there.
    """
    fitter = Fitter(meter)
    return [_sample(task, length, number, seed, fitter, place) for number in range(n)]


def _sample(
    task: Task, length: int, number: int, seed: int, fitter: Fitter, place: Place
) -> Sample:
    name = f"{task.name}-{length}-{number}"

    def make(size: int) -> Sample:
        rng = random.Random(f"helmet:{seed}:{name}")
        sample = task.make(rng, size, number, place)
        return replace(sample, id=name, group=task.name, length=0 if task.fixed else length)

    return fitter.whole(make(0)) if task.fixed else fitter.largest_fitting(make, length)
