"""Which documents a prompt holds: all that fit the window and the recipe's limit, else the best."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import Document
from recallm_core.prompting.recipe import Recipe
from recallm_core.retrieval import CorpusIndex
from recallm_core.testing import scripted_llm

ASK = [{"role": "user", "content": "How is the vault opened?"}]
VAULT = Document("The vault is opened with the number 7719.", "vault")
NOISE = [Document(f"Page {n} speaks of ships and weather. " * 20, f"n{n}") for n in range(30)]


def packed(documents: list[Document], limit: int, *, indexed: bool = False) -> dict[str, str]:
    """The texts of a prompt by document, joined; a byte is a token, a heading a few dozen."""
    llm = scripted_llm("x", recipe=Recipe(pack_tokens=limit), window=65_536)
    prompt, sources = llm.prepare(ASK, CorpusIndex.build(documents) if indexed else documents)
    texts: dict[str, str] = {}
    for passage in prompt.passages:
        source = sources[passage.document_id].text
        assert source[passage.start : passage.end] == passage.text
        texts[passage.document_id] = texts.get(passage.document_id, "") + passage.text
    return texts


@settings(max_examples=15)
@given(st.integers(500, 6000), st.integers(0, 30), st.booleans())
def test_what_is_packed_stays_within_the_limit(limit: int, count: int, indexed: bool) -> None:
    documents = [*NOISE[:count], VAULT]
    texts = packed(documents, limit, indexed=indexed)
    assert sum(map(len, texts.values())) <= limit
    assert texts["vault"] == VAULT.text
    if sum(len(document.text) + 100 for document in documents) <= limit:
        assert len(texts) == len(documents)


@pytest.mark.parametrize("limit", [0, 40_000])
def test_without_a_limit_all_that_fits_the_window_is_read(limit: int) -> None:
    assert len(packed([*NOISE, VAULT], limit)) == len(NOISE) + 1


def test_a_limit_above_the_window_changes_nothing() -> None:
    llm = scripted_llm("x", recipe=Recipe(pack_tokens=10_000_000), window=8192)
    prompt, _ = llm.prepare(ASK, [*NOISE, VAULT])
    assert len(prompt.token_ids) < 8192
    assert any(passage.document_id == "vault" for passage in prompt.passages)
