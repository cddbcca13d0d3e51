"""From pointers to citations: exact, complete, and graded by how they came to be."""

from __future__ import annotations

from typing import Any

import pytest

from recallm_core import CitationError, Document, Passage, PointedPrompt
from recallm_core.documents.document import Duplicate
from tests.pointing.conftest import DOCUMENTS, check, reply


def test_a_pointer_is_a_citation_of_the_part_that_says_so() -> None:
    prompt = PointedPrompt.of("When does it leave?", DOCUMENTS)
    answer = prompt.answer(reply(([1], "It leaves at 9:30."), ([3, 2], "Leave is 16 weeks long.")))
    check(answer)
    assert [(c.text, c.basis) for c in answer.citations] == [
        ("The ferry leaves Port Hallow at 9:30", "pointed"),
        ("Parental leave is 16 weeks, paid in full.", "pointed"),
        ("Dogs travel free.", "pointed"),
    ]
    supported = [answer.text[c.answer_start : c.answer_end] for c in answer.citations]
    assert supported == ["It leaves at 9:30."] + ["Leave is 16 weeks long."] * 2
    assert answer.citations[0].title == "Ferry"


def test_words_that_nothing_is_pointed_at_for_are_matched_or_stand_alone() -> None:
    prompt = PointedPrompt.of("?", DOCUMENTS)
    answer = prompt.answer(
        reply(([1], "It leaves at 9:30."), ([], "Dogs travel free."), ([], "Cats are unwelcome."))
    )
    check(answer)
    found = [(c.basis, answer.text[c.answer_start : c.answer_end]) for c in answer.citations]
    assert found == [("pointed", "It leaves at 9:30."), ("matched", "Dogs travel free.")]


def test_a_pointer_that_has_nothing_to_do_with_its_statement_gives_way_to_one_that_has() -> None:
    prompt = PointedPrompt.of("?", DOCUMENTS)
    answer = prompt.answer(reply(([3], "Dogs travel free."), ([2], "F\u00fcr Hunde umsonst.")))
    check(answer)
    assert [(c.text, c.basis) for c in answer.citations] == [
        ("Dogs travel free.", "matched"),
        ("Dogs travel free.", "pointed"),
    ]


def test_every_other_place_of_a_quote_is_listed() -> None:
    twice = Document("Dogs travel free. Cats too. Dogs travel free.", "twice")
    passages = [
        Passage("ferry", 121, 138, "Dogs travel free."),
        Passage("twice", 0, 27, "Dogs travel free. Cats too.",
                duplicates=(Duplicate("twice", 28, 45, 0),)),
    ]  # fmt: skip
    ferry = DOCUMENTS[0]
    passages[0] = Passage("ferry", at := ferry.text.index("Dogs"), at + 17, "Dogs travel free.")
    turns = [{"role": "user", "content": "?"}]
    prompt = PointedPrompt(turns, passages, {"ferry": ferry, "twice": twice})
    answer = prompt.answer(reply(([2], "Dogs go free.")))
    check(answer, [ferry, twice])
    (citation,) = answer.citations
    places = [(place.document_id, place.start) for place in citation.occurrences]
    assert places == [("twice", 0), ("ferry", at), ("twice", 28)]
    assert citation.ambiguous


def test_a_passage_that_is_no_slice_of_its_document_raises() -> None:
    wrong: Any = Passage("ferry", 1, 18, "Dogs travel free.")
    prompt = PointedPrompt([{"role": "user", "content": "?"}], [wrong], {"ferry": DOCUMENTS[0]})
    with pytest.raises(CitationError, match="isn't document 'ferry'"):
        prompt.answer(reply(([1], "Dogs go free.")))
