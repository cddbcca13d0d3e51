"""The real model's GGUF file in llama.cpp, with the settings that users get by default."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recallm_core import Document, RecaLLM

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
DOCUMENTS = (
    Document(
        "The paper mill at Orvelle was built in 1868 beside the weir. It made wallpaper at first "
        "and turned to writing paper after the fire of 1911. The last sheet left it in 1974.",
        "mill",
    ),
    Document(
        "A ferry crosses the Tarn Sound every forty minutes from April to October. In winter it "
        "runs twice a day. Bicycles travel free, and a car costs nine crowns each way.",
        "ferry",
    ),
)
ROWS = (
    ("When was the paper mill at Orvelle built?", "mill", "1868"),
    ("How much does a car cost on the Tarn Sound ferry?", "ferry", "nine crowns"),
    ("How often does the ferry run in winter?", "ferry", "twice a day"),
)


@pytest.fixture(scope="module")
def llm(llama_cpp: Any) -> Iterator[RecaLLM]:
    models = Path(os.environ.get("RECALLM_REAL_MODELS", "~/.cache/recallm-real")).expanduser()
    if not (models / NAME).is_file():
        pytest.skip(f"no {NAME} in {models}; `python tests/real/bring.py` brings it (98 MB)")
    with RecaLLM.load(models / NAME, threads=1) as loaded:
        yield loaded


def test_every_answer_is_cited_and_every_citation_a_slice(llm: RecaLLM) -> None:
    assert (llm.backend.window, llm.recipe.mode) == (8192, "prompted")
    texts = {document.id: document.text for document in DOCUMENTS}
    for number, (question, place, words) in enumerate(ROWS):
        answer = llm.answer(question, DOCUMENTS, seed=1, max_new_tokens=120)
        assert answer.citations
        for c in answer.citations:
            assert texts[c.document_id][c.start : c.end] == c.text
        assert any(words in c.text and c.document_id == place for c in answer.citations)
        assert answer.usage.cached_tokens > 100 if number else answer.usage.cached_tokens == 0


def test_texts_are_encoded_as_llama_cpp_encodes_them(llm: RecaLLM, llama_cpp: Any) -> None:
    model: Any = llm.backend
    buffer = (llama_cpp.llama_token * 4096)()
    vocab = llama_cpp.llama_model_get_vocab(model.model.handle)
    root = Path(__file__).resolve().parents[2]
    for text in (root / "README.md").read_text("utf-8").split("\n\n"):
        data = text.encode()
        size = llama_cpp.llama_tokenize(vocab, data, len(data), buffer, 4096, False, False)
        assert llm.tokenizer.encode_plain(text).ids.tolist() == list(buffer[:size])
