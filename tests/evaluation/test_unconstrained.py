from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import Document
from recallm_core.backends import GenerationRequest
from recallm_core.evaluation.answering import ByFreeModel, ByModel
from recallm_core.evaluation.items import Item
from recallm_core.generator import RecaLLM
from recallm_core.prompting.params import GenerationParams
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.testing import ByteTokenizer, ScriptedBackend

PAGE = "The mill opened in 1901. It is red."
ITEM = Item("1", (Document(PAGE, "mill"),), "When did it open?", ("1901",))
OPEN, CLOSE, END = "<|start_recall|>", "<|end_recall|>", "</think>"


class Stubborn(ScriptedBackend):
    """Says its script token by token wherever that is legal, inside spans too."""

    def __init__(self, script: str, **options: object) -> None:
        super().__init__(script, **options)
        self.said = script

    def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
        state = request.rules.start()
        for token in [*self.tokenizer.encode_template(self.said), *self.tokenizer.eos_ids]:
            if state.mask().allows(token):
                state.consume(token)
                yield token


def stubborn(script: str, recipe: Recipe | None = None) -> RecaLLM:
    backend = Stubborn(script)
    chosen = recipe or trained_recipe(sampling={"temperature": 0.0})
    return RecaLLM(backend.tokenizer, backend, chosen)


def test_without_the_constraint_an_invented_quote_comes_through_and_counts_as_invented() -> None:
    script = f"{OPEN}The mill opened in 1955.{CLOSE}{END}{OPEN}1901{CLOSE}"
    found = ByFreeModel(stubborn(script), GenerationParams())(ITEM)
    assert [(q.text, q.exact) for q in found.evidence] == [
        ("The mill opened in 1955.", False),
        ("1901", True),
    ]
    assert (found.answer, found.spans, found.verbatim) == ("1901", 2, 1)


def test_with_the_constraint_the_same_model_can_only_copy() -> None:
    script = f"{OPEN}The mill opened in 1955.{CLOSE}{END}{OPEN}1901{CLOSE}"
    found = ByModel(stubborn(script), GenerationParams())(ITEM)
    assert found.spans == found.verbatim
    assert all(quote.text in PAGE for quote in found.evidence)


def test_text_around_spans_and_the_answer_prefix_are_read() -> None:
    script = f"Well. {OPEN}It is red.{CLOSE} So.{END}It says: {OPEN}red{CLOSE}\nAnswer: red"
    found = ByFreeModel(stubborn(script), GenerationParams())(ITEM)
    assert found.answer.split() == ["It", "says:", "red", "red"]
    assert [q.text for q in found.evidence] == ["It is red.", "red"]


def test_text_marks_are_no_part_of_the_answer() -> None:
    script = "It says: <recall>It is blue.</recall> Yes."
    found = ByFreeModel(stubborn(script, Recipe()), GenerationParams())(ITEM)
    assert found.answer == "It says: It is blue. Yes."
    assert [(q.text, q.exact) for q in found.evidence] == [("It is blue.", False)]


def test_the_output_can_be_made_to_begin_with_given_words() -> None:
    llm = stubborn(f"{END}red")
    thinking = Item("1", ITEM.documents, "?!", ("red",), reasoning="Let me see. ")
    for way in (ByModel(llm, GenerationParams()), ByFreeModel(llm, GenerationParams())):
        assert way(thinking).answer == "red"
    told = [bytes(t for t in r.token_ids.tolist() if t < 256) for r in llm.backend.requests]  # type: ignore[attr-defined]  # of the stand-in
    assert all(text.endswith(b"Let me see. ") for text in told)
    assert len(told) == 2


def test_a_span_can_be_opened_for_the_model() -> None:
    llm = stubborn(f"It is red{CLOSE}{END}red")
    handed = Item("1", ITEM.documents, "?!", ("red",), reasoning="I quote: ", opens=True)
    for way in (ByModel(llm, GenerationParams()), ByFreeModel(llm, GenerationParams())):
        found = way(handed)
        assert (found.answer, found.spans, found.verbatim) == ("red", 1, 1)
        assert found.evidence[-1].text == "It is red"


@settings(max_examples=40)
@given(st.lists(st.integers(0, ByteTokenizer().vocab_size - 1), max_size=40))
def test_any_output_can_be_read(tokens: list[int]) -> None:
    class Raw(Stubborn):
        def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
            state = request.rules.start()
            for token in tokens:
                if state.mask().allows(token):
                    state.consume(token)
                    yield token

    backend = Raw("")
    llm = RecaLLM(backend.tokenizer, backend, trained_recipe(sampling={"temperature": 0.0}))
    found = ByFreeModel(llm, GenerationParams())(ITEM)
    assert found.output_tokens <= len(tokens)
    assert found.verbatim == sum(q.text in PAGE and bool(q.text) for q in found.evidence)


def test_a_span_without_an_end_is_closed_by_its_limit() -> None:
    llm = stubborn(OPEN + "x" * 400)
    found = ByFreeModel(llm, GenerationParams(max_span_tokens=5, max_spans=1))(ITEM)
    assert [q.text for q in found.evidence] == ["xxxxx"] or found.spans == 0
    with pytest.raises(ValueError, match="prior"):
        ByModel(llm, GenerationParams(prior="unheard-of"))  # type: ignore[arg-type]  # that is the point
