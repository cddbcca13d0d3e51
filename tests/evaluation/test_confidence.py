"""The weights of a confidence: how rows come about, and what is fitted to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM
from recallm_core.evaluation.confidence import (
    Questions,
    answered_row,
    confidence_of,
    fit,
    lines_of,
    unseen_probabilities,
)
from recallm_core.models import shipped
from recallm_core.train.tasks.datasets import Fact, Pool

FERRY = "The ferry to Skerry leaves at 9:30. It takes two hours."
FACT = Fact("Ferry", FERRY, "When does the ferry to Skerry leave?", "9:30", FERRY.index("9:30"))
OTHERS = tuple((f"Page {n}", f"The ferry of line {n} leaves late.") for n in range(3))
POOL = Pool((), (), (), (("Page", "The ferry leaves at 9:30."), *OTHERS), (FACT,) * 3, 0)


def drawn_rows(seed: int, count: int = 120) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        signals = dict(zip(("fit", "within", "beyond"), rng.normal(0, 2, 3).tolist(), strict=True))
        odds = signals["fit"] + signals["within"] - 0.5 * signals["beyond"]
        is_right = rng.random() < 1 / (1 + np.exp(-odds))
        signals["words"] = float(rng.random())
        rows.append(
            {"number": number, "answerable": True, "f1": float(is_right), "signals": signals}
        )
    return rows


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_weights_are_never_negative_and_heed_what_tells(seed: int) -> None:
    rows = drawn_rows(seed)
    values = np.array([list(row["signals"].values()) for row in rows])
    weights = fit(values, np.array([row["f1"] for row in rows]))
    assert (weights[:-1] >= 0).all()
    named = confidence_of(weights)
    assert named.beyond == pytest.approx(0, abs=0.2)  # it counts against: that isn't learnt
    assert min(named.fit, named.within) > 0.3
    assert all(0 <= probability <= 1 for probability in unseen_probabilities(rows))


def test_the_figures_are_told_by_level() -> None:
    lines = list(lines_of(drawn_rows(1)))
    assert lines[0].startswith("all: 120 answers")
    assert lines[1].startswith("answerable: 120 answers")
    assert lines[-1].startswith("0.8 and more: ")


def test_a_question_stands_over_its_passage_and_two_that_hold_no_answer() -> None:
    questions = Questions(POOL)
    for number in range(3):
        documents = questions.documents(number)
        assert [n for n, d in enumerate(documents) if d.text == FERRY] == [number]
        assert [FACT.answer in d.text for d in documents].count(True) == 1
        assert len(documents) == 3


@pytest.mark.skipif(shipped("recallm-mini") is None, reason="the shipped model isn't here")
def test_a_row_tells_whether_the_answer_is_right() -> None:
    llm = RecaLLM.load("recallm-mini")
    row = answered_row(llm, 7, FACT, [Document(FERRY, "p0", "Ferry")])
    assert (row["number"], row["answerable"], row["f1"]) == (7, True, 1.0)
    assert set(row["signals"]) == {"fit", "within", "beyond", "words"}
    missing = Fact("Ferry", FERRY, "Who built the ferry?", "", -1)
    assert answered_row(llm, 8, missing, [Document(FERRY, "p0")])["f1"] == 0.0
