"""A prompt that has a limit: never over it, and what it leaves out is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import ContextOverflowError, CorpusIndex, Document, PointedPrompt
from recallm_core.errors import MissingExtraError
from recallm_core.pointing.fitting import estimated_tokens
from tests.pointing.conftest import TEXTS, check, reply

WORDS = ("river", "office", "ledger", "contract", "report", "flower", "market", "bridge")


def told(n: int) -> str:
    """Some sentences of one subject."""
    word = WORDS[n % len(WORDS)]
    return " ".join(f"The {word} of row {n} opens on day {day} of the year." for day in range(12))


MANY = tuple(Document(told(n), id=f"d{n}", title=f"Row {n}") for n in range(40))


def covered(prompt: PointedPrompt, documents: Any) -> None:
    """Passages and what is left out hold every visible character, none of them twice."""
    for document in documents:
        ranges = [
            (at.start, at.end)
            for at in (*prompt.passages, *prompt.left_out)
            if at.document_id == document.id
        ]
        seen = [False] * len(document.text)
        for start, end in ranges:
            assert not any(seen[start:end])
            seen[start:end] = [True] * (end - start)
        missed = "".join(c for c, held in zip(document.text, seen, strict=True) if not held)
        assert not missed.strip()


def test_what_fits_is_the_prompt_as_it_was() -> None:
    prompt = PointedPrompt.within(100_000, "When?", MANY)
    assert prompt.turns == PointedPrompt.of("When?", MANY).turns
    assert prompt.left_out == ()


@pytest.mark.parametrize("room", [1_200, 1_700, 3_000, 3_100, 5_000, 9_000])
def test_what_does_not_fit_is_cut_to_what_bears_on_the_question(room: int) -> None:
    prompt = PointedPrompt.within(room, "When does the contract of row 19 open?", MANY)
    assert prompt.size() <= room
    assert prompt.size() > room // 2
    assert "d19" in {passage.document_id for passage in prompt.passages}
    covered(prompt, MANY)
    assert prompt.left_out
    answer = prompt.answer(reply(([1], "On some day.")))
    check(answer, MANY)
    assert answer.citations


def test_without_what_searches_by_meaning_words_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise MissingExtraError("no extra")

    monkeypatch.setattr(CorpusIndex, "build", missing)
    prompt = PointedPrompt.within(1_500, "When does the flower of row 37 open?", MANY)
    assert prompt.size() <= 1_500
    assert "d37" in {passage.document_id for passage in prompt.passages}
    covered(prompt, MANY)


def test_an_index_is_packed_and_another_counter_is_heard() -> None:
    index = CorpusIndex.build(MANY)
    counted = []

    def letters(text: str) -> int:
        counted.append(text)
        return len(text)

    prompt = PointedPrompt.within(9_000, "row 3", index, count=letters)
    assert counted
    assert 0 < prompt.size(letters) <= 9_000
    assert sum(len(turn["content"]) for turn in prompt.turns) < 9_000


def test_no_room_at_all_is_an_error() -> None:
    with pytest.raises(ContextOverflowError):
        PointedPrompt.within(300, "When?", MANY)
    with pytest.raises(ContextOverflowError):
        PointedPrompt.within(2_000, "When? " * 2_000, MANY)
    with pytest.raises(ContextOverflowError, match="fewer or shorter documents"):
        PointedPrompt.within(5_000, "When?", ["a word " * 1_500_000])
    for odd in (0, -1, True, "9", 2.5, None):
        with pytest.raises((TypeError, ValueError), match="max_tokens"):
            PointedPrompt.within(odd, "When?", MANY)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(texts=st.lists(TEXTS, max_size=6), room=st.integers(1, 3_000), question=TEXTS)
def test_any_documents_stay_within_any_limit(texts: list[str], room: int, question: str) -> None:
    documents = [Document(text * 20, id=str(n)) for n, text in enumerate(texts)]
    try:
        prompt = PointedPrompt.within(room, question, documents)
    except ContextOverflowError:
        return
    assert prompt.size() <= room
    assert prompt.passages or not any(document.text.strip() for document in documents)
    for passage in prompt.passages:
        text = documents[int(passage.document_id)].text
        assert text[passage.start : passage.end] == passage.text


@given(a=TEXTS, b=TEXTS)
def test_estimates_grow_with_the_text(a: str, b: str) -> None:
    assert estimated_tokens(a + b) >= max(estimated_tokens(a), estimated_tokens(b)) - 1
    assert estimated_tokens(a) >= len(a.split()) * 0.9
