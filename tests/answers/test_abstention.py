"""Support: what measures it, on which scale, and what an answer's policy makes of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import Answer, Document, GenerationParams, RecaLLM
from recallm_core.answers.trace import AnswerDelta, RecallDelta, RecallEnded, RecallStarted
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.rendering.terminal import answer_texts
from recallm_core.testing import scripted_llm

PAGE = Document("The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros.", id="page")
SCRIPT = (
    "<|start_recall|>The ferry leaves Port Hallow at 9:30.<|end_recall|></think>"
    "<|start_recall|>9:30<|end_recall|>"
)
ASKED = "When does the ferry leave?"
UNRELATED = "Which planets did Galileo observe?"


def recipe(**fields: Any) -> Recipe:
    base = trained_recipe(system="{open}{close}", think_open="<think>", think_close="</think>")
    return Recipe.from_dict(base.to_dict() | fields)


def ask(question: str, prior: str, **fields: Any) -> Answer:
    llm: RecaLLM = scripted_llm(SCRIPT, recipe=recipe(**fields))
    return llm.answer(question, [PAGE], params=GenerationParams(prior=prior))


def test_without_a_prior_nothing_measures_support() -> None:
    answer = ask(ASKED, "none", min_support=9.0, min_answerable=1.0)
    assert answer.support is None
    assert not answer.abstained


@pytest.mark.parametrize("prior", ["sentences", "reader"])
def test_related_documents_support_more_than_unrelated_ones(prior: str) -> None:
    good, bad = ask(ASKED, prior).support, ask(UNRELATED, prior).support
    assert good is not None
    assert bad is not None
    assert good > bad
    assert prior == "sentences" or 0 <= bad < 0.05 < good <= 1


@pytest.mark.parametrize(
    ("prior", "threshold"), [("sentences", "min_support"), ("reader", "min_answerable")]
)
def test_each_prior_has_its_threshold(prior: str, threshold: str) -> None:
    other = {"min_support": "min_answerable", "min_answerable": "min_support"}[threshold]
    assert ask(UNRELATED, prior, **{threshold: 0.3}).abstained
    assert not ask(ASKED, prior, **{threshold: 0.3}).abstained
    assert not ask(UNRELATED, prior, **{other: 1.0}).abstained


def test_support_is_in_the_plain_data() -> None:
    answer = ask(ASKED, "reader")
    assert answer.to_dict()["support"] == answer.support


PHRASE = Recipe().abstain[0]
POLICIES = ("said", "unsupported", "either")


def say(script: str, *documents: Any, question: str = ASKED, **more: Any) -> Answer:
    return scripted_llm(script, recipe=recipe()).answer(question, documents or [PAGE], **more)


def test_an_abstention_can_be_taken_for_no_answer() -> None:
    answer = ask(UNRELATED, "reader", min_answerable=0.3)
    assert answer.abstained
    assert (answer.text, answer.citations) == (PHRASE, ())
    assert answer.trace.answer == "9:30"
    assert [c.text for c in answer.nearest] == ["The ferry leaves Port Hallow at 9:30."]
    assert all(c.answer_start is None for c in answer.nearest)
    assert all(PAGE.text[c.start : c.end] == c.text for c in answer.nearest)


@pytest.mark.parametrize(
    ("script", "nearest"),
    [
        ("<|start_recall|>9:30<|end_recall|></think>The documents don't say.", ["9:30"]),
        ("</think>The documents don't say.", []),
        ("</think>Whales.", []),
        ("<|start_recall|>9:30<|end_recall|></think>", ["9:30"]),
        ("</think>", []),
    ],
)
def test_what_was_recalled_is_nearest_where_nothing_would_be_cited(
    script: str, nearest: list[str]
) -> None:
    answer = say(script)
    assert answer.abstained
    assert (answer.text, answer.citations) == (PHRASE, ())
    assert [c.text for c in answer.nearest] == nearest


def test_an_answer_has_nothing_nearest() -> None:
    answer = ask(ASKED, "reader", min_answerable=0.3)
    assert not answer.abstained
    assert answer.nearest == ()
    assert answer.text == answer.trace.answer == "9:30"


def test_words_that_no_quote_supports_are_matched_before_they_count_as_none() -> None:
    answer = say("</think>A ticket costs 14 euros. Whales sing.", question="What does it cost?")
    assert not answer.abstained
    (found,) = answer.citations
    assert (found.text, found.basis) == ("A ticket costs 14 euros", "matched")
    assert answer.text[found.answer_start : found.answer_end] == "A ticket costs 14 euros."
    assert PAGE.text[found.start : found.end] == found.text
    assert answer.to_dict()["citations"][0]["basis"] == "matched"
    mixed = say("</think><|start_recall|>9:30<|end_recall|>. A ticket costs 14 euros.")
    assert [(c.text, c.basis) for c in mixed.citations] == [
        ("9:30", "recalled"),
        ("A ticket costs 14 euros", "matched"),
    ]
    for off in ({"recall_in": "none"}, {"recall_in": "none", "abstain_policy": "said"}):
        assert say("</think>A ticket costs 14 euros.", **off).citations == ()
    assert say("</think>A ticket costs 14 euros.", "").citations == ()


def test_what_is_matched_goes_before_a_quote_that_shares_no_word_with_the_answer() -> None:
    recalled = "<|start_recall|>The ferry leaves Port Hallow<|end_recall|></think>"
    answer = say(f"{recalled}A ticket costs 14 euros.")
    assert [(c.text, c.basis) for c in answer.citations] == [("A ticket costs 14 euros", "matched")]
    answer = say(f"{recalled}Whales sing.")
    assert [(c.text, c.answer_start) for c in answer.citations] == [
        ("The ferry leaves Port Hallow", None)
    ]


@pytest.mark.parametrize(
    ("script", "abstained"),
    [
        ("</think>I looked. The documents don't say.", True),
        ("</think><|start_recall|>9:30<|end_recall|>. The documents don't say.", False),
        ("</think>The documents don't say, but: <|start_recall|>9:30<|end_recall|>", True),
        ("The documents don't say.</think><|start_recall|>9:30<|end_recall|>", False),
    ],
)
def test_a_phrase_counts_before_any_quote_of_the_answer(script: str, abstained: bool) -> None:
    assert say(script).abstained is abstained


def test_a_document_s_words_of_abstention_are_none() -> None:
    page = Document("Asked for the time, he said: The documents don't say.", "d")
    for script in (
        "</think><|start_recall|>The documents don't say<|end_recall|>",
        "<|start_recall|>The documents don't say<|end_recall|></think>He said so when asked.",
    ):
        answer = say(script, page, question="What did he say?")
        assert not answer.abstained
        assert answer.citations


@pytest.mark.parametrize("policy", POLICIES)
def test_json_stays_what_the_schema_asked_for(policy: str) -> None:
    llm = scripted_llm('</think>{"time": "late"}', recipe=recipe())
    schema = {"type": "object", "properties": {"time": {"type": "string"}}, "required": ["time"]}
    asked = [{"role": "user", "content": ASKED}]
    with llm.stream_chat(asked, [PAGE], response_schema=schema, abstain_policy=policy) as stream:
        events = list(stream)
    answer = stream.result()
    assert answer.abstained is (policy != "said")
    assert answer.text == '{"time": "late"}' == shown(events)
    assert answer.citations == ()


def test_where_nothing_was_given_an_answer_owes_no_evidence() -> None:
    llm = scripted_llm("</think>Hello!", recipe=recipe())
    asked = [{"role": "user", "content": "Hi"}]
    assert not (answer := llm.chat(asked, scope="prompt")).abstained
    assert answer.text == "Hello!"
    assert llm.chat(asked, scope="prompt", documents=[PAGE]).text == PHRASE
    assert llm.chat(asked).text == PHRASE


def shown(events: list[Any]) -> str:
    """What a stream shows of the answer."""
    section, out = "thinking", ""
    for event in events:
        if isinstance(event, RecallStarted):
            section = event.section
        elif isinstance(event, AnswerDelta) or (
            isinstance(event, RecallDelta) and section == "answer"
        ):
            out += event.text
    return out


WORDS = ["The documents", " don't say.", " The", " 9:30", ". ", "A ticket costs 14 euros.", " Hm?"]
QUOTES = ["9:30", "A ticket costs 14 euros."]
PIECES = st.sampled_from([*WORDS, *(f"<|start_recall|>{q}<|end_recall|>" for q in QUOTES)])


@given(
    st.sampled_from(["", "<|start_recall|>The ferry<|end_recall|>", "hm"]),
    st.lists(PIECES, max_size=6),
    st.sampled_from(POLICIES),
    st.sampled_from([3, 12, 40, 400]),
)
def test_what_is_streamed_is_what_the_answer_says(
    thought: str, pieces: list[str], policy: str, most: int
) -> None:
    llm = scripted_llm(f"{thought}</think>{''.join(pieces)}", recipe=recipe())
    with llm.stream(ASKED, [PAGE], abstain_policy=policy, max_new_tokens=most) as stream:
        events = list(stream)
    answer = stream.result()
    if answer.abstained:
        assert (answer.text, answer.citations) == (PHRASE, ())
        said_late = PHRASE.rstrip(".") in shown(events)  # after words that were streamed
        assert shown(events) == PHRASE or said_late
    else:
        assert shown(events) == answer.text == answer.trace.answer
        assert answer.nearest == ()
    spans = [e.span for e in events if isinstance(e, RecallEnded) and e.span]
    assert answer.abstained or tuple(spans) == answer.trace.spans


@pytest.mark.parametrize(
    ("script", "held"),
    [
        ("<|start_recall|>9:30<|end_recall|></think>It leaves then.", ""),
        ("</think>At <|start_recall|>9:30<|end_recall|>.", "At"),
        ("</think>A ticket costs 14 euros. Yes, indeed so.", "A ticket costs 14 euros."),
        ("<|start_recall|>9:30<|end_recall|></think>The documents are clear.", "The documents"),
    ],
)
def test_an_answer_is_held_back_only_while_it_could_be_none(script: str, held: str) -> None:
    llm = scripted_llm(script, recipe=recipe())
    with llm.stream(ASKED, [PAGE]) as stream:
        first = next(event for event in stream if isinstance(event, AnswerDelta))
        written = stream._parser.trace.answer
    assert written.startswith(first.text)
    assert written.startswith(held)
    assert len(written) <= len(held) + 6


def test_what_does_not_fit_is_never_shown() -> None:
    llm = scripted_llm(SCRIPT, recipe=recipe(min_answerable=0.3))
    with llm.stream(UNRELATED, [PAGE], prior="reader") as stream:
        events = list(stream)
    assert shown(events) == PHRASE
    assert [e.text for e in events if isinstance(e, AnswerDelta)] == [PHRASE]


def test_every_rendering_says_so() -> None:
    answer = ask(UNRELATED, "reader", min_answerable=0.3)
    plain = answer.to_dict()
    assert (plain["abstained"], plain["text"], plain["citations"]) == (True, PHRASE, [])
    assert [each["text"] for each in plain["nearest"]] == [PAGE.text[:37]]
    lines = "\n".join(text.plain for text, _ in answer_texts(answer))
    for page in (answer.to_html(), answer.to_markdown(), lines):
        assert "hold no answer" in page
        assert "which is no answer" in page
        assert not re.search(r"\[\^?1\][^=]", page)
