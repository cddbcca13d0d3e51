from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from recallm_core.evaluation.datasets import MissingDataError, handbook_18f
from recallm_core.evaluation.metrics import holds
from recallm_core.evaluation.tasks import SUITES, Scale
from recallm_core.evaluation.thought.pairs import AFTER, CONDITIONS, DIRECT, LINE, thought_pairs

SCALE = Scale(lambda text: len(text) // 4, trained_tokens=400)
GENERATED = (
    "easy", "paraphrased", "wrapped", "two-hop", "length", "missing", "thought", "speed"
)  # fmt: skip
DATA = tuple(name for name in SUITES if name not in GENERATED)


@pytest.mark.parametrize("name", GENERATED)
def test_items_are_the_same_every_time_and_hold_their_answer(name: str) -> None:
    items = SUITES[name].items(SCALE, 12)
    assert items == SUITES[name].items(SCALE, 12)
    assert len({item.id for item in items}) == len({item.digest for item in items}) == 12
    for item in items:
        texts = [document.text for document in item.documents]
        assert not item.answerable or holds(texts[item.gold], item.answers)


@pytest.mark.parametrize("name", DATA)
def test_items_of_the_data_folder_hold_their_answer(name: str, data_folder: Path) -> None:
    items = SUITES[name].items(SCALE, 12)
    assert len({item.id for item in items}) == 12
    for item in items:
        held = holds(item.documents[item.gold].text, item.answers)
        assert held or not item.answerable or name == "missing-clapnq"  # answers in own words


@pytest.mark.parametrize("name", DATA)
def test_a_suite_without_its_data_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALLM_DATA", "/nowhere")
    with pytest.raises(MissingDataError, match="set RECALLM_DATA"):
        SUITES[name].items(SCALE)


def test_without_a_limit_every_suite_has_all_its_rows() -> None:
    for name in ("easy", "paraphrased", "missing", "thought"):
        items = SUITES[name].items(SCALE)
        assert len(items) == len({item.id for item in items}) == SUITES[name].rows
        assert all(item.question.strip() for item in items)


def test_kinds_are_balanced_from_the_beginning() -> None:
    kinds = [item.answerable for item in SUITES["missing"].items(SCALE, 22)]
    assert kinds.count(False) == 2
    assert [item.group for item in SUITES["length"].items(SCALE, 4)] == ["1x", "4x"] * 2


def test_longer_contexts_are_as_long_as_they_say() -> None:
    for item in SUITES["length"].items(SCALE, 6):
        size = sum(SCALE.count(document.text) for document in item.documents)
        wanted = SCALE.trained_tokens * (4 if item.group == "4x" else 1)
        assert 0.8 * wanted <= size <= wanted + 300


def test_only_the_reasoning_differs_between_direct_and_after_reasoning() -> None:
    items = {item.group: item for item in islice(thought_pairs(), len(CONDITIONS))}
    assert set(items) == set(CONDITIONS)
    direct, after = items[DIRECT], items[AFTER]
    assert (direct.question, direct.documents) == (after.question, after.documents)
    assert not direct.reasoning
    assert not holds(after.reasoning, after.answers)
    value = items[LINE].answers[0]
    key = items[LINE].reasoning.rsplit(" ", 2)[1]
    assert f"{key} {value}" in items[LINE].documents[0].text


def test_questions_about_a_sentence_have_one_answer_in_their_page(data_folder: Path) -> None:
    asked = ("which address", "how much", "what percentage", "when", "which channel", "how many")
    for item in islice(handbook_18f(), 30):
        page = item.documents[item.gold].text
        assert page.count(item.answers[0]) == 1
        question = item.question.removesuffix("?")
        assert any(
            question.replace(phrase, item.answers[0], 1) in page for phrase in (*asked, "what")
        )
        others = [d.text for n, d in enumerate(item.documents) if n != item.gold]
        assert not any(item.answers[0] in text for text in others)
