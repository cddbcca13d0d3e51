from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.decoding.constraint import Constraint
from recallm_core.errors import CheckpointError
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.testing import ByteTokenizer
from recallm_core.tokenization.tokenizer import HFTokenizer
from recallm_core.train.tasks.facts import absent, one_fact, two_hop
from recallm_core.train.tasks.keyed import compute_then_retrieve, key_value, multi_needle
from recallm_core.train.tasks.tokenized import IGNORED, RowMaker, quote_range
from recallm_core.train.tasks.training_example import Quote, TrainingExample
from recallm_core.train.tasks.working import with_working

FAMILIES = ("gpt2", "qwen", "llama3", "llama2", "metaspace", "gemma", "unigram", "wordpiece")
MAKERS: tuple[Callable[..., TrainingExample], ...] = (
    one_fact,
    two_hop,
    absent,
    key_value,
    multi_needle,
    compute_then_retrieve,
)
LIMIT = 4000


@pytest.fixture(scope="session")
def row_maker(family: Callable[[str], Any]) -> Callable[..., RowMaker]:
    known: dict[str, HFTokenizer] = {}

    def make(name: str, **options: Any) -> RowMaker:
        if name not in known:
            known[name] = HFTokenizer(family(name))
        tokenizer = known[name]
        return RowMaker(tokenizer, trained_recipe(), vocab_size=tokenizer.vocab_size + 8, **options)

    return make


@pytest.mark.parametrize("name", FAMILIES)
@given(seed=st.integers(0, 2**32), quote_answer=st.booleans())
def test_the_constraint_accepts_every_token_of_a_row(
    row_maker: Callable[..., RowMaker], name: str, seed: int, quote_answer: bool
) -> None:
    rng = random.Random(seed)
    example = rng.choice(MAKERS)(rng, size=rng.choice([100, 600]))
    if rng.random() < 0.5:
        example = with_working(example, rng)
    maker = row_maker(name, quote_answer=quote_answer)
    row = maker.row(example, limit=LIMIT)
    if row is None:
        return
    prompt = maker.prompt(example, LIMIT)
    assert row.ids[: row.prompt_length].tolist() == prompt.token_ids.tolist()
    constraint = Constraint(prompt.rules)
    legal = dict(zip(row.choices, row.supports, strict=True))
    working = len(maker.tokenizer.encode_plain(example.working).ids)
    for place, token in enumerate(row.ids[row.prompt_length :].tolist()):
        mask = constraint.mask()
        inside = constraint.in_span
        constraint.consume(token)
        if inside and place in legal:
            assert token in legal[place]
            assert set(legal[place].tolist()) == set(mask.only.tolist())
        elif place < working:
            assert row.labels[place] == IGNORED
            assert not inside
        elif inside:
            assert row.labels[place] == IGNORED
            assert mask.only.tolist() == [token]
        else:
            assert row.labels[place] == token
    assert constraint.done
    wanted = [example.text(q) for q in example.evidence]
    if quote_answer and example.answer_at is not None:
        wanted.append(example.text(example.answer_at))
    assert len(constraint.spans) == len(wanted)
    for span, text in zip(constraint.spans, wanted, strict=True):
        run, position = span.occurrences[0]
        passage, start, end = prompt.locate(run, position, len(span.tokens))
        assert text.strip() in prompt.passages[passage].text[start:end]


@pytest.mark.parametrize("name", FAMILIES)
def test_most_examples_become_rows(row_maker: Callable[..., RowMaker], name: str) -> None:
    rng = random.Random(7)
    examples = [make(rng, size=300) for make in MAKERS for _ in range(20)]
    rows = [row_maker(name).row(example, limit=LIMIT) for example in examples]
    share = 0.4 if name == "wordpiece" else 0.8  # it has no token for some characters of tables
    assert sum(row is not None for row in rows) > share * len(examples)


def byte_maker(**changes: Any) -> RowMaker:
    tokenizer = ByteTokenizer()
    return RowMaker(tokenizer, trained_recipe(**changes), vocab_size=tokenizer.vocab_size)


EXAMPLE = TrainingExample(
    (("Ferry", "Boats are red. The ferry leaves at 9:30. It rains."),),
    "When does the ferry leave?",
    ("I look it up:", Quote(0, 15, 40), "\nClear."),
    "9:30",
    "own",
    Quote(0, 35, 39),
    reason="The timetable says so.",
)


def test_a_row_reads_as_the_model_would_write_it() -> None:
    maker = byte_maker()
    row = maker.row(EXAMPLE, limit=LIMIT)
    assert row is not None
    shown = maker.tokenizer.detokenizer()
    said = "".join(shown.feed(int(t)) for t in row.ids[row.prompt_length :]) + shown.flush()
    assert "I look it up:" in said
    assert "The ferry leaves at 9:30." in said
    assert said.index("Clear.") < said.index("\n\nThe timetable says so.\nAnswer: 9:30")


def test_working_stands_first_and_is_given() -> None:
    maker = byte_maker()
    plain = maker.row(EXAMPLE, limit=LIMIT)
    worked = maker.row(replace(EXAMPLE, working="2 + 3 = 5. "), limit=LIMIT)
    assert plain is not None
    assert worked is not None
    assert len(worked.ids) == len(plain.ids) + 11
    assert (worked.labels[:11] == IGNORED).all()
    assert worked.labels[11:].tolist() == plain.labels.tolist()
    shown = maker.tokenizer.detokenizer()
    said = "".join(shown.feed(int(t)) for t in worked.ids[worked.prompt_length :]) + shown.flush()
    assert said.startswith("2 + 3 = 5. I look it up:")


def test_what_is_forced_is_not_learnt() -> None:
    row = byte_maker().row(EXAMPLE, limit=LIMIT)
    assert row is not None
    forced = (row.labels == IGNORED).sum()
    assert 5 < forced < len(row.labels)
    assert row.learnt == len(row.labels) - forced


def test_rows_over_the_limit_are_refused() -> None:
    row = byte_maker().row(EXAMPLE, limit=LIMIT)
    assert row is not None
    assert byte_maker().row(EXAMPLE, limit=len(row.ids)) is not None
    assert byte_maker().row(EXAMPLE, limit=len(row.ids) - 1) is None
    assert byte_maker().row(EXAMPLE, limit=10) is None


def test_quotes_grow_to_whole_words_and_too_long_ones_are_refused() -> None:
    maker = byte_maker()
    prompt = maker.prompt(EXAMPLE, LIMIT)
    found = quote_range(prompt, Quote(0, 36, 38))  # amid 9:30
    assert found is not None
    first, end = found
    run = prompt.runs[0]
    assert run.starts[first - run.first] in (34, 35)
    assert run.ends[end - 1 - run.first] == 39
    text = "word " * 200
    long = TrainingExample((("", text),), "q", (Quote(0, 0, 900),), None, "own")
    assert maker.row(long, limit=LIMIT) is None


def test_prompted_models_are_refused() -> None:
    tokenizer = ByteTokenizer()
    with pytest.raises(CheckpointError, match="recallm model create"):
        RowMaker(tokenizer, Recipe(), vocab_size=tokenizer.vocab_size)
