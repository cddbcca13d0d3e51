"""Words that go round in circles end; whatever else repeats itself, and every quote, stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import Answer, Document, RecaLLM
from recallm_core.answers.text_flow import TextFlow
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.testing import ScriptedBackend
from recallm_core.testing.tokenizer import CONTROL

FEE = "The fee is paid by all the members."
CHINESE = "会员费每年三月支付。"


def read(text: str, sizes: tuple[int, ...]) -> tuple[str, bool]:
    flow, out, at, turn = TextFlow(ends_loops=True), "", 0, 0
    while at < len(text) and not flow.stopped:
        size = sizes[turn % len(sizes)]
        out += flow.text(text[at : at + size])
        at, turn = at + size, turn + 1
    return out + flow.end(), flow.looped


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple)


@given(
    st.sampled_from(["", "It is so. ", "So the fee is paid by all the members. ", "x"]),
    st.sampled_from([f"{FEE} ", f"{FEE}\n\n", "and the server is built so, ", CHINESE]),
    st.integers(4, 60),
    SIZES,
)
def test_a_sentence_is_said_three_times_at_most(
    head: str, turn: str, times: int, sizes: tuple[int, ...]
) -> None:
    out, looped = read(head + turn * times, sizes)
    assert looped
    assert out.count(turn.strip()) <= 3
    assert (head + turn * times).startswith(out)
    assert out.startswith((head + turn).rstrip())


WORDS = st.sampled_from(["the fee", "240", "-", "| ", "\n", "is paid. ", "ha ", "0, ", "会", " "])


@given(st.lists(WORDS, max_size=60).map("".join), SIZES)
def test_pieces_make_no_difference(text: str, sizes: tuple[int, ...]) -> None:
    assert read(text, sizes) == read(text, (1,)) == read(text, (10_000,))


@pytest.mark.parametrize(
    "text",
    [
        f"{FEE} {FEE} But no.",
        "-" * 900,
        "| - | - |\n" * 60,
        "ha " * 40 + "and so on.",
        "1. The fee.\n2. The fee.\n3. The fee.\n4. The fee.",
        "It ends. It ends. It ends. So it does.",
        f"{CHINESE}{CHINESE}是的。",
    ],
)
def test_what_repeats_itself_and_is_no_loop_stays(text: str) -> None:
    assert read(text, (5,)) == (text.rstrip(), False)


@pytest.mark.parametrize("drone", ["the ", "no no, ", "a" * 40])
def test_a_few_words_without_end_are_a_loop_too(drone: str) -> None:
    out, looped = read(drone * 300, (3,))
    assert looped
    assert len(out) < 500


OPEN, CLOSE = CONTROL[:2]


def answered(script: str, **settings: Any) -> Answer:
    backend = ScriptedBackend(script)
    recipe = trained_recipe(system="{open}{close}", think_open="<think>", think_close="</think>")
    llm = RecaLLM(backend.tokenizer, backend, recipe)
    asked = [{"role": "user", "content": "Who pays?"}]
    return llm.chat(asked, [Document(f"{FEE} " * 9, "d")], **settings)


def test_an_answer_that_goes_round_in_circles_ends_and_its_quotes_stay() -> None:
    quote = f"{FEE} " * 8
    script = f"{OPEN}{FEE}{CLOSE}</think>{FEE} {OPEN}{quote.strip()}{CLOSE} " + f"{FEE} " * 40
    answer = answered(script, max_new_tokens=4000, max_span_tokens=1000)
    assert answer.finish_reason == "length"
    assert answer.trace.spans[-1].text == quote.strip()  # copied, so no loop of words
    assert answer.text.count(FEE) == 1 + 8 + 2
    assert answered(script.replace(f"{FEE} " * 40, FEE)).finish_reason == "stop"


def test_json_is_left_to_its_schema() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "minItems": 5, "maxItems": 5}
    script = "</think>" + json.dumps([FEE] * 5)
    answer = answered(script, response_schema=schema, evidence="free")
    assert json.loads(answer.text) == [FEE] * 5
