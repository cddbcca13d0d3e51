"""Where the answer's quote starts and ends by the tilt alone: clean edges, whole evidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM
from recallm_core.evidence.answer_bias import answer_tilt
from recallm_core.evidence.answer_edges import clean_edges
from recallm_core.evidence.reader import Reading, default_reader
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.testing import ByteTokenizer, ScriptedBackend

PIECES = st.lists(
    st.sampled_from(
        ["Ann", "(", ")", "`", '"', "[", "]", "5", "kg", ",", "and", "May 3, 2008", ":"]
    ),
    min_size=1,
    max_size=14,
).map(" ".join)


def prepared(text: str, question: str) -> Prompt:
    backend = ScriptedBackend(tokenizer=ByteTokenizer())
    recipe = trained_recipe(system="{open}{close}", think_open="<think>", think_close="</think>")
    llm = RecaLLM(backend.tokenizer, backend, recipe)
    return llm.prepare([{"role": "user", "content": question}], [Document(text, "d")])[0]


def scored(text: str, seed: int) -> list[Reading]:
    """A reader's scores of a text, drawn at random."""
    rng = np.random.default_rng(seed)
    return [
        Reading(
            window,
            rng.normal(0, 3, len(window.ids)),
            rng.normal(0, 3, len(window.ids)),
            rng.normal(0, 1, len(window.heads)),
        )
        for window in default_reader().windows([text])
    ]


def answer_by_tilt(prompt: Prompt, question: str, readings: list[Reading]) -> tuple[int, int]:
    """The range that a model without a will of its own answers with."""
    places, text = prompt.places, prompt.passages[0].text
    tilt = answer_tilt(question, places, [(0, 0, len(text))], readings)
    run = places.runs[0]
    first = int(np.where(places.can_start, tilt.starts, -np.inf).argmax())
    ends = np.flatnonzero(places.can_end)
    later = ends[ends >= first]
    closing = [n for n in later.tolist() if tilt.ends[n] > 0] or [int(later[-1])]
    return int(run.starts[first]), int(run.ends[closing[0]])


@settings(max_examples=40, deadline=None)
@given(PIECES, st.sampled_from(["When did it open?", "Which two came?"]), st.integers(0, 99))
def test_an_answer_by_the_tilt_has_clean_edges(text: str, question: str, seed: int) -> None:
    edges = clean_edges(question, text)
    prompt = prepared(text, question)
    places, run = prompt.places, prompt.places.runs[0]
    starts, ends = run.starts[places.can_start], run.ends[places.can_end]
    starts, ends = starts[edges.may_start[starts]], ends[edges.may_end[ends]]
    if not starts.size or not ends.size:
        return
    start, end = answer_by_tilt(prompt, question, scored(text, seed))
    assert edges.may_start[start]
    partners = ends[(ends > start) & (edges.nested[ends] == edges.nested[start])]
    if partners.size:
        assert end in partners


LIBRARY = "The library is closed on Mondays. It has a `main.toml` file (and 40 books)."


@pytest.mark.parametrize("question", ["Is the library open on Mondays?", "Does it open at all?"])
def test_the_evidence_itself_answers_a_question_for_yes_or_no(question: str) -> None:
    prompt = prepared(LIBRARY, question)
    readings = default_reader().read(question, default_reader().windows([LIBRARY]), [None])
    evidence = (0, 0, LIBRARY.index(".") + 1)
    tilt = answer_tilt(question, prompt.places, [evidence], readings)
    run = prompt.places.runs[0]
    can_start = np.where(prompt.places.can_start, tilt.starts, -np.inf)
    assert run.starts[can_start.argmax()] == 0
    closing = run.ends[np.flatnonzero(tilt.ends > 0)]
    assert closing.tolist() == [evidence[2]]


def test_what_the_reader_thinks_of_an_unclean_edge_counts_for_the_clean_one() -> None:
    text, question = "It opened on May 19, 2008, at noon.", "When did it open?"
    prompt = prepared(text, question)
    (window,) = default_reader().windows([text])
    at = [text[a:b] for a, b in zip(window.starts, window.ends, strict=True)].index("2008")
    likes = np.full(len(window.ids), -5.0)
    likes[at] = 5.0
    reading = Reading(window, likes, likes, np.zeros(len(window.heads)))
    start, end = answer_by_tilt(prompt, question, [reading])
    assert text[start:end] == "May 19, 2008"
