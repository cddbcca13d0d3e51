"""Clean edges: whole amounts, dates, lists; no bracket, quotation mark or backtick alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.evidence.answer_edges import clean_edges

QUESTIONS = st.sampled_from(
    ["What is it?", "When did it open?", "Which two are there?", "How many metres is it?", ""]
)
WORDS = st.sampled_from(
    ["a", "b c", "5 kg", "May 3, 2008", "x, y and z", "1990-95", " ", ", ", ": "]
)
BALANCED = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["()", "[]", "{}"]), inner).map(
            lambda t: t[0][0] + t[1] + t[0][1]
        ),
        st.lists(inner, min_size=2, max_size=3).map("".join),
    ),
    max_leaves=8,
)
QUOTED = st.tuples(st.sampled_from('`"'), BALANCED).map(lambda t: t[0] + t[1] + t[0])
SENTENCES = st.lists(st.one_of(BALANCED, QUOTED), max_size=4).map("".join)


def is_balanced(text: str) -> bool:
    waiting: list[str] = []
    partners = {"(": ")", "[": "]", "{": "}"}
    for mark in text:
        if waiting and waiting[-1] == mark:
            waiting.pop()
        elif mark in partners or mark in '`"':
            waiting.append(partners.get(mark, mark))
        elif mark in partners.values():
            return False
    return not waiting


@settings(max_examples=60)
@given(QUESTIONS, SENTENCES)
def test_no_mark_stands_alone_between_clean_edges(question: str, sentence: str) -> None:
    assert is_balanced(sentence)
    edges = clean_edges(question, sentence)
    places = range(len(sentence) + 1)
    for start in places:
        for end in places[start + 1 :]:
            is_clean = edges.may_start[start] and edges.may_end[end]
            if is_clean and edges.nested[start] == edges.nested[end]:
                assert is_balanced(sentence[start:end])


@given(QUESTIONS, st.text(alphabet='ab12 ()[]{}"`,:;.-$%“”«»\n', max_size=40))
def test_any_text_has_edges(question: str, sentence: str) -> None:
    edges = clean_edges(question, sentence)
    assert len(edges.may_start) == len(edges.may_end) == len(edges.nested) == len(sentence) + 1
    for place, mark in enumerate(sentence):
        if mark in ",;:" and sentence[place + 1 : place + 2].strip() == "":
            assert not edges.may_start[place]
            assert not edges.may_end[place + 1]


def test_a_mark_without_its_partner_is_no_edge() -> None:
    sentence = "the `name of it"
    edges = clean_edges("What is it?", sentence)
    assert not edges.may_start[sentence.index("`")]
    assert edges.may_start[sentence.index("name")]
    assert not edges.may_end[sentence.index("name")]


def clean(question: str, sentence: str, part: str) -> bool:
    """Whether a part of a sentence has clean edges."""
    edges, start = clean_edges(question, sentence), sentence.index(part)
    end = start + len(part)
    alone = edges.nested[start] != edges.nested[end]
    return bool(edges.may_start[start] and edges.may_end[end] and not alone)


@pytest.mark.parametrize(
    ("question", "sentence", "whole", "piece"),
    [
        ("How long is it?", "The route is 40 miles long.", "40 miles", "40"),
        ("How heavy is it?", "It weighs 2.5 million kg today.", "2.5 million kg", "2.5 million"),
        ("What did it cost?", "It cost $5 million then.", "$5 million", "5 million"),
        ("How much colder is it?", "It is 6 °F (3.3 °C) colder.", "6 °F (3.3 °C)", "6 °F (3.3 °C"),
        ("When did it open?", "It opened on May 19, 2008, at noon.", "May 19, 2008", "2008"),
        (
            "Where does he come from?",
            "He is from Stratford-upon-Avon.",
            "Stratford-upon-Avon",
            "Avon",
        ),
        ("How long does it take?", "It takes 2-3 hours by boat.", "2-3 hours", "3 hours"),
        ("What does it hold?", "It holds `main.toml` alone.", "`main.toml`", "`main.toml"),
        ("How deep is it?", "The lake is 113 cubits deep.", "113 cubits", "113"),
        ("Which bank is it?", "The bank is Hill & Dale of Oslo.", "Hill & Dale", "Hill"),
        ("Which channel?", "Ask in #help-with-the-boat today.", "#help-with-the-boat", "the-boat"),
        ("Which two came?", "Ann Lee and Bob Day came.", "Ann Lee and Bob Day", "Ann Lee"),
        ("Which two came?", "Ann Lee and Bob Day came.", "Ann Lee and Bob Day", "Bob Day"),
    ],
)
def test_wholes_are_not_divided(question: str, sentence: str, whole: str, piece: str) -> None:
    assert clean(question, sentence, whole)
    assert not clean(question, sentence, piece)


@pytest.mark.parametrize(
    ("question", "sentence", "piece"),
    [
        ("How many miles long is it?", "The route is 40 miles long.", "40"),
        ("How old was she?", "She was 25 as she came.", "25"),
        ("How many came?", "In all 12 sailors came.", "12"),
        ("What percentage is it?", "It is 40% of all.", "40"),
        ("In what year did it open?", "It opened on May 19, 2008, at noon.", "2008"),
        ("When was she born?", "She lived there (1919-1980) alone.", "1919"),
        ("Who came first?", "Ann Lee and Bob Day came.", "Ann Lee"),
        ("What does it hold?", "It holds `main.toml` alone.", "main.toml"),
    ],
)
def test_a_question_may_divide_them(question: str, sentence: str, piece: str) -> None:
    assert clean(question, sentence, piece)


def test_a_hostile_sentence_costs_little() -> None:
    for sentence in ("a, " * 4000, "(" * 8000, '"`' * 4000, "1-" * 4000, "A-a" * 3000):
        assert len(clean_edges("Which two?", sentence).nested) == len(sentence) + 1
