"""The problems of a run by number; each follows from the seed and its number alone."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from recallm_core.documents.document import Passage
from recallm_core.errors import RecallmError
from recallm_core.prompting.builder import Prompt, PromptBuilder
from recallm_core.prompting.params import GenerationParams
from recallm_core.tokenization.tokenizer import Tokenizer
from recallm_core.train.grpo.rewards import document_id
from recallm_core.train.tasks.curriculum import drawn_size
from recallm_core.train.tasks.families.problem import Problem
from recallm_core.train.tasks.families.registry import draw_problem
from recallm_core.train.tasks.families.sources import Sources

_TRIES = 60
_SAMPLE = "The quick survey of the harbour, made in 1987, lists 42 boats and their owners. "


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A problem as one model reads it."""

    problem: Problem
    prompt: Prompt


class Problems:
    """Draws the problems of a run, and builds their prompts.

    Args:
        builder: The model's prompt builder.
        tokenizer: The model's tokenizer.
        sources: What families draw from.
        shares: Share of each family.
        seed: Of all of them.
        prompt_tokens: Shortest and longest prompt.
        params: Of the attempts.
    """

    def __init__(
        self,
        builder: PromptBuilder,
        tokenizer: Tokenizer,
        sources: Sources,
        shares: Mapping[str, float],
        *,
        seed: int,
        prompt_tokens: tuple[int, int],
        params: GenerationParams,
    ) -> None:
        self._builder, self._sources, self._seed = builder, sources, seed
        self._names = sorted(name for name, share in shares.items() if share > 0)
        self._shares = [shares[name] for name in self._names]
        self._tokens = prompt_tokens
        self._params = params
        sampled = len(tokenizer.encode_plain(_SAMPLE * 4).ids)
        self._characters_per_token = 4 * len(_SAMPLE) / max(1, sampled)
        self.task = lru_cache(maxsize=256)(self._task)

    def _task(self, number: int) -> Task:
        """Returns the problem of a number; a prompt that is too long is drawn again, shorter.

        Raises:
            RecallmError: None fits, or the data folder lacks what a family reads.
        """
        rng = random.Random(f"{self._seed}:{number}")
        name = rng.choices(self._names, self._shares)[0]
        low, high = self._tokens
        tokens = drawn_size(rng, low, high)
        for _ in range(_TRIES):
            size = max(60, round(tokens * self._characters_per_token))
            task = self._built(draw_problem(name, rng, self._sources, size))
            if len(task.prompt.token_ids) <= high:
                return task
            tokens = max(16, tokens * 3 // 4)
        raise RecallmError(
            f"none of {_TRIES} problems of {name} fits {high:,} tokens; raise prompt_tokens, or "
            "leave the family out"
        )

    def _built(self, problem: Problem) -> Task:
        passages = [
            Passage(document_id(n), 0, len(text), text, title=title or None)
            for n, (title, text) in enumerate(problem.passages)
        ]
        question = [{"role": "user", "content": problem.question}]
        return Task(problem, self._builder.build(question, passages, self._params))
