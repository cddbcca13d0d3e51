"""From spans to citations: what supports what, every place of a quote, and no false range."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recallm_core.answers.answer import Citation
from recallm_core.answers.attribution import _longest_match, _words, placed_by, resolve
from recallm_core.answers.trace import AnswerText, Reasoning, RecallSpan, Trace
from recallm_core.documents.document import Document, Duplicate, Location, Member, Passage
from recallm_core.errors import CitationError
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.testing import scripted_llm
from recallm_core.text.boundaries import word_boundaries
from recallm_core.text.folding import fold

TEXT = "The tower was finished in 1889. It is 330 metres tall.\nGustave Eiffel's company built it."


def span(
    text: str, source: str = TEXT, *, section: str = "thinking", offset: int = 0, at: int = 0
) -> RecallSpan:
    start = source.index(text, at)
    place = Location("d", start, start + len(text))
    return RecallSpan(text, "d", start, place.end, 0, (place,), section, offset, 5)  # type: ignore[arg-type]


def cite(
    answer: str, *spans: RecallSpan, source: str = TEXT, passage: Passage | None = None, **more: Any
) -> tuple[Citation, ...]:
    segments = [Reasoning("hm "), *spans, AnswerText(answer)] if answer else [*spans]
    given_passage = passage or Passage("d", 0, len(source), source)
    documents = more.pop("documents", {"d": Document(source, "d")})
    return resolve(Trace(tuple(segments)), (given_passage,), documents, **more)


def supported(answer: str, quote: str, source: str = TEXT) -> str | None:
    """The part of the answer that a recalled quote supports; None: the whole answer."""
    found = cite(answer, span(quote, source), source=source)
    assert len(found) == 1
    one = found[0]
    return None if one.answer_start is None else answer[one.answer_start : one.answer_end]


@pytest.mark.parametrize(
    ("answer", "quote", "part"),
    [
        ("It opened in 1889.", "The tower was finished in 1889.", "in 1889"),
        ("330 Metres tall, I think.", "It is 330 metres tall.", "330 Metres tall"),
        ("It is big.", "It is 330 metres tall.", None),  # only stop words in common
        ("Ｅｉｆｆｅｌ built it", "Gustave Eiffel's company built it.", "built it"),
        (
            "Eiffel's company built it",
            "Gustave Eiffel's company built it.",
            "Eiffel's company built it",
        ),
        ("No idea.", "It is 330 metres tall.", None),
        ("tall 330 metres", "It is 330 metres tall.", "330 metres"),
        ("1889 and 1889", "1889", "1889"),
    ],
)
def test_a_recalled_quote_supports_its_longest_match_in_the_answer(
    answer: str, quote: str, part: str | None
) -> None:
    assert supported(answer, quote) == part


@pytest.mark.parametrize(
    ("source", "quote", "answer", "part"),
    [
        ("巴黎是法国的首都。", "巴黎是法国的首都", "首都是巴黎。", "巴黎"),
        ("القاهرة عاصمة مصر.", "القاهرة عاصمة مصر", "إنها القاهرة عاصمة.", "القاهرة عاصمة"),
        ("Le café est fermé.", "Le café est fermé", "Cafe\u0301 est ouvert", "Cafe\u0301 est"),
        ("Die STRASSE ist lang", "Die STRASSE ist lang", "Straße", "Straße"),
        ("दिल्ली भारत की राजधानी है", "दिल्ली भारत", "उत्तर: भारत", "भारत"),
    ],
)
def test_scripts_cases_and_normal_forms_match(
    source: str, quote: str, answer: str, part: str
) -> None:
    assert supported(answer, quote, source) == part


def test_a_quote_in_the_answer_supports_its_own_range() -> None:
    inside = span("1889", section="answer", offset=3)
    trace = Trace((Reasoning("x"), AnswerText("In "), inside, AnswerText(".")))
    (found,) = resolve(trace, (Passage("d", 0, len(TEXT), TEXT),), {"d": Document(TEXT, "d")})
    assert trace.answer[found.answer_start : found.answer_end] == "1889"
    assert TEXT[found.start : found.end] == found.text == "1889"


def test_unmatched_spans_stay_in_the_trace_and_the_last_stands_in_when_none_matches() -> None:
    first, last = span("330 metres"), span("Gustave")
    (found,) = cite("Nobody knows.", first, last)
    assert (found.text, found.answer_start, found.answer_end) == ("Gustave", None, None)
    (found,) = cite("It has 330 metres.", first, last)
    assert found.text == "330 metres"
    assert cite("Nobody knows.", first, fallback=False) == ()
    assert cite("", first) == ()
    assert cite("Nobody knows.") == ()


def test_citations_come_in_the_order_of_the_answer_and_once_each() -> None:
    spans = [span("Gustave"), span("1889"), span("Gustave"), span("330 metres")]
    found = cite("330 metres, 1889, Gustave", *spans)
    assert [c.text for c in found] == ["330 metres", "1889", "Gustave"]


def test_every_occurrence_is_listed_duplicates_too() -> None:
    source = "x aXa aXa y"
    copies = (
        Duplicate("whole", 0, len(source), 0),
        Duplicate("piece", 10, 14, 5),  # holds source[5:9] = ' aXa'
        Duplicate("short", 0, 2, 5),
    )
    documents = {
        "d": Document(source, "d"),
        "whole": Document(source, "whole"),
        "piece": Document("0123456789 aXa tail", "piece"),
        "short": Document(" a", "short"),
    }
    (found,) = cite(
        "aXa",
        span("aXa", source),
        source=source,
        passage=Passage("d", 0, len(source), source, duplicates=copies),
        documents=documents,
    )
    assert found.ambiguous
    assert set(found.occurrences) == {
        Location("d", 2, 5),
        Location("d", 6, 9),
        Location("whole", 2, 5),
        Location("whole", 6, 9),
        Location("piece", 11, 14),
    }
    assert found.occurrences[0] == Location("d", 2, 5)


def test_passages_in_the_middle_of_a_document_give_document_offsets() -> None:
    passage = Passage("d", 32, len(TEXT), TEXT[32:])
    (found,) = cite("330", span("330"), passage=passage)
    assert TEXT[found.start : found.end] == "330"
    assert found.occurrences == (Location("d", TEXT.index("330"), TEXT.index("330") + 3),)


def test_parts_are_the_pieces_of_the_members() -> None:
    members = (Member(0, 31, id="a"), Member(31, 55, id="b"), Member(80, 90, id="c"))
    passage = Passage("d", 0, len(TEXT), TEXT, members=members)
    quote = "finished in 1889. It is 330 metres"
    (found,) = cite("330 metres", span(quote), passage=passage)
    assert [part.member_id for part in found.parts] == ["a", "b"]
    assert "".join(part.text for part in found.parts) == quote
    assert all(TEXT[part.start : part.end] == part.text for part in found.parts)
    assert cite("330 metres", span(quote))[0].parts == ()


@pytest.mark.parametrize("tampered", [TEXT.replace("330", "331"), "", TEXT[1:]])
def test_a_quote_that_is_not_in_its_document_raises(tampered: str) -> None:
    with pytest.raises(CitationError, match="isn't document 'd'"):
        cite("330", span("330"), documents={"d": Document(tampered, "d")})
    with pytest.raises(CitationError, match="isn't document 'd'"):
        cite("330", span("330"), documents={})


def test_a_false_duplicate_raises() -> None:
    passage = Passage("d", 0, len(TEXT), TEXT, duplicates=(Duplicate("e", 0, len(TEXT), 0),))
    documents = {"d": Document(TEXT, "d"), "e": Document(TEXT.lower(), "e")}
    assert cite("330", span("330"), passage=passage, documents=documents)[0].ambiguous
    with pytest.raises(CitationError, match="isn't document 'e'"):
        cite("Gustave", span("Gustave"), passage=passage, documents=documents)


def naive_match(quote: str, answer: str) -> tuple[int, int] | None:
    ours, theirs = _words(quote), _words(answer)
    best, found = (0, 0), None
    for i in range(len(ours)):
        for j in range(len(theirs)):
            size = 0
            while (
                i + size < len(ours)
                and j + size < len(theirs)
                and ours[i + size].folded == theirs[j + size].folded
            ):
                size += 1
            held = sum(word.content for word in theirs[j : j + size])
            if held and (size, held) > best:
                best, found = (size, held), (theirs[j].start, theirs[j + size - 1].end)
    return found


WORDS = st.lists(st.sampled_from(["the", "cat", "Cat", "is", "1889", "日本", "."]), max_size=9)


@given(WORDS, WORDS)
def test_the_longest_match_equals_a_naive_search(quote: list[str], answer: list[str]) -> None:
    one, other = " ".join(quote), " ".join(answer)
    expected, found = naive_match(one, other), _longest_match(_words(one), _words(other))
    assert (found is None) == (expected is None)
    if found and expected:  # of equal matches either may come first in the quote
        assert len(_words(other[slice(*found)])) == len(_words(other[slice(*expected)]))
        folded = [w.folded for w in _words(other[slice(*found)])]
        whole = [w.folded for w in _words(one)]
        assert any(whole[i : i + len(folded)] == folded for i in range(len(whole)))


def test_long_and_repetitive_texts_are_no_trap() -> None:
    source = "cat " * 2000
    answer = ("cat " * 5000).strip()
    found = cite(answer, span(source.strip(), source), source=source)
    assert (found[0].answer_start, found[0].answer_end) == (0, len(source) - 1)


def test_a_slice_that_was_recalled_and_matched_is_cited_once() -> None:
    (recalled,) = cite("It is big.", span("It is 330 metres tall."))
    assert recalled.answer_start is None
    matched = replace(recalled, answer_start=0, answer_end=9, basis="matched")
    again = replace(matched, answer_start=10, answer_end=18)
    assert placed_by((recalled,), (matched,)) == (replace(matched, basis="recalled"),)
    assert placed_by((recalled,), (matched, again)) == (replace(matched, basis="recalled"), again)
    placed = replace(recalled, answer_start=3, answer_end=6)
    elsewhere = replace(matched, start=0, end=5)
    assert placed_by((placed, recalled), (elsewhere,)) == (placed, recalled, elsewhere)
    assert placed_by((placed,), (matched,)) == (placed, matched)


RECIPE = trained_recipe(system="{open}{close}")
POOL = (
    "A ticket costs 14 euros.",
    "Dogs are not allowed on deck.",
    "The ferry leaves at 9:30.",
    "Mira Kovalenko built the old pier.",
)
WAYS = {
    "as it stands": str,
    "in capitals": str.upper,
    "broken": lambda text: text.replace(" ", "\n", 1),
    "with more": lambda text: f"{text[:-1]}, they say.",
    "in other words": lambda text: f"{' '.join(text[:-1].split()[::-1])}.",
    "quoted": lambda text: quoted(text),
    "quoted in part": lambda text: f"It is {quoted(text.split()[-2])}.",
}


def quoted(text: str) -> str:
    return f"{RECIPE.open}{text}{RECIPE.close}"


def stands_in(text: str, words: str) -> bool:
    edges = word_boundaries(text)
    return any(edges[start] and edges[end] for start, end in fold(text).find(words))


PAGES = st.lists(st.permutations(POOL).map(lambda page: page[:3]), min_size=2, max_size=3)
HOPS = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=3)
SAID = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(WAYS))), min_size=2, max_size=4)
SWAPPED = [list(POOL[:2]), [POOL[2], POOL[0], POOL[1]]]


@given(PAGES, HOPS, SAID, st.sampled_from(["What does a ticket cost?", "Tell me all."]))
@example(SWAPPED, [(1, 0, 2)], [(1, "as it stands"), (0, "as it stands")], "Tell me all.")
@example(SWAPPED, [(1, 0, 2)], [(1, "as it stands"), (0, "in capitals")], "Tell me all.")
@example(SWAPPED, [(1, 1, 0), (1, 2, 0)], [(0, "in capitals")] * 2, "Tell me all.")
def test_no_citation_points_outside_the_evidence_where_its_words_stand_inside_it(
    pages: list[list[str]],
    hops: list[tuple[int, int, int]],
    said: list[tuple[int, str]],
    question: str,
) -> None:
    recalled = []
    for number, first, count in hops:
        page = pages[number % len(pages)]
        start = first % len(page)
        recalled.append(" ".join(page[start : start + 1 + count]))
    known = sorted({sentence for page in pages for sentence in page}, key=POOL.index)
    words = " ".join(WAYS[way](known[number % len(known)]) for number, way in said)
    script = f"{''.join(map(quoted, recalled))}{RECIPE.think_close}{words}"
    documents = [Document(" ".join(page), str(n)) for n, page in enumerate(pages)]
    answer = scripted_llm(script, recipe=RECIPE).answer(question, documents)
    evidence = [span for span in answer.trace.spans if span.section != "answer"]
    assert [span.text for span in evidence] == recalled
    for c in answer.citations:
        part = answer.text[slice(c.answer_start, c.answer_end)].strip(" .")
        if any(stands_in(span.text, part) for span in evidence):
            assert any(
                span.document_id == c.document_id and span.start <= c.start and c.end <= span.end
                for span in evidence
            )
