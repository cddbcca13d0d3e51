"""Evidence found afterwards: exact slices, what matters agrees, and nothing below the threshold."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.answers.answer import Citation
from recallm_core.answers.matching import Matcher
from recallm_core.documents.document import Document, Passage
from recallm_core.errors import CitationError
from recallm_core.text.boundaries import word_boundaries

FERRY = (
    "Port Hallow has one pier. The ferry leaves the old pier at 9:30 every morning.\n"
    "It carries 140 passengers. A day ticket costs 14 euros. Dogs are not allowed on deck."
)
TOWER = (
    "Mira Kovalenko designed the harbour tower in 1931. It guaran-\nteed safe passage for a cen-\n"
    "tury of ships.  The “great” lamp was turned off in 1988."
)
HEAD = 40  # characters of its document before the second passage
PASSAGES = (
    Passage("ferry", 0, len(FERRY), FERRY, title="Island ferry"),
    Passage("tower", HEAD, HEAD + len(TOWER), TOWER, title="Harbour tower"),
)
BEFORE = "x" * (HEAD - 1) + " "
DOCUMENTS = {"ferry": Document(FERRY, "ferry"), "tower": Document(BEFORE + TOWER, "tower")}


def match(answer: str, question: str = "", **more: object) -> tuple[Citation, ...]:
    return Matcher(PASSAGES, DOCUMENTS, question=question).match(answer, **more)  # type: ignore[arg-type]


def evidence(answer: str, question: str = "") -> str | None:
    found = match(answer, question)
    assert len(found) <= 1
    return found[0].text if found else None


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ("The ferry leaves the old pier at 9:30 every morning.",
         "The ferry leaves the old pier at 9:30 every morning"),
        ("a DAY ticket costs 14 euros!", "A day ticket costs 14 euros"),
        ("It guaranteed safe passage for a century of ships.",
         "It guaran-\nteed safe passage for a cen-\ntury of ships"),
        ('The "great" lamp was turned off.', "The “great” lamp was turned off"),
        ("The harbour tower was designed by Mira Kovalenko.",
         "Mira Kovalenko designed the harbour tower in 1931."),
        ("In the morning at 9:30 the ferry leaves.",
         "The ferry leaves the old pier at 9:30 every morning."),
    ],
)  # fmt: skip
def test_runs_and_sentences_are_found(answer: str, quote: str) -> None:
    (found,) = match(answer)
    assert (found.text, found.basis) == (quote, "matched")


@pytest.mark.parametrize(
    "answer",
    [
        "The ferry leaves the old pier at 9:45 every morning.",  # another number
        "A day ticket costs fourteen pounds and fifteen pence.",
        "Anna Kovalenko designed the harbour tower.",  # another name
        "Dogs are allowed on deck.",  # the opposite
        "The ferry doesn't carry passengers.",
        "The moon is made of green cheese.",
        "Yes.",
        "It is so.",
        "…",
        "",
    ],
)
def test_what_disagrees_or_is_unheard_of_is_not_cited(answer: str) -> None:
    assert evidence(answer) is None


@pytest.mark.parametrize(
    ("answer", "question", "quote"),
    [
        ("14 euros", "What does a day ticket cost?", "A day ticket costs 14 euros."),
        ("fourteen euros", "What does a day ticket cost?", "A day ticket costs 14 euros."),
        ("1931", "When was the tower designed?",
         "Mira Kovalenko designed the harbour tower in 1931."),
        ("1931", "How many people live on the moon?", None),
        ("The ferry.", "Which ferry leaves?", None),  # it says nothing that wasn't asked
        ("The Island ferry carries 140 passengers.", "How many passengers fit?",
         "It carries 140 passengers."),
    ],
)  # fmt: skip
def test_the_question_tells_where_a_short_answer_stands(
    answer: str, question: str, quote: str | None
) -> None:
    assert evidence(answer, question) == quote


def test_each_sentence_has_its_own_and_covered_ones_are_left_out() -> None:
    answer = "It costs 14 euros for a day ticket. Dogs are not allowed on deck. Hm."
    dogs = answer.index("Dogs")
    found = match(answer)
    assert [(c.text, c.answer_start) for c in found] == [
        ("A day ticket costs 14 euros.", 0),
        ("Dogs are not allowed on deck", dogs),
    ]
    assert answer[dogs : found[1].answer_end] == "Dogs are not allowed on deck."
    assert [c.answer_start for c in match(answer, covered=[(3, 4)])] == [dogs]


def test_two_neighbours_are_cited_together_where_both_are_needed() -> None:
    text = "The lamp was built by Otto Brandt. He shipped it from Bergen to Hallow. Rain fell."
    documents = {"d": Document(text, "d")}
    matcher = Matcher([Passage("d", 0, len(text), text)], documents)
    (found,) = matcher.match("The lamp that Otto Brandt built was shipped from Bergen.")
    assert found.text == text[: text.index(" Rain")]


def test_all_places_are_listed_and_a_false_passage_raises() -> None:
    twice = Passage("copy", 0, len(FERRY), FERRY)
    documents = {**DOCUMENTS, "copy": Document(FERRY, "copy")}
    (found,) = Matcher([*PASSAGES, twice], documents).match("A day ticket costs 14 euros.")
    assert [place.document_id for place in found.occurrences] == ["ferry", "copy"]
    with pytest.raises(CitationError):
        Matcher([twice], {"copy": Document(TOWER, "copy")}).match("A day ticket costs 14 euros.")
    assert Matcher([], {}).match("A day ticket costs 14 euros.") == ()


def test_what_was_recalled_goes_first_among_equals() -> None:
    text = "A day ticket costs 14 euros. Dogs stay below."
    passages = [Passage(name, 0, len(text), text) for name in ("one", "two", "three")]
    matcher = Matcher(passages, {p.document_id: Document(text, p.document_id) for p in passages})

    def found(answer: str, *recalled: tuple[int, int, int]) -> list[tuple[str, str]]:
        return [(c.document_id, c.text) for c in matcher.match(answer, recalled=recalled)]

    for answer in ("A day ticket costs 14 euros.", "14 euros is what the day ticket costs."):
        assert [name for name, _ in found(answer)] == ["one"]
        assert [name for name, _ in found(answer, (2, 0, len(text)), (1, 0, 28))] == ["three"]
    assert found("14 EUROS", (1, 12, 28)) == [("two", "14 euros")]
    assert found("4 euros", (1, 12, 28)) == []


def test_matching_needs_no_model() -> None:
    code = (
        "import sys; import recallm_core.answers.matching as m; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


WORDS = st.lists(
    st.sampled_from(
        [*FERRY.split(), *TOWER.split(), "ferry", "not", "1988", ".", "日本", "e\u0301"]
    ),
    max_size=14,
).map(" ".join)


@given(WORDS, WORDS, WORDS)
def test_whatever_is_cited_is_a_slice_between_words_that_holds_the_numbers(
    answer: str, question: str, extra: str
) -> None:
    documents = {**DOCUMENTS, "extra": Document(extra, "extra")}
    passages = [*PASSAGES, Passage("extra", 0, len(extra), extra)]
    for found in Matcher(passages, documents, question=question).match(answer):
        text = documents[found.document_id].text
        assert text[found.start : found.end] == found.text == found.text.strip() != ""
        edges = word_boundaries(text)
        assert edges[found.start]
        assert edges[found.end]
        assert found.answer_start is not None
        said = answer[found.answer_start : found.answer_end]
        assert ("1988" in said) <= ("1988" in found.text)
        assert any(
            p.document_id == found.document_id and p.start <= found.start and found.end <= p.end
            for p in passages
        )


def found_in(text: str, answer: str, question: str = "", title: str | None = None) -> str | None:
    matcher = Matcher(
        [Passage("d", 0, len(text), text, title=title)],
        {"d": Document(text, "d")},
        question=question,
    )
    return next((c.text for c in matcher.match(answer)), None)


def test_one_word_of_a_document_of_few_words_is_no_evidence() -> None:
    texts = ("Boiler Anna warden pier", "Club fee.", "Opens nine")
    passages = [Passage(str(n), 0, len(text), text) for n, text in enumerate(texts)]
    documents = {str(n): Document(text, str(n)) for n, text in enumerate(texts)}
    assert Matcher(passages, documents).match("The warden club.") == ()
    assert found_in("Warden", "Anna is the warden.") is None
    assert found_in("Fee: 240 euros", "The fee is 240 euros.") == "Fee: 240 euros"
    assert found_in("since 1990", "Warden since 1990.", title="Warden") == "since 1990"


OPENING = "图书馆每天早上九点开门，晚上八点关门。船只必须在十月前付款。"


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ("船只必须在十月前付款。", "船只必须在十月前付款"),
        ("图书馆早上九点开门。", "图书馆每天早上九点开门，晚上八点关门。"),
        (
            "只必须在十月前付款。",
            "船只必须在十月前付款。",
        ),  # begins amid a word: the whole sentence
        ("船只必须在十月前不付款。", None),  # the opposite
        ("天气很好。", None),
    ],
)
def test_where_no_spaces_are_evidence_is_sentences_or_phrases(
    answer: str, quote: str | None
) -> None:
    assert found_in(OPENING, answer) == quote
