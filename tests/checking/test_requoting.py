"""A model's proposals for quotes that aren't in the documents: always slices of them."""

from __future__ import annotations

from typing import Any

import pytest

from recallm_core import Document, check_quotes, requote
from recallm_core.testing import random_llm, scripted_llm

PAGE = Document("The fee is 5 euro and it is due in May. It can't be refunded.", id="fees")
TEXT = (
    'The page says "the fee is 6 euro a month". It adds "the fee is 5  euro". '
    'And "nothing of it is ever due".'
)


def test_each_unsound_quote_is_asked_for_with_its_sentence() -> None:
    asked: list[str] = []

    def script(prompt: str) -> str:
        asked.append(prompt.rpartition("Question: ")[2])
        quote = "The fee is 5 euro" if "6 euro" in asked[-1] else "It can't be refunded"
        return f"</think>So: <|start_recall|>{quote}<|end_recall|>."

    report = check_quotes(TEXT, [PAGE], repair=True)
    proposals = requote(report, scripted_llm(script))
    assert [proposal.quote for proposal in proposals] == list(report.problems)
    citations = [proposal.citation for proposal in proposals]
    assert [c and c.text for c in citations] == ["The fee is 5 euro", "It can't be refunded"]
    for citation in citations:
        assert citation is not None
        assert PAGE.text[citation.start : citation.end] == citation.text
        assert citation.basis == "recalled"
    assert 'The page says "the fee is 6 euro a month".' in asked[0]
    assert "refunded" not in asked[0]
    assert "6 euro" in report.text  # a proposal changes nothing by itself


def test_a_model_that_finds_nothing_proposes_nothing() -> None:
    report = check_quotes(TEXT, [PAGE])
    proposals = requote(report, scripted_llm("</think>I don't know."), max_quotes=1)
    assert [proposal.citation for proposal in proposals] == [None]
    assert requote(report, scripted_llm("x"), max_quotes=0) == ()
    assert requote(check_quotes('"the fee is 5 euro"', [PAGE]), None) == ()  # type: ignore[arg-type]
    wrong: Any = "5"
    with pytest.raises((TypeError, ValueError), match="max_quotes"):
        requote(report, scripted_llm("x"), max_quotes=wrong)


def test_whatever_a_model_says_is_a_slice_or_nothing() -> None:
    report = check_quotes(TEXT, [PAGE])
    for seed in range(8):
        for proposal in requote(report, random_llm(), seed=seed, max_new_tokens=60):
            citation = proposal.citation
            assert citation is None or PAGE.text[citation.start : citation.end] == citation.text
