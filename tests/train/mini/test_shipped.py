from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from recallm_core import Document, RecaLLM
from recallm_core.models import shipped
from recallm_core.prompting.recipe import Recipe
from recallm_core.train.mini.export import mini_recipe
from recallm_core.train.tasks.traces import RECALL, STRUCTURAL

FOLDER = shipped("recallm-mini") or Path()
TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
PAGE = """# Moorgate canteen

The canteen opens at 11:30 and is run by Petra Lindqvist.
Lunch costs 7 euros. The kitchen was rebuilt in 2019.
"""


@pytest.fixture(scope="module")
def llm():  # type: ignore[no-untyped-def]
    with RecaLLM.load("recallm-mini") as loaded:
        yield loaded


def test_the_folder_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(files.values()) < 50_000_000
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors"} <= set(files)
    assert Recipe.load(FOLDER) == mini_recipe()


def test_the_control_tokens_are_there() -> None:
    for name in (*STRUCTURAL, *RECALL):
        assert TOKENIZER.token_to_id(name) is not None


@given(st.text(max_size=80))
def test_any_text_round_trips(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who runs the canteen?", "Petra Lindqvist"),
        ("How much does lunch cost?", "7 euros"),
        ("When was the kitchen rebuilt?", "2019"),
    ],
)
def test_easy_questions_are_answered(llm: RecaLLM, question: str, answer: str) -> None:
    found = llm.answer(question, [Document(PAGE)])
    assert found.text == answer
    assert any(answer in citation.text for citation in found.citations)


def test_unrelated_questions_count_as_abstained(llm: RecaLLM) -> None:
    page = [Document(PAGE)]
    assert llm.answer("Which planets did Galileo observe?", page).abstained
    assert not llm.answer("Who runs the canteen?", page).abstained


@settings(max_examples=15)
@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=80), min_size=1, max_size=3))
def test_every_quote_is_a_slice(llm: RecaLLM, question: str, texts: list[str]) -> None:
    documents = [Document(text, id=str(n)) for n, text in enumerate(texts)]
    answer = llm.answer(question if question.strip() else "?", documents)
    for citation in answer.citations:
        text = documents[int(citation.document_id)].text
        assert text[citation.start : citation.end] == citation.text
