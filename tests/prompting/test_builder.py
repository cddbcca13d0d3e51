"""What the model reads, and that its copies mean exactly what they seem to."""

from __future__ import annotations

import sys
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from recallm_core.decoding.constraint import Effect
from recallm_core.documents.document import Passage
from recallm_core.errors import DocumentError, TokenizerError
from recallm_core.evidence.reader import EvidenceReader
from recallm_core.evidence.registry import SCORERS, Entry
from recallm_core.evidence.sentence_bias import (
    SHARPNESS,
    WITHIN_EVIDENCE,
    WITHIN_SENTENCE,
    sentences,
)
from recallm_core.evidence.sentence_scorer import sentence_prior
from recallm_core.prompting.builder import PromptBuilder
from recallm_core.prompting.params import GenerationParams
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.retrieval.embedding import default_embedder
from recallm_core.testing import ByteTokenizer
from recallm_core.text.boundaries import grapheme_boundaries, word_boundaries
from recallm_core.tokenization.tokenizer import HFTokenizer

LOSSLESS = ("gpt2", "qwen", "llama3", "llama2", "metaspace", "gemma", "byte")
CHATTY = ("qwen", "llama3", "llama2", "gemma", "byte")
ALL = (*LOSSLESS, "unigram", "wordpiece")
QUIET = GenerationParams()

SNIPPETS = [
    "The ferry leaves at 10:30, on 2024/05/06. ", "It costs 3,000.5 crowns", "the ferry",
    "東京タワーは333メートル。", "القطار يغادر ", "हिन्दी क्षेत्र ", "ภาษาไทย",
    "\u1112\u1161\u11ab\u1100\u1173\u11af", "👩‍💻🇫🇷🇩🇪👍🏽 ",
    unicodedata.normalize("NFD", "café naïve "),
    "\r\n", "\n\n", "\t", "   ", "\x00", "�", "\u2581", "\u00a0", "ﬁ½", "\u0301", "a", "-", "0.",
    "<|start_recall|>", "<|end_recall|>", "<think>", "</think>", "<|im_start|>", "<|im_end|>",
    "<s>", "</s>", "[CLS]", "<0x0A>", "<recall>", "</recall>", "</recall2>", "RECALLMFIELD0Z",
    "{text}", "{question}", "{{ 7*7 }}", "{% raw %}", "\\1", "<start_of_turn>",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=4), max_size=7).map("".join)
LABEL = st.lists(st.sampled_from(SNIPPETS), max_size=2).map("".join)


@st.composite
def packs(draw, **options):
    texts = draw(st.lists(TEXT, max_size=4, **options))
    titles = [draw(st.none() | LABEL) for _ in texts]
    return [
        Passage(f"d{n}" + draw(LABEL), n, n + len(text), text, title)
        for n, (text, title) in enumerate(zip(texts, titles, strict=True))
    ]


@pytest.fixture(scope="session")
def builder(family):
    """Returns a prompt builder for a tokenizer's family and a recipe, made once."""
    tokenizers, builders = {"byte": ByteTokenizer()}, {}

    def get(name, recipe=None, **changes):
        if name not in tokenizers:
            tokenizers[name] = HFTokenizer(family(name))
        recipe = recipe or (Recipe(**changes) if "mode" in changes else trained_recipe(**changes))
        key = (name, repr(recipe))
        if key not in builders:
            tokenizer = tokenizers[name]
            builders[key] = PromptBuilder(tokenizer, recipe, vocab_size=tokenizer.vocab_size + 3)
        return builders[key]

    return get


def ask(question="What leaves?"):
    return [{"role": "user", "content": question}]


def spelled(tokenizer, ids):
    return b"".join(tokenizer.token_bytes(int(i)) or b"" for i in ids)


def pieces_exact(text):
    return "\u2581" not in text and "<0x" not in text


def check_map(prompt, tokenizer, lossless):
    """Every run's tokens mean the characters that they are said to stand for."""
    last = 0
    for run in prompt.runs:
        assert run.first >= last
        last = run.first + len(run.starts)
        text = prompt.passages[run.passage].text
        alone = tokenizer.encode_plain(text).ids.tolist()
        ids = prompt.token_ids[run.first : last].tolist()
        if lossless and pieces_exact(text):
            assert ids == alone
            assert spelled(tokenizer, ids) == text.encode()
            assert run.starts[0] == 0
            assert run.ends[-1] == len(text)
        else:
            assert any(alone[n : n + len(ids)] == ids for n in range(len(alone)))
    assert [r.passage for r in prompt.runs] == sorted(r.passage for r in prompt.runs)
    assert prompt.spec.runs == tuple((r.first, r.first + len(r.starts)) for r in prompt.runs)


# the map


@given(name=st.sampled_from(ALL), pack=packs(), question=TEXT)
def test_every_passage_is_mapped_exactly_and_nothing_else(builder, name, pack, question):
    made = builder(name)
    prompt = made.build(ask(question), pack, QUIET)
    check_map(prompt, made.tokenizer, name in LOSSLESS)
    assert prompt.passages == tuple(pack)
    copyable = sum(made.tokenizer.encode_plain(p.text).copyable.sum() for p in pack)
    assert sum(len(run.starts) for run in prompt.runs) == copyable
    assert prompt.question == question
    for run in prompt.runs:
        place = prompt.place(run.passage, 1, 2)
        source = pack[run.passage]
        assert (place.document_id, place.start) == (source.document_id, source.start + 1)


@given(name=st.sampled_from(ALL), pack=packs(), question=TEXT)
def test_texts_add_no_control_tokens(builder, name, pack, question):
    made = builder(name)
    blank = [Passage(p.document_id, 0, 1, "x", "x" if p.title else None) for p in pack]

    def controls(messages, passages):
        ids = made.build(messages, passages, QUIET).token_ids.tolist()
        return [i for i in ids if i in made.tokenizer.control_ids]

    history = [
        {"role": "system", "content": question},
        {"role": "user", "content": question},
        {"role": "assistant", "content": question + "</think>"},
        *ask(question),
    ]
    plain = [{"role": m["role"], "content": "x"} for m in history]
    assert controls(history, pack) == controls(plain, blank)


@given(name=st.sampled_from(LOSSLESS), pack=packs(), question=TEXT, mode=st.booleans())
def test_the_prompt_reads_as_it_was_written(builder, name, pack, question, mode):
    made = builder(name, mode="prompted") if mode else builder(name)
    texts = [t for p in pack for t in (p.title or "", p.text)] + [question]
    if not all(map(pieces_exact, texts)):
        return
    prompt = made.build(ask(question), pack, QUIET)
    read = spelled(made.tokenizer, prompt.token_ids).decode()
    said = "".join(
        f'<document index="{n}" title="{p.title or ""}">\n{p.text}\n</document>\n'
        for n, p in enumerate(pack, start=1)
    )
    assert f"{said}\nQuestion: {question}" in read or not pack
    assert f"Question: {question}" in read


DIGIT = r"\p{WB=Numeric}"
JOINER = r"[:\uFE55\uFF1A/\uFF0F\p{WB=MidNumLet}\p{WB=Single_Quote}\p{WB=MidNum}]"


def naive_in_number(text, at):
    """Whether a position lies inside a number."""
    before, after = text[max(0, at - 2) : at], text[at : at + 2]
    return bool(
        (regex.search(DIGIT + r"\Z", before) and regex.match(DIGIT, after))
        or (regex.search(DIGIT + r"\Z", before) and regex.match(JOINER + DIGIT, after))
        or (regex.search(DIGIT + JOINER + r"\Z", before) and regex.match(DIGIT, after))
    )


def naive_limits(text, tokens, boundary):
    """May a span begin, end, and end in need, with each token? One token at a time."""
    characters = grapheme_boundaries(text)
    in_number = [naive_in_number(text, at) for at in range(len(text) + 1)]
    if boundary == "word":
        words = word_boundaries(text)
        digits = [bool(regex.match(DIGIT, c)) for c in text]
        beside = [any(digits[max(0, at - 1) : at + 1]) for at in range(len(text) + 1)]
        needed = characters & (words | ~np.array(beside, dtype=bool))
    else:
        words = needed = characters & ~np.array(in_number, dtype=bool)
    assert not (needed & in_number).any()
    out = []
    for n in range(len(tokens.ids)):
        start, end = int(tokens.starts[n]), int(tokens.ends[n])
        apart_before = n == 0 or tokens.ends[n - 1] <= start
        apart_after = n + 1 == len(tokens.ids) or end <= tokens.starts[n + 1]
        seen = text[start:end].strip()
        begin = start + len(text[start:end]) - len(text[start:end].lstrip())
        finish = len(text[:end].rstrip())
        out.append(
            (
                bool(apart_before and seen and words[begin]),
                bool(apart_after and words[finish]),
                bool(apart_after and needed[finish]),
            )
        )
    return out


@given(
    name=st.sampled_from(ALL),
    pack=packs(min_size=1),
    boundary=st.sampled_from(["word", "character"]),
)
def test_limits_equal_a_naive_reading(builder, name, pack, boundary):
    made = builder(name)
    prompt = made.build(ask(), pack, GenerationParams(boundary=boundary))
    expected = []
    for passage in pack:
        tokens = made.tokenizer.encode_plain(passage.text)
        rows = naive_limits(passage.text, tokens, boundary)
        expected += [row for row, ok in zip(rows, tokens.copyable, strict=True) if ok]
    spec = prompt.spec
    found = zip(
        spec.can_start.tolist(), spec.can_end.tolist(), spec.can_end_hard.tolist(), strict=True
    )
    assert list(found) == expected


# walking


def open_span(prompt):
    """A sequence that has just opened a span; None where nothing can be quoted."""
    constraint = prompt.rules.start()
    effect = Effect.TEXT
    for token in prompt.spec.open.ids:
        if not constraint.mask().allows(token):
            assert not prompt.rules.index.copyable
            return None
        effect = constraint.consume(token)
    if effect is not Effect.OPENED:
        assert not prompt.rules.index.copyable
        return None
    return constraint


@given(
    name=st.sampled_from(ALL),
    pack=packs(min_size=1),
    boundary=st.sampled_from(["word", "character"]),
    mode=st.sampled_from(["trained", "prompted"]),
    scope=st.sampled_from(["documents", "prompt"]),
    data=st.data(),
)
def test_any_walk_is_a_verbatim_quote(builder, name, pack, boundary, mode, scope, data):
    if name == "wordpiece":
        mode = "trained"
    made = builder(name) if mode == "trained" else builder(name, mode="prompted")
    params = GenerationParams(
        boundary=boundary, scope=scope, max_span_tokens=6, max_new_tokens=4000
    )
    prompt = made.build(ask("Which ferry leaves?"), pack, params)
    constraint = open_span(prompt)
    if constraint is None:
        return
    steps = data.draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=15))
    while constraint.in_span:
        mask = constraint.mask()
        assert mask.only is not None
        assert mask.only.size
        options = mask.only.tolist()
        # once the steps are spent, the closing mark: it stands last
        token = options[steps.pop() % len(options)] if steps else options[-1]
        constraint.consume(int(token))
    (span,) = constraint.spans
    ids = list(span.tokens)
    assert span.occurrences
    for run, position in span.occurrences:
        number, start, end = prompt.locate(run, position, len(ids))
        text = prompt.passages[number].text
        quote = text[start:end]
        assert quote
        assert quote == quote.strip()
        first = prompt.runs[run].first + position
        assert prompt.token_ids[first : first + len(ids)].tolist() == ids
        if made.tokenizer.token_bytes(ids[0]) is not None:
            assert spelled(made.tokenizer, ids).decode().strip() == quote
        characters = grapheme_boundaries(text)
        assert characters[start]
        assert characters[end]
        if boundary == "word":
            words = word_boundaries(text)
            assert words[start]
            assert words[end] or len(ids) >= 12


@given(name=st.sampled_from(LOSSLESS), lead=st.sampled_from(["", " ", "Hmm: ", "\n", "(<", "é"]))
def test_a_begun_mark_is_forced_to_its_end(builder, name, lead):
    made = builder(name, mode="prompted")
    prompt = made.build(ask(), [Passage("d", 0, 9, "The ferry")], QUIET)
    mark = prompt.spec.open.text
    for cut in range(prompt.spec.open.begun, len(mark)):
        constraint = prompt.rules.start()
        for token in made.tokenizer.encode_plain(lead + mark[:cut]).ids.tolist():
            constraint.consume(token)
        said = b""
        while not constraint.in_span:
            forced = constraint.mask().only
            assert forced.size == 1
            said += made.tokenizer.token_bytes(int(forced[0]))
            constraint.consume(int(forced[0]))
        assert said == mark[cut:].encode()


@pytest.mark.parametrize("name", LOSSLESS)
def test_no_token_carries_text_past_a_mark(builder, name):
    made = builder(name, mode="prompted")
    prompt = made.build(ask(), [Passage("d", 0, 9, "The ferry")], QUIET)
    mark = prompt.spec.open.text.encode()
    for cut in range(prompt.spec.open.begun):
        constraint = prompt.rules.start()
        for token in made.tokenizer.encode_plain(mark[:cut].decode()).ids.tolist():
            constraint.consume(token)
        mask = constraint.mask()
        for token in range(made.tokenizer.vocab_size):
            piece = mark[:cut] + (made.tokenizer.token_bytes(token) or b"")
            if mark in piece and not piece.endswith(mark):
                assert not mask.allows(token)


def test_only_marks_in_use_are_ever_generated(builder):
    for name in ("qwen", "gemma"):
        made = builder(name)
        tokenizer = made.tokenizer
        prompt = made.build(ask(), [Passage("d", 0, 9, "The ferry")], QUIET)
        used = {*tokenizer.eos_ids}
        used |= {
            tokenizer.control_id(m) for m in ("<|start_recall|>", "<|end_recall|>", "</think>")
        }
        assert set(prompt.spec.forbidden) == (tokenizer.control_ids - used) | {
            tokenizer.vocab_size + n for n in range(3)
        }


# scope and layout


@given(
    name=st.sampled_from(CHATTY),
    pack=packs(),
    layout=st.sampled_from(["question-last", "question-first", "both"]),
)
@example(name="llama2", pack=[Passage("d0", 0, 1, "\u2581")], layout="question-last")
def test_the_whole_prompt_scope_adds_the_users_messages(builder, name, pack, layout):
    made = builder(name, layout=layout)
    messages = [*ask("First question"), {"role": "assistant", "content": "So."}, *ask("Second one")]
    prompt = made.build(messages, pack, GenerationParams(scope="prompt"))
    check_map(prompt, made.tokenizer, lossless=True)
    ids = [p.document_id for p in prompt.passages]
    own = [p.document_id for p in pack]
    order = ["message:0", *own] if layout == "question-first" and pack else [*own, "message:0"]
    assert ids == [*order, "message:1"]
    said = {p.document_id: p.text for p in prompt.passages}
    assert (said["message:0"], said["message:1"]) == ("First question", "Second one")
    places = {r.passage for r in prompt.runs}
    copyable = [made.tokenizer.encode_plain(p.text).copyable.any() for p in prompt.passages]
    assert set(np.flatnonzero(copyable).tolist()) == places


def test_a_document_may_not_pass_for_a_message(builder):
    made = builder("byte")
    pack = [Passage("message:7", 0, 3, "abc")]
    assert made.build(ask(), pack, QUIET).passages == tuple(pack)
    with pytest.raises(ValueError, match=r"message:7.*another id"):
        made.build(ask(), pack, GenerationParams(scope="prompt"))


@pytest.mark.parametrize("name", CHATTY)
@pytest.mark.parametrize("layout", ["question-last", "question-first", "both"])
@pytest.mark.parametrize("history", [False, True])
def test_questions_over_the_same_passages_share_the_prefix(builder, name, layout, history):
    made = builder(name, layout=layout)
    pack = [Passage("a", 0, 9, "The ferry", "Boats"), Passage("b", 0, 5, " tea ", None)]
    before = [{"role": "system", "content": "Be brief."}]
    prompts = []
    for question in ("About what?", "zebra?"):
        messages = [*before, *ask(question)]
        if history:
            messages += [{"role": "assistant", "content": question}, *ask(question)]
        prompts.append(made.build(messages, pack, QUIET))
    one, two = prompts
    size = one.prefix_length
    assert two.prefix_length == size
    assert one.token_ids[:size].tolist() == two.token_ids[:size].tolist()
    assert one.token_ids[size] != two.token_ids[size]
    ends = [run.first + len(run.starts) for run in one.runs]
    assert (size >= max(ends)) == (layout == "question-last")


@pytest.mark.parametrize("name", CHATTY)
def test_a_conversation_is_kept_word_for_word(builder, name):
    made = builder(name, mode="prompted")
    messages = [
        {"role": "system", "content": "  Rules.\n"},
        {"role": "user", "content": "  one  "},
        {"role": "user", "content": "two\n"},
        {"role": "assistant", "content": "<think>secret</think>\n\nfine "},
        {"role": "user", "content": " three"},
    ]
    prompt = made.build(messages, [Passage("d", 0, 9, " The ferry ")], QUIET)
    read = spelled(made.tokenizer, prompt.token_ids).decode()
    order = [" The ferry ", "  one  \n\ntwo\n", "<think>secret</think>\n\nfine ", " three"]
    places = [read.index(text) for text in order]
    assert places == sorted(places)
    assert "  Rules.\n" in read
    assert "</recall>" in read
    assert prompt.question == " three"


def test_a_tool_may_speak_last(builder):
    messages = [
        *ask("one"),
        {"role": "assistant", "content": "x"},
        {"role": "tool", "content": "42"},
    ]
    prompt = builder("qwen").build(messages, [], QUIET)
    read = spelled(builder("qwen").tokenizer, prompt.token_ids).decode()
    assert "<tool_response>\n42\n</tool_response>" in read
    assert prompt.question == "one"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "x"}],
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        [{"role": "robot", "content": "x"}],
        [{"role": "user", "content": None}],
        [{"role": "user"}],
        [{"content": "x"}],
    ],
)
def test_what_is_no_conversation_is_refused(builder, messages):
    with pytest.raises(ValueError, match=r"conversation|message 0 must have"):
        builder("byte").build(messages, [], QUIET)


def test_broken_text_is_refused_with_its_place(builder):
    with pytest.raises(DocumentError, match=r"message 0 has a lone surrogate.*offset 2"):
        builder("byte").build(ask("ab\ud800"), [], QUIET)


# marks


@pytest.mark.parametrize("name", LOSSLESS)
def test_marks_that_stand_in_a_passage_are_varied(builder, name):
    made = builder(name, mode="prompted")
    pack = [Passage("a", 0, 1, "a <recall> b"), Passage("b", 0, 1, "x</recall2>y <recall4>")]
    prompt = made.build(ask("why <recall3>?"), pack, QUIET)
    assert (prompt.spec.open.text, prompt.spec.close.text) == ("<recall3>", "</recall3>")
    read = spelled(made.tokenizer, prompt.token_ids).decode()
    assert "between <recall3> and </recall3>" in read
    assert made.build(ask(), [], QUIET).spec.open.text == "<recall>"


def test_any_number_of_taken_marks_leaves_one(builder):
    text = "<recall></recall>" + "".join(f"<recall{n}>" for n in range(2, 12_000))
    made = builder("qwen", mode="prompted")
    prompt = made.build(ask(), [Passage("a", 0, len(text), text)], QUIET)
    assert prompt.spec.open.text == "<recall12000>"


def test_without_recall_the_prompt_says_nothing_of_it(builder):
    made = builder("qwen", mode="prompted")
    prompt = made.build(ask(), [], GenerationParams(recall_in="none"))
    assert b"recall" not in spelled(made.tokenizer, prompt.token_ids)


def test_missing_marks_are_named(family):
    class Bare(ByteTokenizer):
        def control_id(self, token):
            return None if "recall" in token else super().control_id(token)

    with pytest.raises(TokenizerError, match="lacks the recall tokens"):
        PromptBuilder(Bare(), trained_recipe(), vocab_size=262)
    with pytest.raises(TokenizerError, match="lossless"):
        PromptBuilder(HFTokenizer(family("wordpiece")), Recipe(), vocab_size=900)


# templates


class Faulty(ByteTokenizer):
    """A template with a fault: it gets the list of (role, content) and returns text."""

    def __init__(self, template):
        super().__init__()
        self._template = template

    def render_chat(self, messages, **_):
        return self._template([(m["role"], m["content"]) for m in messages])


def joined(turns):
    return "".join(f"<|turn|>{role}\n{content}" for role, content in turns) + "<|turn|>"


FAULTS = {
    "drops history": lambda turns: joined(t for t in turns if t[0] != "assistant"),
    "drops the question": lambda turns: joined(turns[:-1]),
    "repeats": lambda turns: joined([*turns, turns[-1]]),
    "lowers case": lambda turns: joined(turns).lower(),
    "cuts": lambda turns: joined(turns)[:-40],
    "is empty": lambda turns: "",
    "mixes": lambda turns: joined((r, "\n".join(c.split("\n")[::-1])) for r, c in turns),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_template_that_loses_something_is_refused(fault):
    made = PromptBuilder(Faulty(FAULTS[fault]), Recipe(), vocab_size=262)
    pack = [Passage("a", 0, 1, "alpha"), Passage("b", 0, 1, "beta")]
    messages = [*ask("one"), {"role": "assistant", "content": "two"}, *ask("three")]
    with pytest.raises(TokenizerError, match="chat template"):
        made.build(messages, pack, QUIET)


def test_a_template_that_refuses_is_quoted():
    def template(turns):
        raise ValueError("only cats may talk")

    made = PromptBuilder(Faulty(template), Recipe(), vocab_size=262)
    with pytest.raises(TokenizerError, match="only cats may talk"):
        made.build(ask(), [], QUIET)


def test_a_system_turn_that_is_dropped_goes_to_the_user():
    def template(turns):
        return joined(turn for turn in turns if turn[0] != "system")

    made = PromptBuilder(Faulty(template), Recipe(), vocab_size=262)
    read = spelled(made.tokenizer, made.build(ask(), [], QUIET).token_ids).decode()
    assert "First quote the sentence" in read
    assert read.startswith("user\nAnswer the question")


# size and hostile labels


def test_labels_are_never_interpreted(builder):
    label = "{text} {{ 7*7 }} {% for %} {title} \\g<0> RECALLMFIELD1Z"
    made = builder("qwen", recipe=Recipe(document="[{id}|{title}|{index}] {text}\n"))
    pack = [Passage(label, 0, 3, "abc", label), Passage("{index}", 0, 3, label, "{id}")]
    prompt = made.build(ask(label), pack, QUIET)
    read = spelled(made.tokenizer, prompt.token_ids).decode()
    assert f"[{label}|{label}|1] abc\n" in read
    assert f"[{{index}}|{{id}}|2] {label}\n" in read
    assert f"Question: {label}" in read
    check_map(prompt, made.tokenizer, lossless=True)


@pytest.mark.parametrize("count", [3000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_tiny_passages(builder, count):
    made = builder("qwen", mode="prompted")
    pack = [Passage(f"d{n}", 0, 6, f"fact {n}") for n in range(count)]
    prompt = made.build(ask(), pack, QUIET)
    assert len(prompt.runs) == count
    check_map(prompt, made.tokenizer, lossless=True)
    cost = sum(made.count(p.text) + made.overhead(p.title, n) for n, p in enumerate(pack, start=1))
    empty = made.build(ask(), [], QUIET)
    assert len(prompt.token_ids) <= cost + len(empty.token_ids) + 10


@given(title=LABEL, text=TEXT, name=st.sampled_from(LOSSLESS))
def test_a_labels_cost_is_never_underrated(builder, title, text, name):
    made = builder(name, recipe=Recipe(document="[{id}|{title}|{index}] {text}\n"))
    passage = Passage("an id", 0, len(text), text, title)
    with_it = made.build(ask(), [passage, passage], QUIET)
    without = made.build(ask(), [passage], QUIET)
    cost = made.count(text) + made.overhead(title, document_id="an id")
    assert len(with_it.token_ids) - len(without.token_ids) <= cost


@pytest.mark.parametrize("name", ["qwen", "llama3", "llama2", "gemma"])
def test_a_word_without_end(builder, name):
    text = "ferry" * 20_000
    prompt = builder(name).build(ask(), [Passage("d", 0, len(text), text)], QUIET)
    check_map(prompt, builder(name).tokenizer, lossless=True)
    assert prompt.spec.can_start.tolist().count(True) == 1  # one word has one beginning


def test_equal_texts_are_encoded_once():
    calls = []

    class Counting(ByteTokenizer):
        def encode_plain(self, text):
            calls.append(text)
            return super().encode_plain(text)

    made = PromptBuilder(Counting(), trained_recipe(), vocab_size=262)
    pack = [Passage("a", 0, 5, "alpha", "t"), Passage("b", 0, 5, "alpha", "t")]
    for boundary in ("word", "character", "word"):
        made.count("alpha")
        made.build(ask("alpha"), pack, GenerationParams(boundary=boundary))
    assert calls.count("alpha") == 1


def test_an_empty_pack_can_be_asked_about(builder):
    for name in ALL:
        prompt = builder(name).build(ask(), [Passage("d", 0, 0, "")], QUIET)
        assert not prompt.runs
        assert not prompt.rules.index.copyable
        assert not prompt.rules.start().mask().allows(prompt.spec.open.ids[0])


# the prior


PACK = [
    Passage("a", 0, 0, "Cats sleep all day. The ferry leaves at nine from pier two.", "Harbour"),
    Passage("b", 0, 0, "  Pier two lies in the north.\nDogs bark at night.", None),
]


def token_at(prompt, passage, text):
    """Flat run position of the token that begins at a text of a passage."""
    at = prompt.passages[passage].text.index(text)
    base = 0
    for run in prompt.runs:
        inside = np.flatnonzero((run.starts <= at) & (run.ends > at))
        if run.passage == passage and inside.size:
            return base + int(inside[0])
        base += len(run.starts)
    raise AssertionError(text)


def favourite(prompt, scores):
    return int(np.where(prompt.spec.can_start, scores, -np.inf).argmax())


@given(name=st.sampled_from(ALL), pack=packs(), question=TEXT)
@example(name="qwen", pack=PACK, question="When does the ferry leave?")
def test_the_prior_scores_every_position_and_forbids_none(builder, name, pack, question):
    made = builder(name)
    tilted = made.build(ask(question), pack, GenerationParams(prior="sentences"))
    plain = made.build(ask(question), pack, GenerationParams(prior="none"))
    scores = tilted.evidence.bias("thinking", ()).start_scores
    assert scores.shape == (sum(len(run.starts) for run in tilted.runs),)
    assert np.isfinite(scores).all()
    assert plain.spec.prior is None
    assert plain.token_ids.tolist() == tilted.token_ids.tolist()
    one, two = open_span(plain), open_span(tilted)
    assert (one is None) == (two is None)
    if one is not None and two is not None:
        assert one.mask().only.tolist() == two.mask().only.tolist()
        assert one.mask().bias is None


@pytest.mark.parametrize("name", ["byte", "qwen", "gemma", "wordpiece"])
def test_the_prior_follows_the_question_and_then_the_evidence(builder, name):
    made = builder(name)
    params = GenerationParams(prior="sentences", max_new_tokens=4000)
    prompt = made.build(ask("When does the ferry leave?"), PACK, params)

    def prior(section, spans):
        return prompt.evidence.bias(section, spans).start_scores

    scores = prior("thinking", ())
    start = token_at(prompt, 0, "The ferry")
    assert favourite(prompt, scores) == start
    assert scores[token_at(prompt, 0, "leaves")] == pytest.approx(scores[start] + WITHIN_SENTENCE)
    question, texts = "When does the ferry leave?", [p.text for p in PACK]
    ranges = sentence_prior(
        question, texts, ["Harbour", None], embedder=default_embedder(), temperature=1 / SHARPNESS
    )
    assert scores[start] == pytest.approx(ranges[0][1][2], abs=1e-5)
    constraint = open_span(prompt)
    first, last = (prompt.runs[0].first + n for n in (start, len(prompt.runs[0].starts)))
    for token in prompt.token_ids[first:last].tolist():
        constraint.consume(token)
    constraint.consume(prompt.spec.close.ids[0])
    (span,) = constraint.spans
    again = prior("thinking", (span,))
    assert again[token_at(prompt, 1, "Pier")] > scores[token_at(prompt, 1, "Pier")]
    assert favourite(prompt, again) == token_at(prompt, 1, "Pier")
    inside = prior("answer", (span,))
    assert inside[start] == 0
    assert inside[token_at(prompt, 1, "Pier")] == WITHIN_EVIDENCE
    assert prior("answer", ()).tolist() == scores.tolist()


def test_titles_of_a_pack_are_part_of_what_is_remembered(builder):
    made = builder("qwen")
    params = GenerationParams(prior="sentences")

    def best(titles):
        pack = [Passage(t, 0, 0, f"Opens at {n}.", t) for n, t in zip((9, 10), titles, strict=True)]
        prompt = made.build(ask("When does the museum open?"), pack, params)
        return int(prompt.spec.prior.argmax()) >= len(prompt.runs[0].starts)

    assert best(["Zoo", "Museum"])
    assert not best(["Museum", "Zoo"])


# many threads


def test_a_prompt_is_built_while_the_evidence_for_another_is_scored(builder, monkeypatch):
    made, begun, go_on = builder("qwen"), threading.Event(), threading.Event()
    pack = [Passage("new", 0, 0, "Nobody has read this before.")]

    def slow(passages):
        begun.set()
        assert go_on.wait(30)
        return sentences(passages)

    monkeypatch.setitem(SCORERS, "sentences", Entry(f"{__name__}:_slow", "min_support"))
    monkeypatch.setattr(sys.modules[__name__], "_slow", slow, raising=False)
    with ThreadPoolExecutor(1) as threads:
        scored = threads.submit(made.build, ask("q"), pack, GenerationParams(prior="sentences"))
        assert begun.wait(30)
        assert made.build(ask("other"), pack, QUIET).evidence is None
        assert made.count("alpha") > 0
        assert not scored.done()
        go_on.set()
        assert scored.result(30).evidence.due == 1


def test_no_lock_is_held_while_an_encoder_reads(builder, monkeypatch):
    made, owned = builder("byte"), []
    read = EvidenceReader.read

    def watched(*args):
        owned.append(made._building._lock._is_owned())
        return read(*args)

    monkeypatch.setattr(EvidenceReader, "read", watched)
    made.build(ask("When does the ferry leave?"), PACK, GenerationParams(prior="reader"))
    assert owned == [False]
