"""What an output owes before it may end: the policies, in examples and as properties."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recallm_core.answers.trace import AnswerDelta
from recallm_core.backends import GenerationRequest
from recallm_core.decoding.constraint import ConstraintRules
from recallm_core.decoding.evidence_policy import EvidenceRules, OwnWords, SentenceTokens
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.documents.document import Document
from recallm_core.errors import ConstraintError
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.testing import ByteTokenizer, random_llm, random_walk, scripted_llm
from recallm_core.text.lexical import sentences

TEXTS = (
    "The pier was built in 1889. It is 330 metres long.\nDr. Ada Moss paid for it.",
    "Ferries leave at ten. No dogs are allowed on board.",
    "桥建于1889年。它很长。",
)
DOCUMENTS = [Document(text, f"d{n}") for n, text in enumerate(TEXTS)]
KINDS = {
    "prompted": Recipe(),
    "thinking": Recipe(think_open="<think>", think_close="</think>"),
    "trained": trained_recipe(),
    "in marks": Recipe(lead_in='\n\nShort answer: "', lead_out='"'),
}
SCHEMA = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def answer(script: str, *, recipe: Recipe | None = None, **settings: Any) -> Any:
    tokenizer = ByteTokenizer(("Dr",))
    llm = scripted_llm(script, recipe=recipe or Recipe(), tokenizer=tokenizer)
    return llm.answer("When was the pier built?", DOCUMENTS, **settings)


def whole_sentences() -> set[tuple[str, int, int]]:
    return {(d.id, a, b) for d in DOCUMENTS for a, b in sentences(d.text)}


def test_first_puts_whole_sentences_before_the_answer_and_out_of_its_text() -> None:
    found = answer("<recall>The pier was built in 1889.</recall>In 1889.", evidence="first")
    assert found.text == "In 1889."
    assert [(s.section, s.text) for s in found.trace.spans] == [
        ("evidence", "The pier was built in 1889.")
    ]
    (citation,) = found.citations
    assert (citation.document_id, citation.start, citation.end) == ("d0", 0, 27)
    assert found.text[citation.answer_start : citation.answer_end] == "In 1889"
    assert not found.abstained


def test_first_forces_evidence_that_the_model_did_not_open() -> None:
    found = answer("In 1889.", evidence="first")
    assert found.text == "In 1889."
    assert [span.section for span in found.trace.spans] == ["evidence"]
    (span,) = found.trace.spans
    assert (span.document_id, span.start, span.end) in whole_sentences()


def test_the_mark_that_the_lead_in_opens_ends_the_answer() -> None:
    script = '<recall>The pier was built in 1889.</recall>In 1889" is what they say.'
    plain = answer(script, evidence="first")
    assert plain.text == 'In 1889" is what they say.'
    marked = answer(script, recipe=KINDS["in marks"], evidence="first")
    assert (marked.text, marked.finish_reason) == ("In 1889", "stop")
    (citation,) = marked.citations
    assert marked.text[citation.answer_start : citation.answer_end] == "In 1889"
    assert marked.usage.answer_tokens < plain.usage.answer_tokens


@pytest.mark.parametrize("script", ['"', ' "', '""', '"In 1889"'])
def test_the_mark_can_not_end_an_answer_before_its_words(script: str) -> None:
    marked = answer(script, recipe=KINDS["in marks"], evidence="first")
    assert marked.text.strip('" ')


def test_a_streamed_answer_ends_at_the_mark_too() -> None:
    script = '<recall>The pier was built in 1889.</recall>The pier "West" dates from 1889" or so'
    llm = scripted_llm(script, recipe=KINDS["in marks"])
    events = list(llm.stream("When was the pier built?", DOCUMENTS, evidence="first"))
    streamed = "".join(event.text for event in events if isinstance(event, AnswerDelta))
    assert streamed == events[-1].answer.text == 'The pier "West" dates from 1889'


def test_inches_that_the_evidence_holds_do_not_end_an_answer() -> None:
    page = Document('The trio pressed a 12" record in 1984.', "trio")
    script = '<recall>The trio pressed a 12" record in 1984.</recall>A 12" record of 1984" or so'
    llm = scripted_llm(script, recipe=KINDS["in marks"])
    with llm.stream("What did they press?", [page], evidence="first") as stream:
        streamed = "".join(event.text for event in stream if isinstance(event, AnswerDelta))
        assert streamed == stream.result().text == 'A 12" record of 1984'


@pytest.mark.parametrize("policy", ["required", "free"])
def test_where_no_lead_in_stands_a_mark_ends_nothing(policy: str) -> None:
    script = 'In "1889" <recall>The pier was built in 1889.</recall> or "later".'
    marked = answer(script, recipe=KINDS["in marks"], evidence=policy)
    assert marked.text == answer(script, evidence=policy).text
    assert '"later"' in marked.text


@pytest.mark.parametrize(
    "imitation", ["<recall >", "</recall >", "<recall", '</recall"', "<recall <"]
)
def test_words_end_where_a_mark_is_imitated(imitation: str) -> None:
    quote = "<recall>The pier was built in 1889.</recall>"
    said = answer(f"{quote}In 1889.{imitation}The pier was built.", evidence="first")
    assert said.text == "In 1889."
    first = answer(f"{quote}{imitation}In 1889.", evidence="first")
    assert not first.text.startswith("<")
    assert "recall" in answer(f"{quote}What you recall < 9.", evidence="first").text


def test_json_has_marks_of_its_own() -> None:
    script = '<recall>The pier was built in 1889.</recall>{"year": 1889}'
    llm = scripted_llm(script, recipe=KINDS["in marks"])
    asked = [{"role": "user", "content": "When was the pier built?"}]
    found = llm.chat(asked, DOCUMENTS, response_schema=SCHEMA)
    assert found.text.replace(" ", "") == '{"year":1889}'


def test_first_has_words_after_its_evidence_even_where_the_model_wants_to_end() -> None:
    found = answer("<recall>Ferries leave at ten.</recall>", evidence="first")
    assert found.trace.answer.strip()
    assert found.finish_reason == "stop"


def test_a_piece_of_evidence_is_never_repeated() -> None:
    quote = "<recall>Ferries leave at ten.</recall>"
    found = answer(quote * 3 + "At ten.", evidence="first")
    places = [(s.document_id, s.start) for s in found.trace.spans]
    assert len(places) == len(set(places)) <= 3


def test_required_opens_a_quote_at_the_end_of_a_sentence() -> None:
    found = answer("It was built in 1889.", evidence="required", boundary="sentence")
    assert [span.section for span in found.trace.spans] == ["answer"]
    (span,) = found.trace.spans
    assert found.text.startswith("It was built in 1889. ")
    assert span.offset == len("It was built in 1889. ")
    assert found.text[span.offset :].startswith(span.text)


@pytest.mark.parametrize(
    "script",
    ["It is 3.5 metres high. So.", "Dr. Moss paid. So.", "J. Moss paid. So.", "One\nTwo."],
)
def test_required_waits_for_the_end_of_the_sentence(script: str) -> None:
    found = answer(script, evidence="required")
    (span,) = found.trace.spans
    first = script[: script.index("\n")] if "\n" in script else script[: script.rindex(" ")]
    assert found.text[: span.offset].rstrip() == first


def test_required_owes_nothing_where_the_documents_do_not_say() -> None:
    found = answer("The documents don't say.", evidence="required")
    assert found.abstained
    assert found.trace.spans == ()


def test_a_quote_of_the_models_own_is_enough() -> None:
    found = answer("Built in <recall>1889</recall>. Long ago. Indeed.", evidence="required")
    assert [span.text for span in found.trace.spans] == ["1889"]


def test_free_forces_nothing() -> None:
    found = answer("In 1889.", evidence="free", abstain_policy="said")
    assert found.text == "In 1889."
    assert found.trace.spans == ()


@pytest.mark.parametrize("kind", KINDS)
def test_auto_is_the_choice_of_the_recipe(kind: str) -> None:
    llm = scripted_llm(recipe=KINDS[kind])
    prompt, _ = llm.prepare([{"role": "user", "content": "q"}], DOCUMENTS, evidence="auto")
    assert prompt.params.evidence == ("free" if kind == "trained" else "required")
    first, _ = llm.prepare([{"role": "user", "content": "q"}], DOCUMENTS, evidence="first")
    assert first.spec.evidence is not None
    assert first.params.boundary == "sentence"


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({"recall_in": "none"}, "free"),
        ({"max_spans": 0}, "free"),
        ({"evidence": "required", "recall_in": "thinking"}, "first"),
    ],
)
def test_what_can_not_be_had_is_not_owed(settings: dict[str, Any], policy: str) -> None:
    llm = scripted_llm(recipe=Recipe())
    given_ = {"evidence": "first"} | settings
    prompt, _ = llm.prepare([{"role": "user", "content": "q"}], DOCUMENTS, **given_)
    assert prompt.params.evidence == policy


def test_without_documents_nothing_is_owed() -> None:
    llm = scripted_llm(recipe=Recipe())
    prompt, _ = llm.prepare([{"role": "user", "content": "q"}], evidence="first")
    assert prompt.spec.evidence is None


def test_a_schema_gets_its_evidence_first_and_a_tool_call_needs_none() -> None:
    llm = scripted_llm(
        '<recall>The pier was built in 1889.</recall>{"year": 1889}', recipe=Recipe()
    )
    asked = [{"role": "user", "content": "When was the pier built?"}]
    found = llm.chat(asked, DOCUMENTS, response_schema=SCHEMA, evidence="required")
    assert found.text.replace(" ", "") == '{"year":1889}'
    assert [span.section for span in found.trace.spans] == ["evidence"]
    call = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    llm = scripted_llm(call, recipe=Recipe())
    found = llm.chat(asked, DOCUMENTS, tools=[TOOL], evidence="first")
    assert [each.name for each in found.tool_calls] == ["look"]
    assert found.trace.spans == ()


@given(
    kind=st.sampled_from(sorted(KINDS)),
    policy=st.sampled_from(["first", "required"]),
    boundary=st.sampled_from(["sentence", "word"]),
    seed=st.integers(0, 2**32),
)
@example(kind="trained", policy="first", boundary="word", seed=430679)
def test_whatever_is_said_the_answer_is_cited(
    kind: str, policy: str, boundary: str, seed: int
) -> None:
    llm = random_llm(seed, recipe=KINDS[kind], marks=0.3)
    settings: dict[str, Any] = {"evidence": policy, "boundary": boundary, "max_new_tokens": 4000}
    found = llm.answer("When?", DOCUMENTS, **settings)
    if found.finish_reason == "length":
        return
    texts = {d.id: d.text for d in DOCUMENTS}
    spans = found.trace.spans
    assert spans
    for citation in found.citations:
        assert texts[citation.document_id][citation.start : citation.end] == citation.text
    if boundary == "sentence":
        edges = whole_sentences()
        begins = {(d, a) for d, a, _ in edges}
        assert {(s.document_id, s.start) for s in spans} <= begins
    if policy == "first":
        evidence = [s for s in spans if s.section == "evidence"]
        assert evidence
        assert all(s.section != "answer" for s in spans)
        assert found.trace.answer.strip()
        # part of a quote may come again from another document: it is then placed inside the first
        taken = [(s.document_id, s.start, s.end) for s in evidence]
        assert len(taken) == len(set(taken))


@given(
    kind=st.sampled_from(sorted(KINDS)),
    policy=st.sampled_from(["first", "required"]),
    seed=st.integers(0, 2**32),
)
def test_the_rules_travel_with_the_spec(kind: str, policy: str, seed: int) -> None:
    llm = scripted_llm(recipe=KINDS[kind])
    asked = [{"role": "user", "content": "q"}]
    prompt, _ = llm.prepare(asked, DOCUMENTS, evidence=policy, max_new_tokens=200)
    there = ConstraintSpec.from_json(prompt.spec.to_json())
    assert there.evidence == prompt.spec.evidence
    far = ConstraintRules.from_spec(there, prompt.token_ids).start()
    near = prompt.rules.start()
    walker = random_walk(prompt.rules.start(), random.Random(seed), marks=0.3)
    for _, token in zip(range(60), walker, strict=False):
        size = prompt.spec.vocab_size
        assert [near.mask().allows(t) for t in range(size)] == [
            far.mask().allows(t) for t in range(size)
        ]
        near.consume(token)
        far.consume(token)


def test_every_token_may_be_taken_back() -> None:
    llm = scripted_llm(recipe=Recipe())
    prompt, _ = llm.prepare([{"role": "user", "content": "q"}], DOCUMENTS, evidence="first")
    walker = random_walk(prompt.rules.start(), random.Random(3), marks=0.3)
    tokens = [token for _, token in zip(range(120), walker, strict=False)]
    state = prompt.rules.start()
    seen = []
    for token in tokens:
        seen.append((state.section, state.in_span, state.mask().allows(token)))
        state.consume(token)
    for section, inside, _ in reversed(seen):
        state.rollback(1)
        assert (state.section, state.in_span) == (section, inside)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"policy": "always"}, "policy must be one of"),
        ({"lead_in": ()}, "needs a lead_in"),
        ({"least": 0}, "least must be at least 1"),
        ({"least": 5}, "most at least that"),
        ({"patience": 0}, "patience at least 1"),
        ({"abstain": ((),)}, "at least one token"),
    ],
)
def test_rules_that_can_not_be_kept_are_refused(change: dict[str, Any], part: str) -> None:
    good: dict[str, Any] = {"policy": "first", "lead_in": (1,)}
    EvidenceRules(**good)
    with pytest.raises(ConstraintError, match=part):
        EvidenceRules(**(good | change))


def test_the_tokens_of_a_vocabulary_are_sorted_by_what_they_end() -> None:
    pieces = [b".", b"!\n", b" 19", b"Dr", b" J", b"word", b" ", b"\n", None, b"\xe3\x80", b".)"]
    found = SentenceTokens.of(enumerate(pieces))
    assert found.ends == {0, 1, 7, 10}
    assert found.points == {0}
    assert found.numbers == {2}
    assert found.abbreviations == {3, 4}
    assert found.blank == {6, 7}


def test_own_words_end_a_sentence_once_there_is_one() -> None:
    sets = SentenceTokens.of((i, bytes([i])) for i in range(256))
    rules = EvidenceRules(
        "required",
        ends=sets.ends,
        points=sets.points,
        numbers=sets.numbers,
        abbreviations=sets.abbreviations,
        abstain=(tuple(b"none"),),
    )
    words = OwnWords()
    for token in b"\nhi":
        words = words.after(token, rules)
        assert not words.ended
    assert words.after(ord("."), rules).ended
    for token in b" none":
        words = words.after(token, rules)
    assert words.said


def test_the_backend_gets_what_the_prompt_says() -> None:
    llm = scripted_llm("In 1889.", recipe=Recipe())
    llm.answer("When?", DOCUMENTS, evidence="first")
    request: GenerationRequest = llm.backend.requests[0]  # type: ignore[attr-defined]
    assert request.rules.spec.evidence is not None
    assert request.rules.spec.evidence.policy == "first"
    assert isinstance(llm.tokenizer, ByteTokenizer)
