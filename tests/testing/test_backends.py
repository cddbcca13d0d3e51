"""The stand-ins for a backend behave as their documentation says."""

from __future__ import annotations

import random

import pytest

from recallm_core.documents.document import Document
from recallm_core.errors import GenerationError
from recallm_core.testing import (
    EOS,
    RandomBackend,
    random_llm,
    random_walk,
    scripted_llm,
)

DOCUMENTS = [Document("The tower was finished in 1889. It is 330 metres tall.", "d")]


def test_a_stand_in_fails_where_it_is_told_to() -> None:
    for llm in (scripted_llm("x" * 50, fail_after=5), random_llm(fail_after=5)):
        with llm.stream("q", DOCUMENTS) as stream:
            got = []
            with pytest.raises(GenerationError, match="as it was told to"):
                got.extend(stream)
    assert scripted_llm("x", fail_after=10_000).answer("q", DOCUMENTS).finish_reason == "stop"


def test_requests_are_recorded_and_windows_kept() -> None:
    llm = random_llm(window=20_000)
    llm.answer("q", DOCUMENTS, seed=3, max_new_tokens=30)
    backend = llm.backend
    assert isinstance(backend, RandomBackend)
    (request,) = backend.requests
    assert request.sampling.seed == 3
    assert request.sampling.max_new_tokens == 30
    assert backend.window == 20_000


def test_random_models_repeat_themselves_by_seed() -> None:
    def said(seed: int) -> list[str]:
        llm = random_llm(seed, marks=0.3)
        return [llm.answer("q", DOCUMENTS, max_new_tokens=80).trace.reasoning for _ in range(3)]

    assert said(1) == said(1) != said(2)
    assert len(set(said(1))) == 3


def test_random_walks_reach_everything() -> None:
    llm = random_llm()
    rules = llm.prepare([{"role": "user", "content": "q"}], DOCUMENTS)[0].rules
    tokens, spans = set(), 0
    for seed in range(20):
        constraint = rules.start()
        tokens |= set(random_walk(constraint, random.Random(seed), marks=0.1))
        spans += len(constraint.spans)
    assert {256, 257, 259, EOS} <= tokens
    assert spans > 20
