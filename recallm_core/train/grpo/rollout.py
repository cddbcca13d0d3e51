"""Attempts at problems: made by this library's engine, under the constraint, and rewarded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from recallm_core.backends import Backend, GenerationRequest, Sampling
from recallm_core.tokenization.tokenizer import Tokenizer
from recallm_core.train.grpo.problems import Task
from recallm_core.train.grpo.response import read_response
from recallm_core.train.grpo.rewards import RewardParts, RewardRules, reward


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt.

    Attributes:
        tokens: Its ids, the end of the sequence included.
        log_probs: Of each, among those that were legal, at the temperature of the attempt.
        parts: Its reward.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    parts: RewardParts


def attempts(
    backend: Backend,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    rules: RewardRules,
    *,
    temperature: float,
    response_tokens: int,
) -> list[Attempt]:
    """Makes one attempt at each task; all at once, as far as the backend's memory goes.

    Args:
        backend: Has to tell log-probabilities: one in this process, or a server for training.
        tokenizer: The model's.
        tasks: A problem may come several times.
        seeds: One for each.
        rules: Of the reward.
        temperature: Of the attempts.
        response_tokens: Longest attempt.
    """
    all_log_probs: list[list[float]] = [[] for _ in tasks]
    streams = []
    for task, seed, log_probs in zip(tasks, seeds, all_log_probs, strict=True):
        sampling = Sampling(response_tokens, temperature, 1.0, seed)
        prompt = task.prompt
        size = len(prompt.token_ids)
        streams.append(
            backend.generate(
                GenerationRequest(
                    prompt.token_ids,
                    prompt.rules,
                    sampling,
                    prefix_length=size,
                    log_probs=log_probs.append,
                )
            )
        )
    results = []
    for task, stream, log_probs in zip(tasks, streams, all_log_probs, strict=True):
        tokens = tuple(token for piece in stream for token in piece)
        response = read_response(task.prompt, tokenizer, tokens)
        parts = reward(response, task.problem, rules)
        results.append(Attempt(tokens, tuple(log_probs[: len(tokens)]), parts))
    return results


def attempt_seed(seed: int, step: int, place: int) -> int:
    """Returns the seed of one attempt: the same after a break, and on any number of processes.

    Args:
        seed: Of the run.
        step: Optimizer steps done.
        place: Of the attempt among those of the step, over all processes.
    """
    text = f"{seed}/{step}/0/{place}".encode()  # as runs that may go on had it, on one process
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big")


def digest(values: Sequence[int] | Sequence[str]) -> str:
    """Returns what tells the tokens of an attempt, or the digests of a batch, from others."""
    return hashlib.blake2b(repr(list(values)).encode(), digest_size=8).hexdigest()
