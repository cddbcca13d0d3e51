"""The constraint inside ``model.generate``: greedy, sampled, beams, copies of rows, assistants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from recallm_core.backends.local.logits_processor import RecallLogitsProcessor
from recallm_core.decoding.constraint import ConstraintRules
from recallm_core.errors import ConstraintError

PAD = 0


@pytest.fixture(scope="module")
def model(kit: Any) -> Any:
    return kit.fresh_model(seed=11)


def generate(
    model: Any, rules: list[ConstraintRules], prompts: list[np.ndarray], **settings: Any
) -> list[list[int]]:
    """Runs ``model.generate`` over left-padded prompts; outputs without prompt and padding."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p.tolist() for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    values = {"do_sample": False, "max_new_tokens": 40, "pad_token_id": PAD} | settings
    out = model.generate(
        ids,
        attention_mask=mask,
        logits_processor=[RecallLogitsProcessor(rules, ids)],
        **values,
    )
    rows = []
    for row in out[:, width:].tolist():
        rows.append(row[: row.index(299) + 1] if 299 in row else row)
    return rows


@pytest.fixture(scope="module")
def case(kit: Any) -> tuple[list[np.ndarray], list[ConstraintRules]]:
    prompts = [kit.prompt(40 + 11 * seed, seed, alphabet=40) + 1 for seed in range(3)]
    return prompts, [kit.rules(ids, seed) for seed, ids in enumerate(prompts)]


def count_spans(
    kit: Any, rules: list[ConstraintRules], prompts: list[np.ndarray], rows: list[list[int]]
) -> int:
    """Replays every output under its own prompt's rules; anything illegal raises."""
    found = 0
    for number, row in enumerate(rows):
        prompt = number * len(prompts) // len(rows)
        found += len(kit.spans(kit.request(prompts[prompt], rules[prompt]), row))
    return found


def test_greedy_is_what_the_backend_gives(kit: Any, model: Any, case: Any) -> None:
    prompts, rules = case
    rows = generate(model, rules, prompts)
    expected = [
        kit.reference(model, kit.request(ids, r)) for ids, r in zip(prompts, rules, strict=True)
    ]
    assert rows == expected


@pytest.mark.parametrize("policy", ["first", "required"])
def test_greedy_is_what_the_backend_gives_where_evidence_is_owed(
    kit: Any, model: Any, backend_of: Any, policy: str
) -> None:
    ids = kit.prompt(60, 3, alphabet=40) + 1
    rules = kit.rules(ids, 3, evidence=kit.policies[policy])
    expected = kit.reference(model, kit.request(ids, rules))
    assert generate(model, [rules], [ids]) == [expected]
    assert kit.read(backend_of(model), kit.request(ids, rules)) == expected
    assert kit.spans(kit.request(ids, rules), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "num_return_sequences": 4},
        {"num_beams": 4},
        {"num_beams": 4, "num_return_sequences": 3},
        {"num_beams": 3, "do_sample": True},
        {"do_sample": True, "top_k": 5, "repetition_penalty": 3.0},
        {"no_repeat_ngram_size": 2},
        {"suppress_tokens": list(range(0, 280, 2))},
    ],
    ids=str,
)
def test_every_span_is_verbatim(kit: Any, model: Any, case: Any, settings: dict[str, Any]) -> None:
    prompts, rules = case
    torch.manual_seed(0)
    rows = generate(model, rules, prompts, **settings)
    assert len(rows) == 3 * settings.get("num_return_sequences", 1)
    assert count_spans(kit, rules, prompts, rows) > 0


@pytest.mark.parametrize("how", ["lookup", "assistant"])
def test_drafted_tokens_change_nothing(kit: Any, model: Any, case: Any, how: str) -> None:
    prompts, rules = case
    settings: dict[str, Any] = {"prompt_lookup_num_tokens": 5}
    if how == "assistant":
        settings = {"assistant_model": kit.fresh_model(seed=12)}
    for ids, r in zip(prompts[:2], rules[:2], strict=True):
        rows = generate(model, [r], [ids], **settings)
        assert rows == [kit.reference(model, kit.request(ids, r))]
        assert count_spans(kit, [r], [ids], rows) > 0


def test_scores_are_replaced_never_added_to_and_never_written_to(kit: Any, case: Any) -> None:
    prompts, rules = case
    ids = torch.tensor(prompts[0])[None]
    processor = RecallLogitsProcessor(rules[:1], ids)
    scores = torch.randn(1, kit.vocab)
    before = scores.clone()
    state = rules[0].start()
    output: list[int] = []
    for token in kit.reference(kit.model(), kit.request(prompts[0], rules[0])):
        full = torch.cat([ids, torch.tensor([output], dtype=torch.long)], dim=1)
        found = processor(full, scores)
        assert found is not scores
        assert torch.equal(scores, before)
        legal = torch.tensor([state.mask().allows(t) for t in range(kit.vocab)])
        assert torch.equal(found[0][legal], scores[0][legal])
        assert (found[0][~legal] == -torch.inf).all()
        state.consume(token)
        output.append(token)


def test_what_is_legal_depends_on_the_ids_alone(kit: Any, case: Any) -> None:
    prompts, rules = case
    ids = torch.tensor(prompts[1])[None]
    output = kit.reference(kit.model(), kit.request(prompts[1], rules[1]))
    shared = RecallLogitsProcessor(rules[1:2], ids)
    scores = torch.zeros(1, kit.vocab)
    for cut in np.random.default_rng(0).permutation(len(output)).tolist():
        full = torch.cat([ids, torch.tensor([output[:cut]], dtype=torch.long)], dim=1)
        fresh = RecallLogitsProcessor(rules[1:2], ids)
        assert torch.equal(shared(full, scores), fresh(full, scores))


@pytest.mark.parametrize("seed", range(4))
def test_rows_may_become_each_other_in_a_buffer_that_is_written_over(
    kit: Any, case: Any, seed: int
) -> None:
    prompts, rules = case
    ids = torch.tensor(prompts[2])[None]
    shared = RecallLogitsProcessor(rules[2], ids)
    source = np.random.default_rng(seed)
    buffer = torch.cat([ids.repeat(4, 1), torch.zeros(4, 40, dtype=torch.long)], dim=1)
    rows: list[list[int]] = [[], [], [], []]
    opened = 0
    for length in range(40):
        width = ids.shape[1] + length
        buffer[:, ids.shape[1] : width] = torch.tensor(rows)
        scores = torch.randn(4, kit.vocab)
        expected = RecallLogitsProcessor(rules[2], ids)(buffer[:, :width], scores)
        assert torch.equal(shared(buffer[:, :width], scores), expected)
        legal = torch.isfinite(expected)
        parents = source.integers(0, 4, 4) if source.random() < 0.7 else np.arange(4)
        rows = [[*rows[p], _drawn(kit, legal[p], source)] for p in parents.tolist()]
        opened += sum(row[-1] == kit.open for row in rows)
    assert opened


def _drawn(kit: Any, legal: torch.Tensor, source: np.random.Generator) -> int:
    """A legal token; marks more often than chance has them."""
    marks = [mark for mark in (kit.open, kit.close) if legal[mark]]
    if marks and source.random() < 0.3:
        return marks[0]
    return int(source.choice(np.flatnonzero(legal.numpy())))


def test_misuse_is_named(kit: Any, case: Any) -> None:
    prompts, rules = case
    ids = torch.tensor(prompts[0])[None]
    scores = torch.zeros(1, kit.vocab)
    with pytest.raises(ConstraintError, match="2 for 1 prompts"):
        RecallLogitsProcessor(rules[:2], ids)
    with pytest.raises(ConstraintError, match="don't begin with the prompts"):
        RecallLogitsProcessor(rules[0], ids)(ids + 1, scores)
    with pytest.raises(ConstraintError, match="inputs_embeds"):
        RecallLogitsProcessor(rules[0], ids)(ids[:, :0], scores)
    with pytest.raises(ConstraintError, match="301 wide"):
        RecallLogitsProcessor(rules[0], ids)(ids, torch.zeros(1, 301))
