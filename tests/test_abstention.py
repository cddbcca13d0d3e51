"""Support: what measures it, on which scale, and what an answer's policy makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from recallm_core import Answer, Document, GenerationParams, RecaLLM
from recallm_core.recipe import Recipe, trained_recipe
from recallm_core.testing import scripted_llm

PAGE = Document("The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros.", id="page")
SCRIPT = (
    "<|start_recall|>The ferry leaves Port Hallow at 9:30.<|end_recall|></think>"
    "<|start_recall|>9:30<|end_recall|>"
)
ASKED = "When does the ferry leave?"
UNRELATED = "Which planets did Galileo observe?"


def recipe(**fields: Any) -> Recipe:
    base = trained_recipe(system="{open}{close}", think_open="<think>", think_close="</think>")
    return Recipe.from_dict(base.to_dict() | fields)


def ask(question: str, prior: str, **fields: Any) -> Answer:
    llm: RecaLLM = scripted_llm(SCRIPT, recipe=recipe(**fields))
    return llm.answer(question, [PAGE], params=GenerationParams(prior=prior))


def test_without_a_prior_nothing_measures_support() -> None:
    answer = ask(ASKED, "none", min_support=9.0, min_answerable=1.0)
    assert answer.support is None
    assert not answer.abstained


@pytest.mark.parametrize("prior", ["sentences", "reader"])
def test_related_documents_support_more_than_unrelated_ones(prior: str) -> None:
    good, bad = ask(ASKED, prior).support, ask(UNRELATED, prior).support
    assert good is not None
    assert bad is not None
    assert good > bad
    assert prior == "sentences" or 0 <= bad < 0.05 < good <= 1


@pytest.mark.parametrize(
    ("prior", "threshold"), [("sentences", "min_support"), ("reader", "min_answerable")]
)
def test_each_prior_has_its_threshold(prior: str, threshold: str) -> None:
    other = {"min_support": "min_answerable", "min_answerable": "min_support"}[threshold]
    assert ask(UNRELATED, prior, **{threshold: 0.3}).abstained
    assert not ask(ASKED, prior, **{threshold: 0.3}).abstained
    assert not ask(UNRELATED, prior, **{other: 1.0}).abstained


def test_support_is_in_the_plain_data() -> None:
    answer = ask(ASKED, "reader")
    assert answer.to_dict()["support"] == answer.support
