"""Tools and schemas in the constraint: recall while thinking, grammar after it, never both."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.decoding.constraint import ConstraintRules, Effect, build_index
from recallm_core.decoding.grammar import GrammarEngine, ToolSpec, calls_grammar, schema_grammar
from recallm_core.decoding.spec import ConstraintSpec, GrammarSpec, Tag, hash_tokens
from recallm_core.decoding.tags import text_tag
from recallm_core.errors import ConstraintError
from recallm_core.testing import CLOSE, EOS, OPEN, THINK_END, ByteTokenizer

TOKENIZER = ByteTokenizer()
ENGINE = GrammarEngine(TOKENIZER, vocab_size=TOKENIZER.vocab_size)
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["n"],
}
TOOLS = [ToolSpec("f", "", SCHEMA), ToolSpec("g")]
DOCUMENT = "The port is 8443."


def rules(grammar: GrammarSpec, *, thinking: bool = True) -> ConstraintRules:
    ids = np.array(list(DOCUMENT.encode()), dtype=np.int32)
    everywhere = np.ones(len(ids), dtype=np.bool_)
    spec = ConstraintSpec(
        prompt_length=len(ids),
        prompt_hash=hash_tokens(ids),
        vocab_size=TOKENIZER.vocab_size,
        runs=((0, len(ids)),),
        can_start=everywhere,
        can_end=everywhere,
        can_end_hard=everywhere,
        open=Tag("<|start_recall|>", (OPEN,)),
        close=Tag("<|end_recall|>", (CLOSE,)),
        think_close=Tag("</think>", (THINK_END,)),
        thinking=thinking,
        eos=(EOS,),
        max_thinking_tokens=30,
        grammar=grammar,
    )
    spec = ConstraintSpec.from_json(spec.to_json())
    return ConstraintRules(spec, build_index(spec, ids), ENGINE)


def calls(*, required: bool, parallel: bool = True) -> GrammarSpec:
    return GrammarSpec(
        call=calls_grammar(TOOLS),
        call_open=text_tag(TOKENIZER, "<tool_call>"),
        call_close=text_tag(TOKENIZER, "</tool_call>"),
        required=required,
        parallel=parallel,
    )


def walk(bound: ConstraintRules, seed: int, limit: int = 600) -> tuple[str, list[Effect]]:
    """A random legal output as text, marks written out, and what each token did."""
    chance = random.Random(seed)
    constraint = bound.start()
    text, effects = bytearray(), []
    names = {OPEN: b"[", CLOSE: b"]", THINK_END: b"|", EOS: b""}
    while not constraint.done and len(effects) < limit:
        mask = constraint.mask()
        if mask.only is not None:
            legal = mask.only.tolist()
        else:
            forbidden = set(mask.forbid.tolist())  # type: ignore[union-attr]
            legal = [t for t in (*b"<t a", OPEN, THINK_END, EOS) if t not in forbidden]
        assert legal
        token = EOS if EOS in legal and chance.random() < 0.3 else chance.choice(legal)
        effects.append(constraint.consume(token))
        text += names.get(token, bytes([token]) if token < 256 else b"?")
    assert constraint.done
    return text.decode("utf-8", "replace"), effects


SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_a_schema_rules_the_whole_answer(seed: int) -> None:
    text, effects = walk(rules(GrammarSpec(answer=schema_grammar(SCHEMA))), seed)
    answer = text.split("|", 1)[1]
    assert 0 <= json.loads(answer)["n"] <= 99
    assert effects[-1] is Effect.ENDED


@given(SEEDS, st.booleans())
def test_a_required_call_comes_first_and_fits_its_tool(seed: int, thinking: bool) -> None:
    bound = rules(calls(required=True, parallel=False), thinking=thinking)
    text, effects = walk(bound, seed)
    answer = text.split("|", 1)[-1]
    assert answer.startswith("<tool_call>\n")
    assert answer.endswith("\n</tool_call>")
    call = json.loads(answer.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert call["name"] in ("f", "g")
    assert effects.count(Effect.CALL_OPENED) == effects.count(Effect.CALL_CLOSED) == 1


@given(SEEDS)
def test_an_offered_call_is_whole_wherever_it_begins(seed: int) -> None:
    text, effects = walk(rules(calls(required=False)), seed)
    opened = effects.count(Effect.CALL_OPENED)
    assert opened == effects.count(Effect.CALL_CLOSED) == text.count("<tool_call>")
    answer = text.split("|", 1)[1]
    for piece in answer.split("<tool_call>")[1:]:
        assert piece.endswith("</tool_call>")
        json.loads(piece.removesuffix("</tool_call>"))


@given(data=st.data())
def test_rollback_takes_a_call_back(data: st.DataObject) -> None:
    bound = rules(calls(required=True), thinking=False)
    constraint = bound.start()
    taken: list[int] = []
    while len(taken) < 40 and not constraint.done:
        only = constraint.mask().only
        assert only is not None
        taken.append(data.draw(st.sampled_from(only.tolist())))
        constraint.consume(taken[-1])
    back = data.draw(st.integers(0, len(taken)))
    constraint.rollback(back)
    fresh = bound.start()
    for token in taken[: len(taken) - back]:
        fresh.consume(token)
    left, right = constraint.mask(), fresh.mask()
    assert left.only is not None
    assert right.only is not None
    assert left.only.tolist() == right.only.tolist()


def test_a_call_can_not_begin_while_thinking() -> None:
    constraint = rules(calls(required=False)).start()
    for token in b"<tool_call":
        constraint.consume(token)
    assert not constraint.mask().allows(ord(">"))


def test_half_a_grammar_is_refused() -> None:
    with pytest.raises(ConstraintError, match="either the whole answer or tool calls"):
        GrammarSpec()
    with pytest.raises(ConstraintError, match="both marks"):
        GrammarSpec(call=calls_grammar(TOOLS))
    bound = rules(calls(required=True))
    with pytest.raises(ConstraintError, match="need a grammar engine"):
        ConstraintRules(bound.spec, bound.index)
    plain = ConstraintRules(replace(bound.spec, grammar=None), bound.index)
    assert plain.start().mask().only is None
