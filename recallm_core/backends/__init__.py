"""What a backend is: token ids for prompts, under constraints, streamed and cancellable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.constraint import ConstraintRules, Prior
from recallm_core.prompting.params import DEFAULTS

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: Output tokens at most, thinking and marks included.
        temperature: 0 is greedy.
        top_p: Nucleus; 1 keeps everything.
        seed: Makes a sampled output reproducible, whatever else is in the batch; None: random.
    """

    max_new_tokens: int = DEFAULTS.max_new_tokens
    temperature: float = DEFAULTS.temperature
    top_p: float = DEFAULTS.top_p
    seed: int | None = DEFAULTS.seed


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """One sequence to generate.

    Attributes:
        token_ids: The prompt.
        rules: The constraint; the backend starts its own cursor with ``rules.start(prior)``.
        sampling: How tokens are chosen.
        prior: Recomputes the tilt of span starts in process; None: the static one of the spec.
        prefix_length: Tokens at the beginning of the prompt that other questions will share; a hint
            for a prefix cache.
        log_probs: Called with the log-probability of each token as it is chosen, among those that
            were legal; that of a forced token is 0. None: nobody asks. A server tells these only
            where it was started for training (``recallm serve --adapters``).
    """

    token_ids: NDArray[np.int32]
    rules: ConstraintRules
    sampling: Sampling
    prior: Prior | None = None
    prefix_length: int = 0
    log_probs: Callable[[float], None] | None = None


class TokenStream(Protocol):
    """The output of one request, as it comes.

    Iterating yields non-empty tuples of token ids; the end-of-sequence id is included. Closing the
    stream, or dropping it, stops the generation. An exception of the backend is raised to the
    iterating caller as ``GenerationError`` with the original as its cause.
    """

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that a cache spared; final once the first tokens have come."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it runs."""

    def __iter__(self) -> Iterator[tuple[int, ...]]: ...

    def __next__(self) -> tuple[int, ...]: ...

    def close(self) -> None:
        """Stops the generation and frees what it held; safe to call twice."""


class Backend(Protocol):
    """Runs a model. Safe to call from many threads; requests at the same time share batches."""

    @property
    def window(self) -> int:
        """Tokens that the model can attend to, input and output together."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def in_process(self) -> bool:
        """Whether a ``prior`` callable can be honoured."""

    def generate(self, request: GenerationRequest) -> TokenStream:
        """Queues a request and returns its stream at once."""

    def close(self) -> None:
        """Ends all streams and frees the model; safe to call twice."""
