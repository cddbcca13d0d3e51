"""A script to be written under the constraint, or under none: text, then a span, and so on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recallm_core.backends import GenerationRequest, Sampling
from recallm_core.decoding.constraint import ConstraintRules, Mask, build_index
from recallm_core.decoding.spec import ConstraintSpec, Tag, hash_tokens

TEXT, COPY = 24, 40  # tokens of text between spans, and of each span


class Free:
    """No constraint at all, where an engine expects one: every token is legal, always."""

    done = False
    _mask = Mask(only=None, forbid=np.zeros(0, dtype=np.int64))

    def __init__(self, rules: ConstraintRules) -> None:
        self.spec = rules.spec

    def start(self, prior: object = None) -> Free:
        """Nothing to keep, so one object serves all."""
        return self

    def mask(self) -> Mask:
        """Everything is legal."""
        return self._mask

    def consume(self, token: int) -> None:
        """Keeps nothing."""

    def rollback(self, count: int) -> None:
        """Keeps nothing."""

    def draft(self, count: int) -> list[int]:
        """Nothing can be foreseen."""
        return []


@dataclass(frozen=True)
class Case:
    """A prompt, its rules and what is to be written."""

    ids: np.ndarray
    rules: ConstraintRules
    script: list[int]

    def request(self, *, free: bool = False) -> GenerationRequest:
        """The request that writes the script."""
        rules: Any = Free(self.rules) if free else self.rules
        sampling = Sampling(max_new_tokens=len(self.script), temperature=0.0)
        return GenerationRequest(self.ids, rules, sampling)


def make_case(vocab: int, prompt: int, output: int, seed: int = 0) -> Case:
    """Passages of 200 tokens, and a script that recalls from them about half of the time."""
    rng = np.random.default_rng(seed)
    opening, closing, eos = vocab - 3, vocab - 2, vocab - 1
    ids = np.minimum(rng.zipf(1.2, prompt), vocab - 4).astype(np.int32)
    runs = tuple((at, at + 200) for at in range(8, prompt - 260, 210))
    size = 200 * len(runs)
    spec = ConstraintSpec(
        prompt_length=prompt,
        prompt_hash=hash_tokens(ids),
        vocab_size=vocab,
        runs=runs,
        can_start=np.ones(size, dtype=np.bool_),
        can_end=rng.random(size) < 0.7,  # the share of tokens that end a word
        can_end_hard=np.ones(size, dtype=np.bool_),
        open=Tag("<|start_recall|>", (opening,)),
        close=Tag("<|end_recall|>", (closing,)),
        think_close=None,
        thinking=False,
        eos=(eos,),
        max_spans=10_000,
    )
    rules = ConstraintRules(spec, build_index(spec, ids))
    script: list[int] = []
    while len(script) < output:
        script += rng.integers(0, vocab - 4, TEXT).tolist()
        start, _ = runs[rng.integers(len(runs))]
        start += int(rng.integers(0, 200 - 2 * COPY))
        script += [opening, *ids[start : start + COPY].tolist()]
        script += rest_of_span(rules, script)
    return Case(ids, rules, script[:output])


def rest_of_span(rules: ConstraintRules, script: list[int]) -> list[int]:
    """What is still needed to close the span that the script leaves open."""
    state = rules.start()
    for token in script:
        state.consume(token)
    more: list[int] = []
    while state.in_span:
        mask = state.mask()
        assert mask.only is not None
        more.append(
            int(mask.only[-1] if state.matcher and state.matcher.can_close else mask.only[0])
        )
        state.consume(more[-1])
    return more


def make_rules_for(case: Case, ids: np.ndarray) -> ConstraintRules:
    """The case's rules over a prompt that ends in another question."""
    return ConstraintRules(case.rules.spec, build_index(case.rules.spec, ids))
