from __future__ import annotations

import pytest

from recallm_core import Document
from recallm_core.evaluation.answering import ByHeuristic, ByModel, ByPrior, Outcome
from recallm_core.evaluation.conditions import conditions
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.rows import Place, scored_row
from recallm_core.prompting.params import GenerationParams
from recallm_core.testing import scripted_llm

DOCUMENTS = (
    Document("Ships come and go. It is windy.", "port", "The port"),
    Document("The mill is red.\nThe mill opened in 1901 and closed in 1955.", "mill", "The mill"),
)
ITEM = Item("1", DOCUMENTS, "When did the mill open?", ("1901",), 1)
OPEN, CLOSE, END = "<|start_recall|>", "<|end_recall|>", "</think>"


def test_a_prior_alone_takes_its_sentence_and_a_piece_of_the_asked_type() -> None:
    found = ByPrior(scripted_llm(), GenerationParams(prior="sentences"))(ITEM)
    assert [(q.document, q.text) for q in found.evidence] == [
        ("mill", "The mill opened in 1901 and closed in 1955.")
    ]
    assert found.answer == "1901"
    assert ByPrior(scripted_llm(), GenerationParams(prior="none"))(ITEM).answer == ""


def test_the_heuristic_reads_titles_too() -> None:
    found = ByHeuristic()(ITEM)
    assert (found.answer, found.evidence[0].document) == ("1901", "mill")


def test_what_is_recalled_decides_how_answerable_a_question_looks() -> None:
    def score(recalled: str, said: str) -> float:
        llm = scripted_llm(f"{OPEN}{recalled}{CLOSE}{END}{said}")
        return ByModel(llm, GenerationParams())(ITEM).answerability

    fitting = score("The mill opened in 1901", "It opened in 1901.")
    unrelated = score("Ships come and go", "Ships come and go.")
    said_so = score("The mill opened in 1901", "The documents don't say.")
    assert fitting > unrelated > said_so


@pytest.mark.parametrize(
    ("document", "quote", "hit"),
    [
        ("mill", "The mill opened in 1901", 1.0),
        ("mill", "The mill is red", 0.0),
        ("port", "in 1901", 0.0),  # the right words, but from another document
    ],
)
def test_a_hit_is_a_gold_answer_quoted_from_the_gold_document(
    document: str, quote: str, hit: float
) -> None:
    documents = tuple(Document(f"{d.text} Built in 1901.", d.id, d.title) for d in DOCUMENTS)
    item = Item("1", documents, ITEM.question, ITEM.answers, 1)
    script = f"{OPEN}{quote}{CLOSE}{END}{quote}"
    condition = conditions(("none",), ("on",))[0]
    outcome = ByModel(scripted_llm(script), GenerationParams())(item)
    if document == "port":  # the first of two places is cited
        assert outcome.evidence[0].document == "port"
    assert scored_row(Place("s", condition, item), outcome)["hit"] == hit


def test_an_unanswerable_item_has_no_scores_to_average() -> None:
    item = Item("1", DOCUMENTS, "Who built it?", (), -1)
    row = scored_row(Place("s", conditions(("none",), ("on",))[0], item), Outcome("Ann", ()))
    assert not {"em", "f1", "hit", "found"} & set(row)
    assert row["answerable"] is False


def test_conditions_are_named_by_their_prior_and_the_first_is_the_main_one() -> None:
    names = [c.name for c in conditions(("reader", "none"), ("on", "off"))]
    assert names == [
        "constraint, prior reader",
        "constraint",
        "no constraint",
        "prior reader alone",
        "heuristic",
    ]
    assert [c.kind for c in conditions(("none",), ("off",))] == ["free", "heuristic"]
