"""What every backend refuses before it generates: requests that make no sense for its model."""

from __future__ import annotations

import math

import numpy as np

from recallm_core.backends import GenerationRequest, Sampling
from recallm_core.errors import ConstraintError, ContextOverflowError

FORKED = (
    "the model was loaded before this process was forked, and its thread stayed behind; load the "
    "model in the child, or start children with 'spawn'"
)


def check_request(request: GenerationRequest, *, vocab_size: int, context_length: int) -> None:
    """Checks a request against a model's sizes.

    Raises:
        ContextOverflowError: Prompt and output don't fit the context length.
        ConstraintError: The request's rules were made for another vocabulary.
        ValueError: The prompt is empty, or a value is out of range.
    """
    ids, spec = request.token_ids, request.rules.spec
    if not len(ids):
        raise ValueError("the prompt has no tokens; there is nothing to continue")
    if int(np.min(ids)) < 0 or int(np.max(ids)) >= vocab_size:
        raise ValueError(
            f"prompt token ids must be in [0, {vocab_size}), the model's vocabulary, got "
            f"{int(np.min(ids))} to {int(np.max(ids))}; tokenizer and model don't belong "
            "together"
        )
    check_sampling(request.sampling)
    if len(ids) + request.sampling.max_new_tokens > context_length:
        raise ContextOverflowError(len(ids), request.sampling.max_new_tokens, context_length)
    if spec.vocab_size != vocab_size:
        raise ConstraintError(
            f"the rules were made for logits {spec.vocab_size:,} wide, the model's are "
            f"{vocab_size:,} wide; build them with this backend's vocab_size"
        )
    if not 0 <= request.prefix_length <= len(ids):
        raise ValueError(
            f"prefix_length must be between 0 and the {len(ids)} tokens of the prompt, "
            f"got {request.prefix_length}"
        )


def check_sampling(sampling: Sampling) -> None:
    """Checks that sampling values make sense.

    Raises:
        ValueError: One doesn't.
    """
    if sampling.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {sampling.max_new_tokens}")
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        raise ValueError(f"temperature must be 0 (greedy) or more, got {sampling.temperature}")
    if not 0 < sampling.top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {sampling.top_p}")
