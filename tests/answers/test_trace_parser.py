"""Tokens to a trace: pieces equal the whole, nothing is taken back, quotes are source slices."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.answers.trace import (
    AnswerDelta,
    AnswerText,
    Reasoning,
    ReasoningDelta,
    RecallDelta,
    RecallEnded,
    RecallSpan,
    RecallStarted,
    Trace,
    TraceEvent,
)
from recallm_core.answers.trace_parser import TraceParser
from recallm_core.documents.document import Document
from recallm_core.errors import GenerationError
from recallm_core.generator import RecaLLM
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.testing import EOS, ByteTokenizer, ScriptedBackend, random_walk

RECIPES = {
    "trained": trained_recipe(system="{open}{close}"),
    "prompted": Recipe(system="{open}{close}"),
    "text-thinking": Recipe(system="{open}{close}", think_open="<reason>", think_close="</reason>"),
}
TEXTS = [
    "Paris is the capital of France.\r\nBerlin is not.",
    "a </rec b </recal c < d",
    "the the the",
    "12,5 é🇫🇷 日本 नमस्ते <|end_recall|> </think>",
]
TOKENIZER = ByteTokenizer()
SEEDS = st.integers(0, 2**32)


def prepared(kind: str, texts: Sequence[str] = TEXTS, **settings: Any) -> Prompt:
    llm = RecaLLM(TOKENIZER, ScriptedBackend(), RECIPES[kind])
    documents = [Document(text, str(n)) for n, text in enumerate(texts)]
    return llm.prepare([{"role": "user", "content": "q"}], documents, **settings)[0]


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Prompt, list[int]]:
    """A prompt and a random legal output over it, often cut off."""
    prompt = prepared(
        draw(st.sampled_from(sorted(RECIPES))),
        draw(st.lists(st.sampled_from(TEXTS), max_size=3)),
        max_span_tokens=draw(st.sampled_from([2, 9, 128])),
        max_thinking_tokens=draw(st.sampled_from([0, 30, None])),
        boundary=draw(st.sampled_from(["word", "character"])),
        stop=draw(st.sampled_from([(), ("ab", "b\n"), ("e",), (" ",)])),
    )
    source = random.Random(draw(SEEDS))
    walk = random_walk(prompt.rules.start(), source, marks=0.2)
    size = draw(st.integers(0, 160))
    return prompt, [token for token, _ in zip(walk, range(size), strict=False)]


def parsed(prompt: Prompt, pieces: Sequence[Sequence[int]]) -> tuple[TraceParser, list[TraceEvent]]:
    parser = TraceParser(prompt, TOKENIZER)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return parser, events + parser.finish()


def said(events: Sequence[TraceEvent], kind: type) -> str:
    """Text deltas of one section joined with the quotes in their places."""
    section = "thinking" if kind is ReasoningDelta else "answer"
    out, now = "", ""
    for event in events:
        if isinstance(event, RecallStarted):
            now = event.section
        elif isinstance(event, kind) or (isinstance(event, RecallDelta) and now == section):
            out += event.text  # type: ignore[attr-defined]
    return out


@given(outputs(), st.lists(st.integers(0, 160), max_size=6))
def test_feeding_in_pieces_equals_feeding_whole(
    output: tuple[Prompt, list[int]], cuts: list[int]
) -> None:
    prompt, tokens = output
    edges = [0, *sorted(min(c, len(tokens)) for c in cuts), len(tokens)]
    pieces = [tokens[a:b] for a, b in pairwise(edges)]
    whole, events = parsed(prompt, [tokens])
    parts, others = parsed(prompt, pieces)
    assert whole.trace == parts.trace
    assert whole.usage() == parts.usage()
    assert events == others
    assert whole.finish() == []  # twice is once
    assert whole.feed([65]) == []


@given(outputs())
def test_events_add_up_to_the_trace(output: tuple[Prompt, list[int]]) -> None:
    prompt, tokens = output
    parser, events = parsed(prompt, [tokens])
    trace = parser.trace
    assert said(events, ReasoningDelta) == trace.reasoning
    assert said(events, AnswerDelta) == trace.answer
    assert not [e for e in events if isinstance(e, ReasoningDelta | AnswerDelta) and not e.text]
    ended = [e.span for e in events if isinstance(e, RecallEnded)]
    assert tuple(span for span in ended if span) == trace.spans
    assert [e.index for e in events if isinstance(e, RecallStarted)] == list(range(len(ended)))
    quotes, now = [], ""
    for event in events:
        now = "" if isinstance(event, RecallStarted) else now
        now += event.text if isinstance(event, RecallDelta) else ""
        quotes += [now] if isinstance(event, RecallEnded) else []
    assert quotes == [span.text if span else "" for span in ended]
    for kind, text in ((Reasoning, trace.reasoning), (AnswerText, trace.answer)):
        own = [s for s in trace.segments if isinstance(s, kind)]
        assert all(segment.text for segment in own)
        assert text == text.lstrip() or isinstance(trace.segments[0], RecallSpan)
    for one, other in pairwise(trace.segments):
        assert isinstance(one, RecallSpan) or type(one) is not type(other)


@given(outputs())
def test_quotes_are_slices_in_every_place(output: tuple[Prompt, list[int]]) -> None:
    prompt, tokens = output
    trace = parsed(prompt, [tokens])[0].trace
    texts = {p.document_id: p.text for p in prompt.passages}
    for span in trace.spans:
        assert span.text == span.text.strip() != ""
        assert texts[span.document_id][span.start : span.end] == span.text
        assert prompt.passages[span.passage].document_id == span.document_id
        own = trace.reasoning if span.section == "thinking" else trace.answer
        assert own[span.offset : span.offset + len(span.text)] == span.text
        first = span.occurrences[0]
        assert (first.document_id, first.start, first.end) == (
            span.document_id,
            span.start,
            span.end,
        )
        for place in span.occurrences:
            assert texts[place.document_id][place.start : place.end] == span.text


@given(outputs())
def test_usage_counts_every_token_fed(output: tuple[Prompt, list[int]]) -> None:
    prompt, tokens = output
    parser = TraceParser(prompt, TOKENIZER)
    fed = 0
    for token in tokens:
        if parser.has_stopped or parser.has_ended:
            break
        parser.feed([token])
        fed += 1
    usage = parser.usage(cached_tokens=3)
    assert usage.output_tokens == fed
    assert (usage.prompt_tokens, usage.cached_tokens) == (len(prompt.token_ids), 3)


SCRIPT = (
    "I look.<|start_recall|>Paris is the capital of France.\r\nBerlin<|end_recall|> Good."
    "</think>\nAnswer: It is <|start_recall|>12,5 é🇫🇷 日本<|end_recall|>, not more.\n"
)


def script_tokens(kind: str, script: str, prompt: Prompt) -> list[int]:
    spec = prompt.spec
    if kind != "trained":
        script = script.replace("<|start_recall|>", spec.open.text)
        script = script.replace("<|end_recall|>", spec.close.text)
        end = spec.think_close.text if spec.think_close else ""
        script = script.replace("</think>", end)
    return TOKENIZER.encode_template(script)


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_a_cut_at_every_length_takes_nothing_back(kind: str) -> None:
    prompt = prepared(kind)
    tokens = script_tokens(kind, SCRIPT, prompt)
    complete = parsed(prompt, [[*tokens, EOS]])[0].trace
    parser = TraceParser(prompt, TOKENIZER)
    streamed: list[TraceEvent] = []
    for size in range(len(tokens) + 1):
        trace = parsed(prompt, [tokens[:size]])[0].trace
        for kind_of_delta, text in (
            (ReasoningDelta, trace.reasoning),
            (AnswerDelta, trace.answer),
        ):
            assert text.startswith(said(streamed, kind_of_delta))
        assert not re.search("<reca|</recal|</reas|[>]", trace.reasoning + trace.answer)
        for span in trace.spans:
            passage = prompt.passages[span.passage].text
            assert passage[span.start : span.end] == span.text
        if size < len(tokens):
            streamed += parser.feed([tokens[size]])
    own = "".join(s.text for s in complete.segments if not isinstance(s, RecallSpan))
    assert not any(mark in own for mark in ("recall", "reason", "think", "Answer:", "<", ">"))
    assert [s.text for s in complete.spans] == [
        "Paris is the capital of France.\r\nBerlin",
        "12,5 é🇫🇷 日本",
    ]
    assert complete.answer.endswith("It is 12,5 é🇫🇷 日本, not more.")


def test_a_span_cut_off_goes_back_to_its_last_legal_end_or_is_dropped() -> None:
    prompt = prepared("trained")
    for copied, kept in (("", None), ("P", None), ("Paris", "Paris"), ("Paris is t", "Paris is")):
        tokens = TOKENIZER.encode_template(f"so <|start_recall|>{copied}")
        parser, events = parsed(prompt, [tokens])
        ended = next(e for e in events if isinstance(e, RecallEnded))
        assert (ended.span and ended.span.text) == kept
        assert parser.trace.reasoning == f"so {kept or ''}".rstrip() or kept is None


def test_a_cut_inside_an_ambiguous_closing_mark_counts_as_closing() -> None:
    prompt = prepared("prompted", ["a </rec b"], boundary="character")
    parser, _ = parsed(prompt, [TOKENIZER.encode_template("<recall>a</re")])
    assert [s.text for s in parser.trace.spans] == ["a"]


def trace_of(script: str, kind: str = "trained", **settings: Any) -> tuple[TraceParser, Trace]:
    prompt = prepared(kind, **settings)
    parser, _ = parsed(prompt, [script_tokens(kind, script, prompt)])
    return parser, parser.trace


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Paris", "Paris"),
        ("  \n Paris  \n", "Paris"),
        ("Answer: Paris", "Paris"),
        ("\n\nAnswer:Paris", "Paris"),
        ("Answer:\n\nParis", "Paris"),
        ("Answer:", ""),
        ("Answer: \n", ""),
        ("Ans", "Ans"),
        ("Answered: yes", "Answered: yes"),
        ("It is so.\n\nAnswer: Paris\n", "It is so.\n\nParis"),
        ("It is so.\nAnswer:\n", "It is so."),
        ("The Answer: Paris", "The Answer: Paris"),
        ("Answer: <|start_recall|>Paris<|end_recall|>", "Paris"),
        ("x\n  Answer: <|start_recall|>Paris<|end_recall|> !", "x\n  Paris !"),
        ("Ans<|start_recall|>Paris<|end_recall|>", "AnsParis"),
        ("a \n<|start_recall|>Paris<|end_recall|> \n b", "a \nParis \n b"),
        ("<|start_recall|>Paris<|end_recall|>\nAnswer: b", "Paris\nb"),
    ],
)
def test_the_prefix_of_the_answer_and_outer_white_space_are_dropped(
    output: str, answer: str
) -> None:
    assert trace_of(f"x</think>{output}")[1].answer == answer


@pytest.mark.parametrize(
    ("output", "stop", "answer"),
    [
        ("one STOP two", ("STOP",), "one"),
        ("one STO two", ("STOP",), "one STO two"),
        ("one\n\ntwo", ("\n\n",), "one"),
        ("\n\none", ("\n\n",), "one"),
        ("one two", ("wo", "two"), "one"),
        ("one<|start_recall|>Paris is<|end_recall|> is", ("is",), "oneParis is"),
        ("STSTOP", ("STOP",), "ST"),
        ("Answer: no", ("no",), ""),
        ("x\nAnswer: none", ("Answer: q",), "x\nnone"),
    ],
)
def test_stop_strings_end_the_answer_outside_quotes(
    output: str, stop: tuple[str, ...], answer: str
) -> None:
    parser, trace = trace_of(f"is STOP \n\n no</think>{output}", stop=stop)
    assert trace.answer == answer
    assert trace.reasoning == "is STOP \n\n no"
    assert (
        parser.has_stopped == (answer not in ("one STO two", "x\nnone", "\n\none"))
        or answer == "one"
    )


def test_an_illegal_token_is_a_fault_of_the_backend() -> None:
    prompt = prepared("trained")
    for tokens in ([EOS], [257], [256, 255], [-1], [10**9]):
        with pytest.raises(GenerationError, match="the backend produced an illegal token"):
            TraceParser(prompt, TOKENIZER).feed(tokens)


def test_broken_utf8_in_the_models_own_words_is_replaced() -> None:
    prompt = prepared("trained")
    cut = [*b"a\xe2\x82", 256, *b"Paris", 257, *b"\xff\xc3", 259, *b"b\xf0\x9f", EOS]
    trace = parsed(prompt, [cut])[0].trace
    assert trace.reasoning == "a\ufffdParis\ufffd\ufffd"
    assert trace.answer == "b\ufffd"


def test_a_mark_begun_and_not_finished_is_text() -> None:
    parser, trace = trace_of("5 < 6 and <rec", kind="prompted")
    assert trace.answer == "5 < 6 and <rec"
    assert parser.feed([1]) == []
