"""The constraint against a slow reading of the rules over text, and its promises one by one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.decoding.constraint import Constraint, ConstraintRules, Effect, Mask
from recallm_core.decoding.recall_index import RecallIndex
from recallm_core.decoding.spec import Tag
from recallm_core.documents.document import Document
from recallm_core.errors import ConstraintError
from recallm_core.generator import RecaLLM
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.testing import (
    CLOSE,
    EOS,
    OPEN,
    THINK_END,
    ByteTokenizer,
    ScriptedBackend,
    random_walk,
)

PIECES = [
    *("<rec", "call>", "<recall>", "a<recall>", "<recall>a", "l>", "l> ", "</", "</re", "all>"),
    *(" the", "Par", "x<", ">", "> ", "</recall>", "z</recall>", "</reason>", "son>", "on> "),
]
RECIPES = {
    "trained": trained_recipe(system="{open}{close}"),
    "prompted": Recipe(system="{open}{close}"),
    "text-thinking": Recipe(system="{open}{close}", think_open="<reason>", think_close="</reason>"),
    "control-thinking": Recipe(
        system="{open}{close}", think_open="<think>", think_close="</think>"
    ),
}
PASSAGES = [
    "Paris is the capital of France.",
    "a </rec b </recal c < d </ e",
    "the the the the",
    "<rec <recal </reas </reason ",
    "x",
    "12,5 é🇫🇷 日本",
    "one</rec></reca</recall two",
]


def prepared(
    recipe: Recipe, texts: list[str], *, pieces: bool = False, **settings: object
) -> Prompt:
    backend = ScriptedBackend(tokenizer=ByteTokenizer(PIECES if pieces else ()))
    llm = RecaLLM(backend.tokenizer, backend, recipe)
    documents = [Document(text, str(n)) for n, text in enumerate(texts)]
    settings = {"evidence": "free"} | settings
    return llm.prepare([{"role": "user", "content": "q"}], documents, **settings)[0]


@dataclass
class Naive:
    """The rules read one by one, over the text written so far; nothing is remembered but it."""

    prompt: Prompt
    tokenizer: ByteTokenizer
    section: str = ""
    text: bytes = b""  # ordinary output since the last mark
    copy: list[int] | None = None
    blocked: bool = False  # whether the copy reading of the open span has ended
    closings: dict[int, int] = field(default_factory=dict)  # length of copy -> tokens of the mark
    forced: list[int] = field(default_factory=list)
    spans: list[list[int]] = field(default_factory=list)
    thought: int = 0
    copied: list[tuple[str, list[tuple[int, int]], int]] = field(default_factory=list)
    own: list[int] = field(default_factory=list)  # of the answer, while a quote is owed
    leading: bool = False  # whether what is forced leads from the evidence to the answer

    def __post_init__(self) -> None:
        self.spec = self.prompt.spec
        self.rules = self.spec.evidence
        self.section = "thinking"
        ids = self.prompt.token_ids.tolist()
        self.runs = [ids[a:b] for a, b in self.spec.runs]
        cuts = np.cumsum([len(r) for r in self.runs])[:-1]
        self.starts = np.split(self.spec.can_start, cuts) if self.runs else []
        self.ends = np.split(self.spec.can_end, cuts) if self.runs else []
        self.hard = np.split(self.spec.can_end_hard, cuts) if self.runs else []
        self.copyable = bool(self.stands([]))
        if not self.spec.thinking:
            self.end_thinking()
        self._force_end_of_thinking()

    def end_thinking(self) -> None:
        self.section, self.text, self.forced = "evidence", b"", []
        if self.rules and self.rules.policy == "first" and self.may_open():
            self.forced = list(self.spec.open.ids)
        else:
            self.section = "answer"

    def evidence(self) -> list[int]:
        """How many tokens each piece of evidence before the answer has."""
        return [size for section, _, size in self.copied if section == "evidence"]

    def owes(self) -> bool:
        if not self.rules or self.section != "answer" or not self.may_open() or self.copied:
            return False
        said = any(
            self.own[at : at + len(phrase)] == list(phrase)
            for phrase in self.rules.abstain
            for at in range(len(self.own))
        )
        return self.rules.policy == "required" and not said

    def sentence_ends(self) -> tuple[bool, bool]:
        """Whether the own words end a sentence, and whether they do unless a number goes on."""
        if not self.own or not self.rules:
            return False, False
        *before, last = self.own
        last_word = before[-1] if before else -1
        stops = last in self.rules.ends and bool(before)
        point = last in self.rules.points
        number = stops and point and last_word in self.rules.numbers
        shortened = point and last_word in self.rules.abbreviations
        patient = len(self.own) < self.rules.patience
        return (stops and not number and not shortened) or not patient, number

    def stands(self, copied: list[int]) -> list[tuple[int, int]]:
        found = []
        for r, run in enumerate(self.runs):
            for at in range(len(run) - max(len(copied), 1) + 1):
                open_end = self.ends[r][max(at + len(copied) - 1, at) :].any()
                begins = self.starts[r][at] and open_end and not self.repeats(r, at)
                if run[at : at + len(copied)] == copied and begins:
                    found.append((r, at))
        return found

    def repeats(self, run: int, at: int) -> bool:
        """Whether a place lies in what was copied before in this section."""
        return self.rules is not None and any(
            section == self.section
            and r == run
            and first <= at < first + (size if section == "evidence" else 1)
            for section, places, size in self.copied
            for r, first in places
        )

    def closable(self, copied: list[int]) -> bool:
        size, limit = len(copied), self.spec.max_span_tokens
        last = [(r, at + size - 1) for r, at in self.stands(copied)] if size else []
        soft = any(self.ends[r][i] for r, i in last)
        return soft or (size >= 2 * limit and any(self.hard[r][i] for r, i in last))

    def may_open(self) -> bool:
        allowed = self.spec.recall_in.split("+")
        first = self.rules is not None and self.rules.policy == "first"
        most = self.spec.max_spans - (first and self.section == "thinking")
        if len(self.spans) >= most or not self.copyable or not self.stands([]):
            return False
        if self.section == "evidence":
            assert self.rules is not None
            done = self.evidence()
            full = done and (len(done) >= self.rules.most or sum(done) >= self.rules.room)
            return allowed != ["none"] and not full
        if first and self.section == "answer" and self.evidence():
            return False
        return self.section in allowed

    def spent(self) -> bool:
        limit = self.spec.max_thinking_tokens
        return limit is not None and self.section == "thinking" and self.thought >= limit

    def copies(self) -> set[int]:
        assert self.copy is not None
        if self.blocked:
            return set()
        if self.closable(self.copy) and (
            len(self.copy) >= self.spec.max_span_tokens or self.spent()
        ):
            return set()
        size = len(self.copy)
        places = self.stands(self.copy)
        nexts = {self.runs[r][at + size] for r, at in places if at + size < len(self.runs[r])}
        return {t for t in nexts if self.stands([*self.copy, t])}

    def legal(self) -> set[int]:
        if self.section == "done":
            return {EOS}
        if self.forced:
            return {self.forced[0]}
        if self.copy is not None:
            mark = self.spec.close.ids
            closing = {mark[k] for k in self.closings.values()}
            begin = {mark[0]} if not self.blocked and self.closable(self.copy) else set()
            return self.copies() | closing | begin
        if self.section == "evidence":
            return {self.spec.open.ids[0], self.rules.lead_in[0]}
        if self.owes() and self.sentence_ends()[1]:
            return {self.spec.open.ids[0], *self.rules.numbers}
        marks = self.marks()
        return {t for t in range(self.spec.vocab_size) if self.ordinary(t, marks)}

    def marks(self) -> list[tuple[Tag, bool]]:
        ending = self.spec.think_close
        found = [(self.spec.open, self.may_open()), (self.spec.close, False)]
        return found + ([(ending, self.section == "thinking")] if ending else [])

    def ordinary(self, token: int, marks: list[tuple[Tag, bool]]) -> bool:
        wordless = self.section == "answer" and bool(self.evidence()) and not self.own
        if token == EOS:
            return self.section != "thinking" and not wordless and not self.owes()
        if wordless and token in self.rules.blank:
            return False
        piece = self.tokenizer.token_bytes(token)
        if piece is None:
            return any(tag.control and tag.ids == (token,) and legal for tag, legal in marks)
        text = self.text[-40:] + piece  # longer than any mark
        for tag, legal in marks:
            mark = tag.text.encode()
            at = -1 if tag.control else text.find(mark)
            if at >= 0 and not (legal and at + len(mark) == len(text)):
                return False
        return True

    def consume(self, token: int) -> None:
        copies = self.copy is not None and token in self.copies()
        self.thought += self.section == "thinking"
        if self.copy is not None:
            self.consume_in_span(token, copies)
        elif self.section != "done":
            self.consume_ordinary(token)
        self._force_end_of_thinking()

    def consume_in_span(self, token: int, copies: bool) -> None:
        assert self.copy is not None
        mark = self.spec.close.ids
        begins = token == mark[0] and not self.blocked and self.closable(self.copy)
        closings = {at: k + 1 for at, k in self.closings.items() if mark[k] == token}
        if begins:
            closings[len(self.copy)] = 1
        done = [at for at, k in closings.items() if k == len(mark)]
        if done:
            self.close(self.copy[: done[0]])
            return
        self.closings = closings
        if copies:
            self.copy = [*self.copy, token]
        else:
            self.blocked = True

    def close(self, copy: list[int]) -> None:
        size = len(copy)
        places = self.stands(copy)
        soft = [(r, at) for r, at in places if self.ends[r][at + size - 1]]
        hard = [(r, at) for r, at in places if self.hard[r][at + size - 1]]
        self.spans.append(copy)
        self.copied.append((self.section, soft or hard, size))
        self.copy, self.closings, self.blocked, self.text = None, {}, False, b""
        if self.section == "evidence":
            assert self.rules is not None
            if not self.may_open():
                self.forced, self.leading = list(self.rules.lead_in), True
            elif len(self.evidence()) < self.rules.least:
                self.forced = list(self.spec.open.ids)

    def consume_evidence(self, token: int) -> bool:
        """Between pieces of evidence; whether that is all there is to it."""
        assert self.rules is not None
        if not self.forced and token == self.spec.open.ids[0]:
            self.forced = list(self.spec.open.ids)
            return False
        left = (self.forced or list(self.rules.lead_in))[1:]
        self.forced, self.leading = left, bool(left)
        if not left:
            self.section, self.text = "answer", b""
        return True

    def consume_ordinary(self, token: int) -> None:
        if self.section == "evidence" and (self.leading or not self.forced):
            if not self.consume_evidence(token):
                self.consume_text(token)
            return
        if self.owes() and self.sentence_ends()[1] and token == self.spec.open.ids[0]:
            self.forced = list(self.spec.open.ids)
        self.consume_text(token)

    def consume_text(self, token: int) -> None:
        forced, self.forced = self.forced, self.forced[1:]
        ending = self.spec.think_close
        if token == EOS:
            self.section = "done"
            return
        self.text += self.tokenizer.token_bytes(token) or b""
        if self.completes(self.spec.open, token) and self.may_open():
            self.copy, self.text, self.forced = [], b"", []
        elif ending and self.section == "thinking" and self.completes(ending, token):
            self.end_thinking()
            return
        elif len(forced) <= 1:
            for tag, legal in self.marks():
                if legal and not tag.control and self.begun(tag) >= min(5, len(tag.text) - 1):
                    rest = tag.text[self.begun(tag) :]
                    self.forced = self.tokenizer.encode_plain(rest).ids.tolist()
        if self.section == "answer" and self.copy is None and not self.forced:
            self.note(token)

    def note(self, token: int) -> None:
        """Remembers own words; the end of a sentence opens a quote that is owed."""
        if self.owes() or self.evidence():
            self.own.append(token)
        if self.owes() and self.sentence_ends()[0]:
            self.text, self.forced = b"", list(self.spec.open.ids)

    def completes(self, tag: Tag, token: int) -> bool:
        return token == tag.ids[0] if tag.control else self.text.endswith(tag.text.encode())

    def begun(self, tag: Tag) -> int:
        mark = tag.text.encode()
        return max(k for k in range(len(mark)) if self.text.endswith(mark[:k]))

    def _force_end_of_thinking(self) -> None:
        ending = self.spec.think_close
        if ending and self.spent() and self.copy is None and not self.forced:
            k = 0 if ending.control else self.begun(ending)
            rest = self.tokenizer.encode_plain(ending.text[k:]).ids.tolist()
            self.forced = list(ending.ids) if ending.control else rest


def legal_ids(mask: Mask, vocab_size: int) -> set[int]:
    if mask.only is not None:
        return set(mask.only.tolist())
    assert mask.forbid is not None
    return set(range(vocab_size)) - set(mask.forbid.tolist())


def seen(constraint: Constraint) -> tuple[object, ...]:
    """Everything about a constraint that a backend or the trace can see."""
    mask = constraint.mask()
    legal = legal_ids(mask, constraint.rules.spec.vocab_size)
    return (
        sorted(legal),
        constraint.section,
        constraint.in_span,
        constraint.done,
        constraint.length,
        constraint.watched_characters,
        constraint.spans,
        constraint.draft(9),
        constraint.cut_span(),
    )


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    kind = draw(st.sampled_from(sorted(RECIPES)))
    texts = draw(st.lists(st.sampled_from(PASSAGES), max_size=4))
    return prepared(
        RECIPES[kind],
        texts,
        pieces=draw(st.booleans()),
        max_span_tokens=draw(st.sampled_from([1, 2, 5, 128])),
        max_spans=draw(st.sampled_from([0, 1, 3, 64])),
        max_thinking_tokens=draw(st.sampled_from([0, 3, 20, None])),
        recall_in=draw(st.sampled_from(["thinking", "answer", "thinking+answer", "none"])),
        boundary=draw(st.sampled_from(["sentence", "word", "character"])),
        evidence=draw(st.sampled_from(["free", "first", "required"])),
    )


def tokenizer_of(prompt: Prompt) -> ByteTokenizer:
    return ByteTokenizer(PIECES if prompt.spec.vocab_size > EOS + 1 else ())


SEEDS = st.integers(0, 2**32)


@given(prompts(), SEEDS)
def test_legal_tokens_equal_the_rules_read_over_the_text(prompt: Prompt, seed: int) -> None:
    constraint = prompt.rules.start()
    naive = Naive(prompt, tokenizer_of(prompt))
    source = random.Random(seed)
    walker = random_walk(prompt.rules.start(), source, marks=0.3)
    for _ in range(80):
        legal = naive.legal()
        assert legal, "a row with nothing legal"
        assert legal_ids(constraint.mask(), prompt.spec.vocab_size) == legal
        assert [list(span.tokens) for span in constraint.spans] == naive.spans
        assert constraint.section == naive.section
        assert constraint.in_span == (naive.copy is not None)
        token = next(walker, None)
        if token is None:
            assert constraint.done
            break
        assert token in legal
        naive.consume(token)
        constraint.consume(token)


@given(prompts(), SEEDS)
def test_what_is_written_reads_as_text_and_whole_quotes(prompt: Prompt, seed: int) -> None:
    walker = random_walk(prompt.rules.start(), random.Random(seed), marks=0.3)
    tokens = [token for token, _ in zip(walker, range(300), strict=False)]
    constraint = prompt.rules.start()
    effects = [constraint.consume(token) for token in tokens]
    spec, tokenizer = prompt.spec, tokenizer_of(prompt)
    opened = [n for n, effect in enumerate(effects) if effect is Effect.OPENED]
    assert len(opened) - constraint.in_span == len(constraint.spans) <= spec.max_spans
    sources = [p.text for p in prompt.passages]
    for begin, span in zip(opened, constraint.spans, strict=False):
        assert span.tokens
        before = "evidence" if spec.recall_in != "none" and spec.evidence else ""
        assert span.section in (*spec.recall_in.split("+"), before)
        assert tuple(tokens[begin + 1 : begin + 1 + len(span.tokens)]) == span.tokens
        quote = b"".join(tokenizer.token_bytes(t) or b"" for t in span.tokens).decode()
        assert any(quote in text for text in sources)
        for run, position in span.occurrences:
            number, start, end = prompt.locate(run, position, len(span.tokens))
            assert sources[number][start:end] == quote.strip()
    ordinary = [t for t, e in zip(tokens, effects, strict=True) if e is Effect.TEXT]
    if spec.close.control:
        assert not {OPEN, CLOSE, THINK_END} & set(ordinary)
    else:
        spelled = b"".join(tokenizer.token_bytes(t) or b"|" for t in tokens)
        assert spelled.count(b"<recall>") == len(opened)
        assert spelled.count(b"</recall>") == len(constraint.spans)
    if spec.thinking and not constraint.in_span and constraint.section == "thinking":
        assert EOS not in tokens


@given(prompts(), SEEDS, st.integers(0, 120), st.integers(0, 120))
def test_rollback_and_copy_equal_a_fresh_replay(
    prompt: Prompt, seed: int, size: int, back: int
) -> None:
    walker = random_walk(prompt.rules.start(), random.Random(seed), marks=0.3)
    tokens = [token for token, _ in zip(walker, range(size), strict=False)]
    back = min(back, len(tokens))
    constraint = prompt.rules.start()
    fresh = prompt.rules.start()
    for token in tokens:
        constraint.consume(token)
    for token in tokens[: len(tokens) - back]:
        fresh.consume(token)
    whole = seen(constraint)
    twin = constraint.copy()
    constraint.rollback(back)
    assert seen(constraint) == seen(fresh)
    assert seen(twin) == whole
    for token in random_walk(fresh, random.Random(seed + 1), marks=0.3):  # another way on
        constraint.consume(token)
        assert seen(constraint) == seen(fresh)
        if fresh.length > len(tokens) + 15:
            break
    assert seen(twin) == whole
    twin.rollback(len(tokens))
    assert seen(twin) == seen(prompt.rules.start())


@given(prompts(), SEEDS, st.integers(1, 40))
def test_every_drafted_token_is_legal_and_copying_on_is_the_only_way(
    prompt: Prompt, seed: int, count: int
) -> None:
    constraint = prompt.rules.start()
    for _ in random_walk(constraint, random.Random(seed), marks=0.3):
        draft = constraint.draft(count)
        assert len(draft) <= count
        for token in draft:
            legal = legal_ids(constraint.mask(), prompt.spec.vocab_size)
            assert legal - set(prompt.spec.close.ids) <= {token} <= legal
            constraint.consume(token)
        constraint.rollback(len(draft))
        if constraint.length > 100:
            break


@given(prompts(), SEEDS)
def test_an_illegal_token_raises_and_changes_nothing(prompt: Prompt, seed: int) -> None:
    constraint = prompt.rules.start()
    for _ in random_walk(constraint, random.Random(seed), marks=0.3):
        illegal = set(range(prompt.spec.vocab_size)) - legal_ids(
            constraint.mask(), prompt.spec.vocab_size
        )
        before = seen(constraint)
        for token in [*sorted(illegal)[:2], *sorted(illegal)[-2:]]:
            with pytest.raises(ConstraintError, match="isn't legal at output position"):
                constraint.consume(token)
        assert seen(constraint) == before
        if constraint.length > 40:
            break


def follow(constraint: Constraint, text: str) -> list[Effect]:
    return [constraint.consume(token) for token in ByteTokenizer().encode_template(text)]


def test_a_mask_stays_what_it_was_when_the_copy_goes_on() -> None:
    constraint = prepared(RECIPES["trained"], ["Paris is the capital."]).rules.start()
    follow(constraint, "so <|start_recall|>Paris i")
    masks: list[Mask] = []
    for token in b"s the":  # one way on at each, and an end around the blank
        masks.append(constraint.mask())
        constraint.consume(token)
    listed = [mask.only.tolist() for mask in masks if mask.only is not None]
    assert listed == [[ord("s")], [ord(" "), CLOSE], [ord("t"), CLOSE], [ord("h")], [ord("e")]]


def test_marks_in_their_places() -> None:
    constraint = prepared(RECIPES["trained"], ["Paris is the capital."]).rules.start()
    assert not constraint.mask().allows(EOS)
    assert not constraint.mask().allows(CLOSE)
    follow(constraint, "so <|start_recall|>")
    assert constraint.in_span
    assert not any(constraint.mask().allows(t) for t in (OPEN, CLOSE, EOS, THINK_END))
    follow(constraint, "Paris<|end_recall|>")
    assert [s.tokens for s in constraint.spans] == [tuple(b"Paris")]
    follow(constraint, "</think>")
    assert constraint.mask().allows(EOS)
    assert not constraint.mask().allows(THINK_END)
    assert follow(constraint, "ok<|eos|>")[-1] is Effect.ENDED
    assert constraint.done
    assert constraint.mask().only is not None
    assert constraint.consume(EOS) is Effect.ENDED


@pytest.mark.parametrize(("quote", "after"), [("a", "</rec b"), ("a </rec b", "")])
def test_a_closing_mark_that_is_also_a_copy_keeps_both_readings(quote: str, after: str) -> None:
    constraint = prepared(RECIPES["prompted"], ["a </rec b </recall c"]).rules.start()
    # the passage holds no whole mark, but all of its beginning
    follow(constraint, "<recall>")
    effects = follow(constraint, f"{quote}</recall>")
    assert effects[-1] is Effect.CLOSED
    assert bytes(constraint.spans[0].tokens).decode() == quote
    assert set(effects[len(quote) : -1]) <= {Effect.CLOSING, Effect.COPIED}


def test_both_readings_part_late_and_copying_goes_on() -> None:
    constraint = prepared(RECIPES["prompted"], ["a</recall b"], boundary="character").rules.start()
    follow(constraint, "<recall>a</recall")
    assert constraint.in_span
    legal = legal_ids(constraint.mask(), EOS + 1)
    assert legal == {ord(">"), ord(" "), ord("<")}
    twin = constraint.copy()
    follow(constraint, ">")
    assert bytes(constraint.spans[0].tokens) == b"a"
    follow(twin, " b</recall>")
    assert bytes(twin.spans[0].tokens) == b"a</recall b"


def test_an_open_span_closes_at_its_next_end_once_thinking_is_spent() -> None:
    rules = prepared(RECIPES["trained"], ["one two three"], max_thinking_tokens=2).rules
    constraint = rules.start()
    follow(constraint, "<|start_recall|>o")
    assert constraint.draft(50) == list(b"ne")
    follow(constraint, "ne")
    assert legal_ids(constraint.mask(), EOS + 1) == {CLOSE}
    follow(constraint, "<|end_recall|>")
    assert legal_ids(constraint.mask(), EOS + 1) == {THINK_END}
    assert constraint.draft(5) == [THINK_END]


def test_spent_thinking_ends_the_copy_reading_of_an_ambiguous_closing() -> None:
    rules = prepared(
        RECIPES["text-thinking"], ["a</b c</d"], max_thinking_tokens=9, boundary="character"
    ).rules
    constraint = rules.start()
    follow(constraint, "<recall>a")
    assert legal_ids(constraint.mask(), EOS + 1) == {ord("<")}
    follow(constraint, "</")
    assert legal_ids(constraint.mask(), EOS + 1) == {ord("r")}
    follow(constraint, "recall></reason>")
    assert constraint.section == "answer"


def test_a_span_too_long_closes_at_a_word_then_at_a_character() -> None:
    rules = prepared(RECIPES["trained"], ["ab cdefghij kl"], max_span_tokens=4).rules
    constraint = rules.start()
    follow(constraint, "<|start_recall|>ab")
    assert constraint.mask().allows(CLOSE)
    assert constraint.mask().allows(ord(" "))
    follow(constraint, " ")
    assert constraint.mask().allows(CLOSE)  # the white space is trimmed
    follow(constraint, "c")
    assert not constraint.mask().allows(CLOSE)
    follow(constraint, "defg")
    assert legal_ids(constraint.mask(), EOS + 1) == {CLOSE}  # 8 tokens: twice the limit


@pytest.mark.parametrize(
    "whole", ["1,234,567.89", "2024/05/06", "10:30:45", "AB123456789", "12345678s", "3.14159"]
)
def test_a_span_far_too_long_never_ends_within_a_number(whole: str) -> None:
    rules = prepared(RECIPES["trained"], [f"{whole} b"], max_span_tokens=1).rules
    constraint = rules.start()
    follow(constraint, "<|start_recall|>" + whole[0])
    for character in whole[1:]:
        assert not constraint.mask().allows(CLOSE)
        follow(constraint, character)
    assert constraint.mask().allows(CLOSE)


def test_character_boundaries_never_lie_within_a_number() -> None:
    rules = prepared(RECIPES["trained"], ["x1,234y"], boundary="character").rules
    assert rules.spec.can_end.tolist() == [True, False, False, False, False, True, True]
    assert rules.spec.can_start.tolist() == [True, True, False, False, False, False, True]


@pytest.mark.parametrize("kind", ["trained", "prompted"])
@pytest.mark.parametrize("texts", [[], [""], ["   "], ["\n\r\n\t"]])
def test_nothing_copyable_keeps_recall_closed(kind: str, texts: list[str]) -> None:
    prompt = prepared(RECIPES[kind], texts)
    constraint = prompt.rules.start()
    if kind == "trained":
        assert not constraint.mask().allows(OPEN)
    else:
        follow(constraint, "<recall")
        assert not constraint.mask().allows(ord(">"))
        follow(constraint, "s")  # an ordinary word


def test_a_begun_opening_mark_is_completed_in_its_one_spelling() -> None:
    prompt = prepared(RECIPES["prompted"], ["Paris"], pieces=True)
    tokenizer = tokenizer_of(prompt)
    constraint = prompt.rules.start()
    constraint.consume(tokenizer.encode_plain("<rec").ids.tolist()[0])
    constraint.consume(ord("a"))
    forced = constraint.draft(9)
    assert b"".join(tokenizer.token_bytes(t) or b"" for t in forced) == b"ll>"
    assert forced == tokenizer.encode_plain("ll>").ids.tolist()
    while forced:
        assert legal_ids(constraint.mask(), prompt.spec.vocab_size) == {forced[0]}
        constraint.consume(forced.pop(0))
    assert constraint.in_span


def test_rules_refuse_control_tokens_in_runs() -> None:
    spec = prepared(RECIPES["trained"], ["abc"]).spec
    bad = [np.array([97, CLOSE, 99])]
    with pytest.raises(ConstraintError, match=r"control tokens \[257\] stand inside copyable runs"):
        ConstraintRules(spec, RecallIndex(bad, vocab_size=spec.vocab_size))


def test_rollback_is_checked() -> None:
    constraint = prepared(RECIPES["trained"], ["abc"]).rules.start()
    with pytest.raises(ConstraintError, match="can't take back 1 tokens, only 0"):
        constraint.rollback(1)
    with pytest.raises(ConstraintError, match="can't take back -1"):
        constraint.rollback(-1)


@given(prompts(), SEEDS)
def test_a_prior_tilts_and_never_forbids(prompt: Prompt, seed: int) -> None:
    source = random.Random(seed)
    scores = np.array([source.uniform(-20, 0) for _ in range(prompt.rules.index.size)])
    plain, tilted = prompt.rules.start(), prompt.rules.start(lambda section, spans: scores)
    for token in random_walk(plain, source, marks=0.3):
        bias = tilted.mask().bias
        assert bias is None or (len(bias) == len(tilted.mask().only) and np.isfinite(bias).all())
        tilted.consume(token)
        a, b = plain.mask(), tilted.mask()
        assert legal_ids(a, prompt.spec.vocab_size) == legal_ids(b, prompt.spec.vocab_size)
        if plain.length > 60:
            break
