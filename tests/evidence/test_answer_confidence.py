"""The probability that a quoted answer is right: its bounds, its order, its weights."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM
from recallm_core.errors import CheckpointError
from recallm_core.evidence.answer_confidence import (
    FILE,
    Confidence,
    Signals,
    answer_signals,
    read_confidence,
)
from recallm_core.evidence.protocol import AnswerJudge
from recallm_core.evidence.reader import BUILT_IN, Reading, default_reader
from recallm_core.models import shipped

ODDS = st.floats(-10, 10)
SIGNALS = st.builds(Signals, fit=ODDS, within=ODDS, beyond=ODDS, words=st.floats(0, 1))
WEIGHT = st.floats(0, 100)
WEIGHTS = st.builds(
    Confidence, base=st.floats(-100, 100), fit=WEIGHT, within=WEIGHT, beyond=WEIGHT, words=WEIGHT
)
NEVER = Confidence(100, 0, 0, 0, 0)


@given(WEIGHTS, SIGNALS)
def test_it_is_a_probability_and_at_most_that_of_an_answer(
    weights: Confidence, signals: Signals
) -> None:
    probability = weights.probability(signals)
    assert 0 <= probability <= 1
    assert probability <= NEVER.probability(signals)


@given(WEIGHTS, SIGNALS, st.sampled_from(["fit", "within", "beyond", "words"]), st.floats(0, 5))
def test_more_of_a_signal_never_counts_against_an_answer(
    weights: Confidence, signals: Signals, name: str, more: float
) -> None:
    better = replace(signals, **{name: getattr(signals, name) + more})
    assert weights.probability(better) >= weights.probability(signals)


PAGE = "The ferry to Skerry leaves at 9:30. It takes two hours. Ann Lee runs the harbour."


QUESTION = "When does the ferry to Skerry leave?"


@cache
def readings_of(text: str) -> tuple[Reading, ...]:
    reader = default_reader()
    return tuple(reader.read(QUESTION, reader.windows([text]), [None]))


@given(st.integers(0, len(PAGE)), st.integers(0, len(PAGE)), st.integers(0, len(PAGE)))
def test_any_place_has_finite_signals(first: int, second: int, third: int) -> None:
    low, middle, high = sorted((first, second, third))
    readings = readings_of(PAGE) if low else ()
    signals = answer_signals(QUESTION, readings, [PAGE], None, (0, low, high), (0, low, middle))
    assert all(-10 <= value <= 10 for value in (signals.fit, signals.within, signals.beyond))
    assert 0 <= signals.words <= 1


def test_the_shipped_weights_tell_the_answer_from_another_piece() -> None:
    weights = read_confidence(BUILT_IN)
    assert weights is not None
    evidence = (0, 0, PAGE.index(".") + 1)

    def probability(piece: str) -> float:
        start = PAGE.index(piece)
        place = (0, start, start + len(piece))
        return weights.probability(
            answer_signals(QUESTION, readings_of(PAGE), [PAGE], None, evidence, place)
        )

    assert probability("9:30") > 0.6 > probability("Skerry")


@pytest.mark.parametrize("change", [{"fit": -1}, {"words": "1"}, {"base": True}, {"beyond": 1e9}])
def test_weights_are_checked(tmp_path: Path, change: dict[str, object]) -> None:
    assert read_confidence(tmp_path / "none") is None
    sound = json.loads((BUILT_IN / FILE).read_text("utf-8"))
    (tmp_path / FILE).write_text(json.dumps(sound | change), "utf-8")
    with pytest.raises(CheckpointError, match=f"should say {next(iter(change))} from"):
        read_confidence(tmp_path)


@pytest.mark.skipif(shipped("recallm-mini") is None, reason="the shipped model isn't here")
def test_support_is_the_confidence_of_a_quoted_answer() -> None:
    llm = RecaLLM.load("recallm-mini")
    documents = [Document(PAGE, "ferry")]
    answer = llm.answer(QUESTION, documents)
    asked = [{"role": "user", "content": answer.question}]
    evidence = llm.prepare(asked, documents)[0].evidence
    assert isinstance(evidence, AnswerJudge)
    places = [(span.passage, span.start, span.end) for span in answer.trace.spans]
    assert answer.support == evidence.confidence(places[:-1], places[-1])
    assert answer.support is not None
    assert 0.5 < answer.support < 1
