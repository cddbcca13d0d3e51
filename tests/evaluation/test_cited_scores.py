from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import Document
from recallm_core.evaluation.cited import scores
from recallm_core.evaluation.cited.words import contains, exact, f1, words_of
from recallm_core.evaluation.frame.records import AnswerRecord, CitationRecord
from recallm_core.evaluation.items import Item

TEXT = "The mill opened in 1901. It is red."
OTHER = "A bridge was built there in 1877."
ITEM = Item(
    "mill",
    (Document(OTHER, "p0"), Document(TEXT, "p1")),
    "When did the mill open?",
    ("1901", "in 1901"),
    gold=1,
)
SENTENCE = CitationRecord("p1", 0, 24, TEXT[:24])
ORACLE = AnswerRecord(
    text="The mill opened in 1901. 1901",
    words="1901",
    citations=(SENTENCE,),
    quotes=(("p1", 0, 24),),
    abstained=False,
)
NOTHING = AnswerRecord(text="", words="", abstained=True)


def test_the_oracle_is_right() -> None:
    found = {
        name: measure(ITEM, ORACLE)
        for name, measure in scores.measures(answerable=True, plain=False).items()
    }
    one = {name: found[name] for name in ("cited", "hit", "right", "f1", "em")}
    assert set(one.values()) == {1.0}
    assert found["abstained"] == found["repeats"] == found["wrong_slices"] == 0
    assert found["words"] == 5


def test_an_empty_answer_scores_nothing() -> None:
    found = {
        name: measure(ITEM, NOTHING)
        for name, measure in scores.measures(answerable=True, plain=False).items()
    }
    assert found.pop("abstained") == 1
    assert set(found.values()) == {0.0}
    assert scores.nearest(ITEM, NOTHING) == 0


def test_a_hit_needs_the_document_that_answers() -> None:
    elsewhere = Item("x", (Document("1901", "p0"), *ITEM.documents[1:]), "?", ("1901",), gold=1)
    beside = replace(ORACLE, citations=(CitationRecord("p0", 0, 4, "1901"),))
    assert scores.hit(elsewhere, beside) == 0
    assert scores.hit(replace(elsewhere, gold=-1), beside) == 1


@given(st.integers(-3, 40), st.integers(-3, 40), st.sampled_from(["p0", "p1", "p9"]))
def test_every_other_slice_is_wrong(start: int, end: int, document: str) -> None:
    record = replace(ORACLE, citations=(CitationRecord(document, start, end, SENTENCE.text),))
    same = (document, start, end) == ("p1", 0, 24)
    assert scores.wrong_slices(ITEM, record) == (0 if same else 1)


def test_a_wrong_slice_is_no_hit_by_its_text() -> None:
    record = replace(ORACLE, citations=(CitationRecord("p1", 25, 35, "opened in 1901"),))
    assert scores.hit(ITEM, record) == 0


@pytest.mark.parametrize(
    ("change", "repeated"),
    [
        ({}, 0),
        ({"quotes": (("p1", 0, 24), ("p1", 0, 24))}, 1),
        ({"quotes": (("p1", 19, 23), ("p0", 28, 32))}, 0),
        ({"citations": (SENTENCE, SENTENCE)}, 1),
    ],
)
def test_a_quote_twice_is_a_repeat(change: dict[str, object], repeated: float) -> None:
    assert scores.repeats(ITEM, replace(ORACLE, **change)) == repeated


def test_the_nearest_sentence_is_looked_at_for_a_plain_answer() -> None:
    plain = scores.measures(answerable=True, plain=True)
    assert plain["nearest"](ITEM, AnswerRecord("the mill opened early", "")) == 1
    assert plain["nearest"](ITEM, AnswerRecord("a bridge was built", "")) == 0
    assert not {"cited", "hit", "abstained", "wrong_slices", "repeats"} & set(plain)
    assert "nearest" not in scores.measures(answerable=False, plain=True)


@pytest.mark.parametrize(
    ("text", "gold", "held"),
    [
        ("It opened in 1939.", "19", False),
        ("It opened in 1939.", "1939", True),
        ("the Battle of Hastings!", "battle of  hastings", True),
        ("Battle at Hastings", "battle of hastings", False),
        ("他出生于一九零一年。", "一九零一年", True),
        ("1901年に開業", "1901", True),
        ("في المدينة القديمة", "مدينة", True),
        ("anything", "!!", False),
        ("", "x", False),
    ],
)
def test_an_answer_is_held_in_whole_words(text: str, gold: str, held: bool) -> None:
    assert contains(text, [gold]) is held


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_a_text_holds_its_parts_between_spaces(before: str, gold: str, after: str) -> None:
    if words_of(gold):
        assert contains(f"{before} {gold} {after}", [gold])
        assert f1(gold, [gold]) == 1
        assert exact(gold, [before, gold])


@given(st.integers(1, 300), st.data())
def test_wilson_holds_its_share_and_never_shrinks_to_a_point(n: int, data: st.DataObject) -> None:
    found = scores.wilson(data.draw(st.integers(0, n)), n)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.high - found.low > 1 / (n + 4)


def test_wilson_as_in_the_books() -> None:
    found = scores.wilson(95, 100)
    assert (round(found.low, 3), round(found.high, 3)) == (0.888, 0.978)
    with pytest.raises(ValueError, match="at least one row"):
        scores.wilson(0, 0)
