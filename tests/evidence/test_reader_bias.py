"""The scorer ``reader`` prefers, and never forbids: places, ends, and answers of one quote."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recallm_core import Document, GenerationParams, RecaLLM
from recallm_core.decoding.constraint import Constraint, Effect, Prior, SpanBias
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.errors import ConstraintError
from recallm_core.evidence.protocol import Evidence, Recall
from recallm_core.evidence.reader_bias import ReaderScorer
from recallm_core.evidence.registry import scorer_factory
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import Recipe, prompted_recipe, trained_recipe
from recallm_core.testing import ByteTokenizer, ScriptedBackend, random_walk

PAGE = (
    "# Ferry\n\nThe ferry to Skerry leaves at 9:30. It takes two hours. Ann Lee runs the harbour."
)
TEXTS = st.lists(
    st.sampled_from([PAGE, "The ferry leaves.", "x", "é 日本 1,5", "a\nb\n\nc", "the the the"]),
    min_size=1,
    max_size=3,
)


def prepared(texts: list[str], question: str = "When does the ferry leave?", **options) -> Prompt:
    backend = ScriptedBackend(tokenizer=ByteTokenizer(["ferry ", " the", "Lee"]))
    recipe = trained_recipe(system="{open}{close}", think_open="<think>", think_close="</think>")
    llm = RecaLLM(backend.tokenizer, backend, recipe)
    documents = [Document(text, str(n)) for n, text in enumerate(texts)]
    return llm.prepare([{"role": "user", "content": question}], documents, **options)[0]


def said(prompt: Prompt) -> Evidence:
    assert prompt.evidence is not None
    return prompt.evidence


@settings(max_examples=25, deadline=None)
@given(TEXTS, st.integers(0, 2**32), st.sampled_from(["words", "quote"]))
def test_the_tilt_changes_no_allowed_set(texts: list[str], seed: int, form: str) -> None:
    plain = prepared(texts, answer_form=form)
    tilted = prepared(texts, answer_form=form, prior="reader")
    assert plain.token_ids.tolist() == tilted.token_ids.tolist()
    ours = tilted.rules.start(said(tilted).bias)
    theirs = plain.rules.start()
    for token in islice(random_walk(theirs, random.Random(seed), marks=0.4), 60):
        ours.consume(token)
        mine, other = ours.mask(), theirs.mask()
        for a, b in ((mine.only, other.only), (mine.forbid, other.forbid)):
            assert (a is None) == (b is None)
            assert a is None or b is None or sorted(a.tolist()) == sorted(b.tolist())
        assert mine.bias is None or np.isfinite(mine.bias).all()
        assert mine.bias is None or len(mine.bias) == len(mine.only)


def at(prompt: Prompt, text: str, *, end: bool = False) -> int:
    run = prompt.runs[0]
    place = prompt.passages[0].text.index(text) + (len(text) if end else 0)
    places = np.flatnonzero((run.ends if end else run.starts) == place)
    return int(places[-1 if end else 0])  # a character may take several tokens


def favourite(prompt: Prompt, bias: SpanBias) -> int:
    return int(np.where(prompt.spec.can_start, bias.start_scores, -np.inf).argmax())


def walk(prompt: Prompt, prior: Prior, choose: str) -> Constraint:
    """Opens a span and copies a text."""
    constraint = prompt.rules.start(prior)
    constraint.consume(prompt.spec.open.ids[0])
    copy(prompt, constraint, choose)
    return constraint


def copy(prompt: Prompt, constraint: Constraint, text: str) -> None:
    first, last = at(prompt, text), at(prompt, text, end=True)
    for token in prompt.token_ids[prompt.runs[0].first :][first : last + 1].tolist():
        constraint.consume(token)


def test_quotes_start_and_end_where_the_reader_says() -> None:
    prompt = prepared([PAGE], prior="reader")
    prior = said(prompt).bias
    thinking = prior("thinking", ())
    sentence = "The ferry to Skerry leaves at 9:30."
    assert favourite(prompt, thinking) == at(prompt, sentence)
    assert thinking.end_log_odds is not None
    assert (
        thinking.end_log_odds[at(prompt, sentence, end=True)]
        > 0
        > thinking.end_log_odds[at(prompt, "leaves", end=True)]
    )
    constraint = walk(prompt, prior, sentence)
    assert constraint.consume(prompt.spec.close.ids[0]) is Effect.CLOSED
    answer = prior("answer", constraint.spans)
    assert favourite(prompt, answer) == at(prompt, "9:30")
    assert answer.end_log_odds is not None
    assert answer.end_log_odds[at(prompt, "9:30", end=True)] > 0


CHINESE = (
    "图书馆每天早上九点开门，晚上八点关门。会员费为 240 欧元，每年三月支付。船只必须在十月前付款。"
)


def test_in_a_script_without_spaces_quotes_are_sentences_and_answers_are_phrases() -> None:
    prompt = prepared([CHINESE], "会员费每年什么时候支付？", prior="reader")
    prior = said(prompt).bias
    sentence = "会员费为 240 欧元，每年三月支付。"
    thinking = prior("thinking", ())
    assert favourite(prompt, thinking) == at(prompt, sentence)
    amid = thinking.start_scores[at(prompt, "员费")]
    assert amid < thinking.start_scores[at(prompt, "每年三月")] - 20
    constraint = walk(prompt, prior, sentence)
    assert constraint.consume(prompt.spec.close.ids[0]) is Effect.CLOSED
    answer = prior("answer", constraint.spans)
    for phrase in ("会员费为", "240", "欧元", "每年三月支付"):
        assert answer.start_scores[at(prompt, phrase)] == answer.start_scores.max()
        assert answer.end_log_odds[at(prompt, phrase, end=True)] >= 0
    for part in ("员费", "三月", "月支"):
        assert answer.start_scores[at(prompt, part)] < answer.start_scores.max() - 20
        assert answer.end_log_odds[at(prompt, part, end=True)] < -20


def test_a_sentence_that_is_too_long_is_cut_between_phrases() -> None:
    prompt = prepared([CHINESE], boundary="sentence")
    hard = prompt.spec.can_end_hard
    ends = prompt.runs[0].ends
    text = prompt.passages[0].text
    cut = {text[end - 1 : end + 1] for end in ends[hard].tolist()}
    assert {"门，", "，晚", "为 ", "0 "} <= cut
    assert not {"图书", "员费", "三月"} & cut


def test_closing_is_tilted_where_it_is_legal() -> None:
    prompt = prepared([PAGE], prior="reader")
    constraint = walk(prompt, said(prompt).bias, "The ferry to Skerry leaves at 9:30.")
    mask = constraint.mask()
    assert mask.only is not None
    assert mask.bias is not None
    closing = mask.only.tolist().index(prompt.spec.close.ids[0])
    assert mask.bias[closing] > 0
    bare = prepared([PAGE], prior="none")
    again = bare.rules.start()
    again.consume(bare.spec.open.ids[0])
    copy(bare, again, "The ferry to Skerry leaves at 9:30.")
    assert again.mask().bias is None
    assert sorted(again.mask().only.tolist()) == sorted(mask.only.tolist())


HOPS = "Ann Lee runs the harbour. The ferry costs 14 euros. Ann Lee lives in Oslo. It rains."


@pytest.mark.parametrize(
    ("question", "evidence", "more"),
    [
        ("What does the ferry cost?", "The ferry costs 14 euros.", False),
        ("Where does the person who runs the harbour live?", "Ann Lee runs the harbour.", True),
    ],
)
def test_another_recall_is_favoured_where_the_answer_lies_outside(
    question: str, evidence: str, more: bool
) -> None:
    prompt = prepared([HOPS], question, prior="reader", answer_form="quote")
    constraint = walk(prompt, said(prompt).bias, evidence)
    constraint.consume(prompt.spec.close.ids[0])
    mask = constraint.mask()
    opening, ending = prompt.spec.open.ids[0], prompt.spec.think_close.ids[0]
    assert mask.only is not None
    assert mask.bias is not None
    assert sorted(mask.only.tolist()) == sorted([opening, ending])
    tilt = dict(zip(mask.only.tolist(), mask.bias.tolist(), strict=True))
    assert (tilt[opening] > 0) == more
    assert tilt[ending] == 0


def test_there_is_no_third_hop() -> None:
    prompt = prepared([HOPS], prior="reader", answer_form="quote")
    prior = said(prompt).bias
    constraint = walk(prompt, prior, "Ann Lee runs the harbour.")
    constraint.consume(prompt.spec.close.ids[0])
    constraint.consume(prompt.spec.open.ids[0])
    copy(prompt, constraint, "It rains.")
    constraint.consume(prompt.spec.close.ids[0])
    assert prior("thinking", constraint.spans).open_bias < 0
    assert prior("thinking", ()).open_bias == 0


def test_a_bare_array_is_a_tilt_of_starts() -> None:
    prompt = prepared([PAGE])
    scores = np.linspace(0.0, -1.0, len(prompt.runs[0].starts))
    masks = []
    for given_ in (scores, SpanBias(scores)):
        constraint = prompt.rules.start(lambda *_, found=given_: found)
        constraint.consume(prompt.spec.open.ids[0])
        masks.append(constraint.mask())
    assert masks[0].bias is not None
    assert masks[0].bias.tolist() == masks[1].bias.tolist()


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.integers(0, 2**32), st.integers(0, 4), st.sampled_from([None, 0, 5, 40]))
def test_a_quote_form_writes_quotes_and_nothing_else(
    texts: list[str], seed: int, most: int, thinking: int | None
) -> None:
    prompt = prepared(texts, answer_form="quote", max_spans=most, max_thinking_tokens=thinking)
    spec = prompt.spec
    again = ConstraintSpec.from_json(spec.to_json())
    assert again.answer_form == "quote"
    constraint = prompt.rules.start()
    structure = {*spec.open.ids, *spec.close.ids, *spec.think_close.ids, *spec.eos}
    inside = False
    for token in islice(random_walk(constraint, random.Random(seed), marks=0.5), 400):
        assert inside or token in structure
        inside = constraint.in_span
    answers = [span for span in constraint.spans if span.section == "answer"]
    assert len(answers) <= 1
    assert len(constraint.spans) <= most
    if constraint.done and most and prompt.rules.index.copyable:
        assert len(answers) == 1


def test_a_prompted_model_answers_in_words_only() -> None:
    backend = ScriptedBackend()
    llm = RecaLLM(backend.tokenizer, backend, Recipe(system="{open}{close}"))
    with pytest.raises(ConstraintError, match="control tokens"):
        llm.prepare([{"role": "user", "content": "q"}], [Document("x")], answer_form="quote")


def test_where_no_quote_may_be_the_answer_it_is_words() -> None:
    for options in ({"recall_in": "thinking"}, {"recall_in": "none"}):
        assert prepared(["x"], answer_form="quote", **options).spec.answer_form == "words"
    with pytest.raises(ValueError, match="answer_form"):
        GenerationParams(answer_form="poem")


def test_only_the_likeliest_windows_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    text = "".join(f"Line {n} says that the number is {n * n}.\n" for n in range(900))
    text += "The ferry leaves at 9:30.\n" + text
    prompt = prepared([text], prior="none")
    from recallm_core.evidence.reader import default_reader
    from recallm_core.evidence.sentence_scorer import SentenceScorer
    from recallm_core.retrieval.embedding import default_embedder

    reader = default_reader()
    whole = reader.read

    def counted(question, windows, titles, recalled=()):
        read.append(len(windows))
        return whole(question, windows, titles, recalled)

    monkeypatch.setattr(reader, "read", counted)
    scorer = ReaderScorer(
        SentenceScorer([text], [None], default_embedder()), reader, [text], [None]
    )
    scores = scorer.scores("When does the ferry leave?")
    assert prompt.passages[0].text == text
    assert int(scores.argmax()) == 900
    scorer.scores("When does the ferry leave?")
    assert read == [12]  # read once, and not all of it
    recalled = ["The ferry leaves at 9:30."]
    scorer.scores("When does the ferry leave?", recalled)
    scorer.readings("When does the ferry leave?", recalled)
    assert len(read) == 2
    assert read[1] in (6, 7)  # the likeliest then, and the one that was recalled from
    windows = scorer.readings("When does the ferry leave?", recalled)
    place = text.index(recalled[0])
    assert any(w.window.starts[0] <= place < w.window.ends[-1] for w in windows)


def test_owed_quotes_are_no_hops_to_an_answer() -> None:
    """The reader, told of sentences that it chose itself, must not take the next for an answer."""
    question = "Who won the chess championship?"
    places = said(prepared([HOPS], question, prior="reader"))._places
    scorer = scorer_factory("reader")(places.passages)
    quotes = [Recall(0, "Ann Lee runs the harbour."), Recall(0, "Ann Lee lives in Oslo.")]
    owed = scorer(question, places, 3)
    assert owed.fit(quotes) == owed.fit([]) == scorer(question, places, None).fit([])
    hops = scorer("Where does the person who runs the harbour live?", places, None)
    assert hops.fit(quotes) != hops.fit([])


def prompt_of(text: str, policy: str, question: str, **options) -> Prompt:
    backend = ScriptedBackend(tokenizer=ByteTokenizer())
    llm = RecaLLM(backend.tokenizer, backend, prompted_recipe(evidence=policy))
    asked = [{"role": "user", "content": question}]
    return llm.prepare(asked, [Document(text, "1")], **options)[0]


def quotes_by_tilt(prompt: Prompt) -> list[str]:
    """What a model without a will of its own quotes: the likeliest place, and on to its end."""
    constraint, rules = prompt.rules.start(said(prompt).bias), prompt.spec.evidence
    assert rules is not None
    while constraint.section == "evidence":
        mask = constraint.mask()
        assert mask.only is not None
        wanted = [prompt.spec.close.ids[0], *rules.lead_in[:1]]
        scores = np.isin(mask.only, wanted) + (0.0 if mask.bias is None else mask.bias)
        constraint.consume(int(mask.only[scores.argmax()]))
    ranges = prompt.recalled(constraint.spans)
    return [prompt.passages[passage].text[start:end] for passage, start, end in ranges]


@given(st.integers(16, 2000), st.tuples(*[st.integers(1, 40)] * 3))
@example(256, (8, 10, 8))
@settings(max_examples=8, deadline=None)
def test_the_likeliest_is_quoted_however_little_room_there_is(
    tokens: int, sizes: tuple[int, int, int]
) -> None:
    """It is quoted last, so the others must never use its room up."""
    words = ("El puente es gris", "El ferry sale a las nueve", "La ciudad de Bern es bonita")
    first, likeliest, last = (
        f"{text}{', y lejos' * size}." for text, size in zip(words, sizes, strict=True)
    )
    question = "¿A qué hora sale el ferry?"
    prompt = prompt_of(f"{first} {likeliest} {last}", "first", question, max_new_tokens=tokens)
    quotes = quotes_by_tilt(prompt)
    assert likeliest.startswith(quotes[-1])
    room = prompt.places.room
    assert len(quotes) == 1 or room is None or sum(map(len, quotes)) <= room


def test_where_one_quote_is_owed_the_likeliest_is_preferred() -> None:
    """The policy ``required`` forces one quote, and no better one follows."""
    text = "El puente es gris. El ferry sale a las nueve. La ciudad de Bern es bonita."
    prompt = prompt_of(text, "required", "¿A qué hora sale el ferry?")
    bias = said(prompt).bias("answer", ())
    assert favourite(prompt, bias) == at(prompt, "El ferry")
    assert said(prompt).due == 1
