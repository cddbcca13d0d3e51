"""However a text is wrapped, and whatever stands before its lines, its evidence is the same."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM
from recallm_core.evaluation.tasks import HANDBOOK
from recallm_core.evidence.reader import default_reader
from recallm_core.evidence.reader_bias import ReaderScorer
from recallm_core.evidence.sentence_bias import AT_A_BREAK, WITHIN_SENTENCE
from recallm_core.evidence.sentence_scorer import SentenceScorer
from recallm_core.retrieval.embedding import default_embedder
from recallm_core.testing import scripted_llm

PROSE = (
    "The ferry to Skerry leaves from the eastern pier at 9:30 on every working day of the week. "
    "A ticket is 12 euros for members of the club, and children under six travel for nothing. "
    "The pier was built by the Harcourt family in 1954 and is 240 metres long."
)
QUESTIONS = {
    "When does the ferry leave?": "9:30",
    "Who built the pier?": "the Harcourt family",
    "What does a ticket cost for members?": "12 euros",
}
PREFIXES = st.sampled_from(["", "> ", ">> ", "# ", "// ", "; ", "-- ", "% ", "    ", "\t"])


def wrapped(text: str, width: int, prefix: str) -> str:
    return "\n".join(prefix + line for line in textwrap.wrap(text, width, break_on_hyphens=False))


def plain(words: Iterable[str], prefix: str) -> str:
    return " ".join(word for text in words for word in text.split() if word != prefix.strip())


@cache
def read(text: str, question: str, prefix: str) -> tuple[list[str], np.ndarray, str]:
    """The sentences, their scores, and the words where the reader thinks that the answer is."""
    scorer = SentenceScorer([text], [None], default_embedder())
    reading = ReaderScorer(scorer, default_reader(), [text], [None])
    sentences = [plain([text[a:b]], prefix) for a, b in scorer.spans[0]]
    (found,) = reading.readings(question)
    window = found.window
    first = int(np.argmax(found.start))
    last = first + int(np.argmax(found.end[first : first + 12]))
    answer = plain([text[window.starts[first] : window.ends[last]]], prefix)
    return sentences, reading.scores(question), answer


@settings(max_examples=10, deadline=None)
@given(st.integers(25, 100), PREFIXES, st.sampled_from(list(QUESTIONS)))
@example(60, "> ", "Who built the pier?")
def test_wrapping_changes_neither_the_sentence_nor_the_words_of_the_answer(
    width: int, prefix: str, question: str
) -> None:
    sentences, scores, answer = read(wrapped(PROSE, width, prefix), question, prefix)
    expected = read(PROSE, question, "")
    assert sentences == expected[0]
    assert scores == pytest.approx(expected[1], abs=0.05)
    assert answer == expected[2] == QUESTIONS[question]


@pytest.mark.parametrize("prefix", ["", "> "])
@pytest.mark.parametrize("width", [45, 60, 78])  # a record or heading stays a line
def test_quoted_pages_are_read_as_their_own_words(width: int, prefix: str) -> None:
    for path in sorted(HANDBOOK.glob("*.md")):
        text = path.read_text("utf-8").partition("|")[0]  # a row of a table can't be wrapped
        rows = [wrapped(line, width, prefix) or prefix for line in text.split("\n")]
        scorer = SentenceScorer(["\n".join(rows)])
        quoted = [plain([rows_of], prefix) for rows_of in _texts(scorer, "\n".join(rows))]
        assert [text for text in quoted if text] == [
            plain([sentence], "") for sentence in _texts(SentenceScorer([text]), text)
        ]


def _texts(scorer: SentenceScorer, text: str) -> list[str]:
    return [text[a:b] for a, b in scorer.spans[0]]


def test_marks_without_words_hold_no_evidence() -> None:
    text = "> The ferry leaves at nine.\n>\n> Ann Lee runs the harbour."
    for question in ("When does the ferry leave?", "Who runs the harbour?"):
        sentences, scores, _ = read(text, question, ">")
        assert sentences[int(np.argmax(scores))] != ""
        assert np.argmin(scores) == sentences.index("")


def test_quotes_hardly_start_where_a_wrapped_line_begins() -> None:
    llm: RecaLLM = scripted_llm()
    text = wrapped(PROSE, 40, "> ")
    ask = [{"role": "user", "content": "When does the ferry leave?"}]
    prompt = llm.prepare(ask, [Document(text)], prior="sentences")[0]
    assert prompt.evidence is not None
    scores = prompt.evidence.bias("thinking", ()).start_scores
    at = {int(a): score for a, score in zip(prompt.runs[0].starts, scores, strict=True)}
    mark = text.index("> ", 1)
    assert at[mark] == at[mark + 2] == pytest.approx(at[2] + AT_A_BREAK)
    assert at[text.index("Skerry")] == pytest.approx(at[2] + WITHIN_SENTENCE)
