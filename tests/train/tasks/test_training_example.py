from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recallm_core.errors import RecallmError
from recallm_core.train.tasks import held_out, plain_text
from recallm_core.train.tasks.chains import hops
from recallm_core.train.tasks.facts import absent, one_fact, two_hop
from recallm_core.train.tasks.invented import VALUES, entity
from recallm_core.train.tasks.keyed import SHAPES, compute_then_retrieve, key_value, multi_needle
from recallm_core.train.tasks.templates import make_page, relations
from recallm_core.train.tasks.training_example import (
    SPLITS,
    Quote,
    Split,
    TrainingExample,
    read_examples,
)
from recallm_core.train.tasks.working import with_working

MAKERS: dict[str, Callable[..., TrainingExample]] = {
    "one_fact": one_fact,
    "two_hop": two_hop,
    "absent": absent,
    "key_value": key_value,
    "multi_needle": multi_needle,
    "compute_then_retrieve": compute_then_retrieve,
}
SEEDS = st.integers(0, 2**32)
SIZES = st.sampled_from([100, 900, 4000])
PAGES = [make_page(random.Random(n), 12) for n in range(40)]
PASSAGES = [(page.title, page.text) for page in PAGES]


def names(example: TrainingExample) -> set[str]:
    """Invented words: capitalised, and not at the beginning of a sentence only."""
    text = " ".join(text for _, text in example.passages)
    return set(re.findall(r"[A-Z][a-z]{3,}", text))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", sorted(MAKERS))
@given(seed=SEEDS, size=SIZES)
def test_the_evidence_holds_the_answer(task: str, split: Split, seed: int, size: int) -> None:
    example = MAKERS[task](random.Random(seed), size=size, split=split)
    assert example == MAKERS[task](random.Random(seed), size=size, split=split)
    assert example.evidence
    assert all(example.text(quote).strip() for quote in example.evidence)
    if example.answer is None:
        assert task == "absent"
        return
    recalled = " ".join(example.text(quote) for quote in example.evidence)
    assert all(part in recalled for part in example.answer.split(", "))
    if example.answer_at is not None:
        last = example.evidence[-1]
        assert last.passage == example.answer_at.passage
        assert last.start <= example.answer_at.start < example.answer_at.end <= last.end


@given(seed=SEEDS, size=SIZES)
def test_lengths_follow_the_size(seed: int, size: int) -> None:
    for make in (key_value, multi_needle, one_fact):
        example = make(random.Random(seed), size=size)
        shown = sum(len(text) for _, text in example.passages)
        assert shown < 2.5 * size + 2500
        assert shown > 0.4 * size - 200


@given(seed=SEEDS)
def test_a_computed_key_is_right(seed: int) -> None:
    example = compute_then_retrieve(random.Random(seed), size=700)
    line = example.text(example.evidence[0])
    key = int(re.findall(r"-?\d+", line)[0])
    equation = re.search(r"(-?\d+)\*x ([+-] \d+) = (-?\d+)\*x ([+-] \d+)", example.question)
    if equation:
        a, b, c, d = (int(part.replace(" ", "")) for part in equation.groups())
        assert a * key + b == c * key + d
        assert a != c
    else:
        found = re.search(r"-?\d+ \* \(?-?\d+\)? [+-] \d+ [+-] \d+", example.question)
        assert found
        a, b, c, d = (
            int(p.replace(" ", "").strip("()"))
            for p in re.findall(r"^-?\d+|\(?-?\d+\)?(?= [+-])|[+-] \d+", found.group())
        )
        assert a * b + c + d == key
    assert str(key) in " ".join(p for p in example.thinking if isinstance(p, str))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pairs", [1, 75, 140])
def test_keys_are_laid_out_as_asked(shape: str, pairs: int) -> None:
    example = key_value(random.Random(1), pairs=pairs, shape=shape)
    text = example.passages[0][1]
    if shape == "json":
        found = json.loads(text)
    else:
        rows = [re.split(": |,", line) for line in text.splitlines()]
        found = dict(rows[1:] if shape == "csv" else rows)
    assert len(found) == pairs
    assert example.answer in found.values()
    assert example.answer_at is not None
    assert example.text(example.answer_at) == example.answer


@given(seed=SEEDS, size=SIZES)
@example(seed=223905, size=100)  # "red" is the answer, somebody "scored" in the first sentence
def test_two_hops_need_the_bridge(seed: int, size: int) -> None:
    for split in SPLITS:
        example = two_hop(random.Random(seed), size=size, split=split)
        first, second = (example.text(quote) for quote in example.evidence)
        assert example.answer is not None
        assert example.answer in second
        word = re.compile(rf"(?<!\w){re.escape(example.answer)}(?!\w)")
        assert not word.search(first)
        assert not word.search(example.question)
        bridge = set(re.findall(r"[A-Z]\w+", first)) & set(re.findall(r"[A-Z]\w+", second))
        assert bridge - set(re.findall(r"\w+", example.question))


@given(seed=SEEDS)
def test_what_the_mini_learns_from_has_the_same_ranges(seed: int) -> None:
    for make in (one_fact, two_hop, absent):
        example = make(random.Random(seed), size=300)
        mini = example.example()
        assert [Quote(*span) for span in mini.evidence] == list(example.evidence)
        assert (mini.answer is None) == (example.answer is None)
        if mini.answer is not None:
            assert example.text(Quote(*mini.answer)) == example.answer


@given(seed=SEEDS)
def test_absent_things_are_named_nowhere(seed: int) -> None:
    example = absent(random.Random(seed), size=900, split="held-out")
    asked = set(re.findall(r"[A-Z][a-z]{4,}", example.question))
    places = asked & {*held_out.PLACES}
    everything = " ".join(text for _, text in example.passages)
    named = [p for p in places if f"the {p} vineyard" in example.question]
    assert not any(f"{p} vineyard" in everything for p in named)


def test_no_relation_template_or_topic_is_in_both_splits() -> None:
    seen, unseen = relations("train"), relations("held-out")
    assert not {r.topic for r in seen} & {r.topic for r in unseen}
    assert not {r.label for r in seen} & {r.label for r in unseen}
    assert not {s for r in seen for s in r.statements} & {s for r in unseen for s in r.statements}
    assert not {q for r in seen for q in r.questions} & {q for r in unseen for q in r.questions}


def test_no_entity_is_in_both_splits() -> None:
    rng = random.Random(0)
    topics = {split: sorted({r.topic for r in relations(split)}) for split in SPLITS}
    named = {
        split: {entity(t, rng, split).casefold() for t in topics[split] for _ in range(200)}
        for split in SPLITS
    }
    assert not named["train"] & named["held-out"]


def test_no_made_up_name_of_evaluation_is_in_training() -> None:
    rng = random.Random(0)
    heads = {*held_out.FIRST, *held_out.PLACES}
    surnames = {a + b for a in held_out.LAST_A for b in held_out.LAST_B}
    for _ in range(150):
        for make in (one_fact, two_hop, absent):
            found = names(make(rng, size=1500, split="train"))
            assert not found & (heads | surnames)


def test_held_out_two_hops_share_no_words_with_training() -> None:
    asked = {
        split: {
            re.sub(r"[A-Z]\S*|\d+", "_", two_hop(random.Random(n), size=100, split=split).question)
            for n in range(300)
        }
        for split in SPLITS
    }
    assert not asked["train"] & asked["held-out"]


def test_no_two_hop_template_of_evaluation_is_in_training() -> None:
    for place in (2, 3, 4):
        assert not {h[place] for h in hops()} & {h[place] for h in held_out.HOPS}


def test_two_hop_templates_are_whole_and_differ() -> None:
    found = hops()
    assert len({(h[2], h[3], h[4]) for h in found}) == len(found) > 400
    for _, _, first, second, asked, kind in found:
        assert "{A}" in first
        assert "{P}" in first
        assert "{P}" in second
        assert "{V}" in second
        assert "{A}" in asked
        assert not re.search(r"\{[^A]\}", asked)
        assert kind in VALUES


@given(seed=SEEDS, size=SIZES)
def test_plain_text_teaches_where_words_stand(seed: int, size: int) -> None:
    for make in (plain_text.cloze, plain_text.sentence_with, plain_text.next_sentence):
        example = make(random.Random(seed), PASSAGES, size=size)
        if example is None:
            continue
        assert example.answer_at is not None
        assert example.text(example.answer_at) == example.answer
        assert example.evidence[-1].passage == example.answer_at.passage


def test_plain_text_examples_are_common() -> None:
    for make in (plain_text.cloze, plain_text.sentence_with, plain_text.next_sentence):
        made = [make(random.Random(n), PASSAGES, size=900) for n in range(60)]
        assert sum(example is not None for example in made) > 20


@pytest.mark.parametrize("task", sorted(MAKERS))
@given(seed=SEEDS)
def test_examples_survive_json(task: str, seed: int) -> None:
    example = MAKERS[task](random.Random(seed), size=300)
    if seed % 2:
        example = with_working(example, random.Random(seed))
    assert TrainingExample.from_dict(json.loads(json.dumps(example.to_dict()))) == example


LINE = {
    "documents": [{"title": "t", "text": "The ferry leaves at nine."}],
    "question": "When?",
    "thinking": ["I look:", {"document": 0, "quote": "leaves at nine"}],
    "answer": "nine",
}


def test_own_examples_are_read(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(LINE) + "\n\n", encoding="utf-8")
    (example,) = read_examples(path)
    assert example.evidence == (Quote(0, 10, 24),)
    assert example.task == "own"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"thinking": [{"document": 0, "quote": "leaves at ten"}]}, "isn't word for word"),
        ({"thinking": [{"document": 3, "quote": "x"}]}, "document 3 of 1"),
        ({"thinking": [{"document": 0, "quote": ""}]}, "isn't word for word"),
        ({"answers": []}, "unknown fields"),
        ({"documents": "text"}, "not an example"),
        ({"answer": 9}, "answer a string or null"),
    ],
)
def test_broken_examples_name_their_line(tmp_path: Path, change: object, said: str) -> None:
    assert isinstance(change, dict)
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps(LINE | change), encoding="utf-8")
    with pytest.raises(RecallmError, match=f"line 2: .*{said}"):
        list(read_examples(path))


def test_text_that_is_no_json_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(RecallmError, match="line 1"):
        list(read_examples(path))
    with pytest.raises(RecallmError, match="can't read examples"):
        list(read_examples(tmp_path / "none.jsonl"))
