"""Likely answers: pieces of the evidence with clean edges, and shares that add up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM
from recallm_core.decoding.likely_tokens import LikelyTokens
from recallm_core.documents.document import Passage
from recallm_core.evidence.answer_edges import clean_edges
from recallm_core.evidence.likely_answers import MOST_ANSWERS, likely_answers
from recallm_core.evidence.protocol import AnswerFinder
from recallm_core.evidence.reader import Reading, default_reader
from recallm_core.prompting.recipe import Recipe, prompted_recipe, trained_recipe
from recallm_core.testing import ByteTokenizer, ScriptedBackend

ASKED = "When was the pier built?"
TEXT = "The pier of Westham was built in 1889. It is 330 metres long. Its deck is of oak."
PIECES = st.lists(
    st.sampled_from(["Ann", "(", ")", '"', "5", "kg", ",", "and", "May 3, 2008", ":", "e\u0301"]),
    min_size=1,
    max_size=14,
).map(" ".join)


@dataclass(frozen=True)
class Page:
    text: str


def scored(text: str, seed: int) -> list[Reading]:
    """A reader's scores of a text, drawn at random."""
    rng = np.random.default_rng(seed)
    return [
        Reading(
            w,
            rng.normal(0, 3, len(w.ids)),
            rng.normal(0, 3, len(w.ids)),
            rng.normal(0, 1, len(w.heads)),
        )
        for w in default_reader().windows([text])
    ]


@settings(max_examples=60, deadline=None)
@given(PIECES, PIECES, st.sampled_from([ASKED, "How deep is it?"]), st.integers(0, 99))
def test_they_are_pieces_of_the_evidence_with_clean_edges(
    before: str, sentence: str, question: str, seed: int
) -> None:
    text = f"{before}. {sentence}"
    evidence = (0, len(before) + 2, len(text))
    pages: list[Passage] = [Page(text)]  # type: ignore[list-item]
    found = likely_answers(question, pages, [evidence], scored(text, seed))
    assert len(found) <= MOST_ANSWERS
    assert sum(answer.share for answer in found) <= 1 + 1e-9
    assert [a.share for a in found] == sorted((a.share for a in found), reverse=True)
    assert len({answer.text for answer in found}) == len(found)
    edges = clean_edges(question, sentence)
    for answer in found:
        assert answer.text.strip() == answer.text != ""
        assert 0 < answer.share <= 1
        starts = [n for n in range(len(sentence)) if sentence.startswith(answer.text, n)]
        assert starts
        stops = [n + len(answer.text) for n in starts]
        clean = zip(edges.may_start[starts], edges.may_end[stops], strict=True)
        assert any(both == (True, True) for both in clean)


@pytest.mark.parametrize(
    "question",
    [
        "Was the pier built in 1889?",
        "Why was it built?",
        "Explain how it was built.",
        "List what it is made of.",
        "What are all the numbers for piers mentioned in the text?",
        "What are the 10 most common words in the above list?",
        "Which two colours has it?",
        "When was it built, and by whom?",
    ],
)
def test_where_no_phrase_is_asked_for_there_are_none(question: str) -> None:
    pages: list[Passage] = [Page(TEXT)]  # type: ignore[list-item]
    evidence = [(0, 0, 38)]
    reader = default_reader()
    readings = reader.read(ASKED, reader.windows([TEXT]), [None])
    assert likely_answers(ASKED, pages, evidence, readings)
    assert likely_answers(question, pages, evidence, scored(TEXT, 1)) == ()


def words_by_tilt(**settings: Any) -> str:
    """What a model without a will of its own says: what it is drawn to, until nothing draws it."""
    backend = ScriptedBackend(tokenizer=ByteTokenizer())
    changes = {name: settings.pop(name) for name in ("answer_weight",) if name in settings}
    llm = RecaLLM(backend.tokenizer, backend, prompted_recipe(**changes))
    asked = [{"role": "user", "content": ASKED}]
    prompt = llm.prepare(asked, [Document(TEXT, "d")], **settings)[0]
    rules, constraint = prompt.spec.evidence, prompt.rules.start()
    assert rules is not None
    while constraint.section == "evidence":
        only = constraint.mask().only
        assert only is not None
        wanted = np.isin(only, [prompt.spec.close.ids[0], rules.lead_in[0]])
        constraint.consume(int(only[wanted.argmax()]))
    said: list[int] = []
    while (tilted := constraint.mask().tilted) is not None:
        bias = constraint.mask().bias
        assert bias is not None
        said.append(int(tilted[bias.argmax()]))
        constraint.consume(said[-1])
    ends = {*prompt.spec.eos, ord('"')}
    assert not said or said[-1] in ends
    return bytes(token for token in said if token not in ends).decode()


def test_the_reader_finds_them_whether_quotes_are_owed_or_not() -> None:
    backend = ScriptedBackend(tokenizer=ByteTokenizer())
    llm = RecaLLM(backend.tokenizer, backend, prompted_recipe())
    asked = [{"role": "user", "content": ASKED}]
    prompts = {
        policy: llm.prepare(asked, [Document(TEXT, "d")], evidence=policy)[0]
        for policy in ("first", "free")
    }
    finder = prompts["first"].evidence
    assert isinstance(finder, AnswerFinder)
    assert finder.likely_answers()[0].text == "1889"
    assert prompts["first"].spec.likely is None  # unless the recipe wants it
    free = prompts["free"].evidence
    assert isinstance(free, AnswerFinder)
    assert free.likely_answers()[0].text == "1889"


def test_the_words_of_a_trained_model_are_drawn_behind_its_prefix() -> None:
    trained = trained_recipe(prior="reader", answer_weight=4.0)
    backend = ScriptedBackend(tokenizer=ByteTokenizer())
    asked = [{"role": "user", "content": ASKED}]

    def likely(recipe: Recipe, **settings: Any) -> LikelyTokens | None:
        llm = RecaLLM(backend.tokenizer, backend, recipe)
        return llm.prepare(asked, [Document(TEXT, "d")], **settings)[0].spec.likely

    drawn = likely(trained)
    assert drawn is not None
    assert bytes(drawn.lead) == b"Answer:"
    assert bytes(drawn.answers[0].ids) == b" 1889"
    assert not drawn.closers & set(b'"')
    assert likely(replace(trained, answer_prefix="")) is None
    assert likely(replace(trained, answer_weight=0.0)) is None
    assert likely(trained, answer_form="quote") is None
    assert likely(trained, evidence="required") is None
    assert likely(trained, prior="none") is None


def test_words_are_drawn_to_them_as_the_recipe_says() -> None:
    assert words_by_tilt(answer_weight=4.0) == "1889"
    assert words_by_tilt() == ""
    assert words_by_tilt(answer_weight=4.0, prior="none") == ""
    assert words_by_tilt(answer_weight=4.0, prior="sentences") == ""


def test_lines_that_are_broken_in_the_text_are_none_of_the_answer() -> None:
    text = "The pier of Westham was built by Ada\nMoss, a sched-\nule maker."
    reader, pages = default_reader(), [Page(text)]
    windows, asked = reader.windows([text]), "Who built the pier?"
    found = likely_answers(asked, pages, [(0, 0, len(text))], reader.read(asked, windows, [None]))  # type: ignore[arg-type]
    texts = [answer.text for answer in found]
    assert texts[0] == "Ada Moss"
    assert not any("\n" in one or "sched" in one for one in texts)
