from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.evidence.sentence_scorer import sentence_prior, support
from recallm_core.retrieval.embedding import default_embedder
from recallm_core.text.lexical import sentences

TEXTS = st.lists(st.text(alphabet="abc xyz.\n", max_size=60), max_size=5)


@given(st.text(alphabet="abc xyz", max_size=20), TEXTS)
def test_probabilities_of_all_sentences_sum_to_one(question: str, texts: list[str]) -> None:
    prior = sentence_prior(question, texts)
    assert [[(a, b) for a, b, _ in row] for row in prior] == [sentences(text) for text in texts]
    logs = [log for row in prior for _, _, log in row]
    if logs:
        assert math.fsum(map(math.exp, logs)) == pytest.approx(1.0)


def best(question: str, texts: list[str], **options: object) -> str:
    prior = sentence_prior(question, texts, **options)  # type: ignore[arg-type]
    _, number, start, end = max((log, n, a, b) for n, row in enumerate(prior) for a, b, log in row)
    return texts[number][start:end]


def test_the_sentence_that_shares_words_is_likeliest() -> None:
    texts = ["Cats sleep. The ferry leaves at nine.", "Dogs bark."]
    assert best("When does the ferry leave?", texts) == "The ferry leaves at nine."


def test_titles_and_headings_count() -> None:
    texts = ["Opens at nine.", "Opens at ten."]
    assert best("When does the museum open?", texts, titles=["Zoo", "Museum"]) == "Opens at ten."
    text = "# Zoo\nOpens at nine.\n# Museum\nOpens at ten."
    assert best("When does the museum open?", [text]) == "Opens at ten."


def test_a_recalled_sentence_leads_to_the_next_one() -> None:
    texts = ["Ann leads the Delta team. The Delta team sits in Oslo. Bob leads sales."]
    first = best("Where does the team that Ann leads sit?", texts)
    second = best("Where does Ann sit?", texts, recalled=["Ann leads the Delta team."])
    assert first in texts[0]
    assert second == "The Delta team sits in Oslo."


def test_no_shared_word_means_equal_probabilities() -> None:
    row = sentence_prior("zebra", ["One. Two. Three."])[0]
    assert [log for _, _, log in row] == pytest.approx([math.log(1 / 3)] * 3)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="as many titles"):
        sentence_prior("q", ["a"], [])
    with pytest.raises(ValueError, match="above 0"):
        sentence_prior("q", ["a"], temperature=0.0)


def test_meaning_finds_what_words_miss() -> None:
    text = "The museum is open on Sundays. The crossing takes an hour. Dogs must be kept on a lead."
    question = "How much time does the boat trip need?"
    prior = sentence_prior(question, [text], embedder=default_embedder())[0]
    best_start, best_end, _ = max(prior, key=lambda row: row[2])
    assert text[best_start:best_end] == "The crossing takes an hour."
    assert math.fsum(math.exp(log) for _, _, log in prior) == pytest.approx(1.0)


def test_meaning_alone_never_makes_a_heading_likeliest() -> None:
    text = "# Boats\nThe ferry leaves at nine."
    prior = sentence_prior("When do vessels go?", [text], embedder=default_embedder())[0]
    assert max(prior, key=lambda row: row[2])[0] == text.index("The")
    assert sentence_prior("x", [""], embedder=default_embedder()) == [[]]


def test_support_tells_evidence_from_unrelated_text() -> None:
    question, embedder = "When does the ferry leave?", default_embedder()
    good = support(question, ["The ferry leaves at nine."], embedder=embedder)
    titled = support(question, ["It leaves at nine."], "Ferry", embedder=embedder)
    bad = support(question, ["Logs are kept for 45 days."], embedder=embedder)
    assert good > titled > 0.5 > 0.4 > bad
    assert support(question, [], embedder=embedder) == 0.0
    assert support("?", ["The ferry leaves."], embedder=embedder) == 0.0
