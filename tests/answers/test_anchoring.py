"""Where a quote counts as taken from: inside the evidence recalled for it, else near it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM
from recallm_core.answers import anchoring
from recallm_core.answers.anchoring import Place, anchor
from recallm_core.answers.answer import Answer
from recallm_core.answers.trace import RecallSpan
from recallm_core.answers.trace_parser import TraceParser
from recallm_core.documents.document import Location
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.testing import ByteTokenizer, ScriptedBackend, random_walk, scripted_llm
from recallm_core.text.boundaries import word_boundaries
from recallm_core.text.places import find_all

EDITORS = "The line length is 79. Editors with a window width set to 80 show it whole."
STYLE = "For the library, at most 80 columns. Lines of 80 characters are refused."
RECIPE = trained_recipe(system="{open}{close}", think_open="<think>", think_close="</think>")


def quoted(text: str) -> str:
    return f"<|start_recall|>{text}<|end_recall|>"


def ask(script: str, *texts: str, question: str = "q") -> Answer:
    llm = scripted_llm(script, recipe=RECIPE)
    return llm.answer(question, [Document(text, str(n)) for n, text in enumerate(texts)])


def cited(answer: Answer) -> list[tuple[str, int, int]]:
    return [(c.document_id, c.start, c.end) for c in answer.citations if c.text == "80"]


def place(document_id: str, text: str, source: str, at: int = 0) -> tuple[str, int, int]:
    start = source.index(text, at)
    return document_id, start, start + len(text)


def test_a_short_quote_is_taken_from_the_evidence_recalled_for_it() -> None:
    last = quoted("Lines of 80 characters are refused.")
    answer = ask(f"{last}</think>{quoted('80')}.", EDITORS, STYLE)
    assert cited(answer) == [place("1", "80", STYLE, STYLE.index("Lines"))]
    (short,) = (c for c in answer.citations if c.text == "80")
    assert short.occurrences[0] == Location("1", short.start, short.end)
    assert len(short.occurrences) == 3
    assert len(set(short.occurrences)) == 3
    span = answer.trace.spans[-1]
    assert (span.document_id, span.start, span.passage) == ("1", short.start, 1)
    assert span.occurrences[0] == short.occurrences[0]


def test_the_evidence_recalled_last_goes_first() -> None:
    both = quoted("Lines of 80 characters") + " hm " + quoted("at most 80 columns")
    answer = ask(f"{both}</think>{quoted('80')}", EDITORS, STYLE)
    assert cited(answer) == [place("1", "80", STYLE)]


def test_evidence_goes_before_what_the_answer_quoted() -> None:
    script = (
        f"{quoted('Lines of 80 characters')}</think>{quoted('set to 80 show')} and {quoted('80')}"
    )
    answer = ask(script, EDITORS, STYLE)
    assert cited(answer) == [place("1", "80", STYLE, STYLE.index("Lines"))]
    script = f"hm</think>{quoted('Lines of 80 characters')} and {quoted('80')}"
    assert cited(ask(script, EDITORS, STYLE)) == [place("1", "80", STYLE, STYLE.index("Lines"))]


def test_else_the_nearest_place_of_the_passage_counts() -> None:
    answer = ask(f"{quoted('characters are refused')}</think>{quoted('80')}", EDITORS, STYLE)
    assert cited(answer) == [place("1", "80", STYLE, STYLE.index("Lines"))]
    answer = ask(f"{quoted('For the library')}</think>{quoted('80')}", EDITORS, STYLE)
    assert cited(answer) == [place("1", "80", STYLE)]
    assert cited(ask(f"hm</think>{quoted('80')}", EDITORS, STYLE)) == [place("0", "80", EDITORS)]


def test_part_of_a_word_is_no_place() -> None:
    old = "In 1980 it had 12 floors. Now it has 80."
    answer = ask(f"{quoted('In 1980 it had 12 floors')}</think>{quoted('80')}", EDITORS, old)
    assert cited(answer) == [place("1", "80", old, 10)]


def span(start: int, end: int, passage: int = 0, section: Any = "thinking") -> RecallSpan:
    return RecallSpan("x" * (end - start), "d", start, end, passage, (), section, 0, 1)


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        ([], 0),
        ([span(40, 45)], 1),
        ([span(0, 2, passage=7)], 0),  # the same document, another passage: the nearest
        ([span(200, 202, passage=7)], 2),
        ([span(200, 202, passage=7), span(40, 45)], 1),
        ([span(95, 99, section="answer"), span(40, 45), span(0, 2, section="answer")], 1),
        ([span(95, 99), span(40, 45, section="evidence")], 1),
    ],
)
def test_the_order_of_preference(earlier: list[RecallSpan], expected: int) -> None:
    places = [Place(0, Location("d", at, at + 2)) for at in (10, 50, 100)]
    assert anchor("ab", places, earlier) == places[expected]


spots = st.tuples(st.integers(0, 3), st.sampled_from("de"), st.integers(0, 40))


@given(
    st.lists(spots, min_size=1, max_size=8),
    st.lists(st.tuples(spots, st.sampled_from(["thinking", "answer"])), max_size=6),
)
def test_the_nearest_place_is_that_of_a_look_at_each_with_each(
    drawn: list[tuple[int, str, int]], recalled: list[tuple[tuple[int, str, int], Any]]
) -> None:
    places = [Place(p, Location(d, at, at + 2)) for p, d, at in drawn]
    earlier = [
        RecallSpan("xx", d, at, at + 2, p, (), section, 0, 1) for (p, d, at), section in recalled
    ]
    latest = earlier[::-1]
    order = sorted(latest, key=lambda span: span.section == "answer")
    pairs = [
        (other, rank, max(place.location.start - span.end, span.start - place.location.end, 0), n)
        for n, place in enumerate(places)
        for rank, span in enumerate(order)
        for other in (False, True)
        if (other or place.passage == span.passage)
        and (not other or place.location.document_id == span.document_id)
    ]
    expected = min(pairs, default=(0, 0, 0, 0))[3]
    assert anchor("ab", places, earlier) == places[expected]


def test_many_quotes_of_a_frequent_word_take_no_product_of_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = [Place(n, Location(f"d{n % 2}", 0, 2)) for n in range(300)]
    earlier = [RecallSpan("xx", "d0", 0, 2, -n, (), "thinking", 0, 1) for n in range(1, 300)]
    measured = []

    def counted(place: Location, span: RecallSpan) -> int:
        measured.append(place)
        return distance(place, span)

    distance = anchoring._distance
    monkeypatch.setattr(anchoring, "_distance", counted)
    assert anchor("ab", places, earlier) == places[0]
    assert 0 < len(measured) <= len(places)


@given(st.integers(0, 2**32), st.sampled_from([12, 60]))
def test_no_quote_is_placed_outside_the_evidence_where_its_words_stand_inside_it(
    seed: int, most: int
) -> None:
    texts = ["a b. a c a b. 80 a.", "b a 80. a b c. 80", "c 80 a b. b"]
    llm = RecaLLM(ByteTokenizer(), ScriptedBackend(), RECIPE)
    documents = [Document(text, str(n)) for n, text in enumerate(texts)]
    prompt = llm.prepare([{"role": "user", "content": "q"}], documents, max_span_tokens=most)[0]
    parser = TraceParser(prompt, ByteTokenizer())
    walk = random_walk(prompt.rules.start(), random.Random(seed), marks=0.3)
    parser.feed([token for token, _ in zip(walk, range(200), strict=False)])
    parser.finish()
    spans = parser.trace.spans
    for number, one in enumerate(spans):
        assert texts[one.passage][one.start : one.end] == one.text
        assert one.occurrences[0] == Location(one.document_id, one.start, one.end)
        assert len(set(one.occurrences)) == len(one.occurrences)
        evidence = [s for s in spans[:number] if s.section != "answer"]
        holding = [s for s in evidence if holds(s.text, one.text)]
        if holding:
            assert (one.document_id, one.passage) == (holding[-1].document_id, holding[-1].passage)
            assert holding[-1].start <= one.start
            assert one.end <= holding[-1].end


def holds(text: str, words: str) -> bool:
    edges = np.flatnonzero(word_boundaries(text)).tolist()
    return any(at in edges and at + len(words) in edges for at in find_all(words, text))
