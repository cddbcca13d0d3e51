"""Proof, before any answer, that vLLM's processor acts: a constraint sent must change what comes.

Unknown members of a request are ignored in silence by vLLM. So a server without the processor, or
with a misspelt argument, would answer as if all were well; this asks it twice, once with a
constraint that leaves one possible output, and once without. An engine in process is asked too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

import numpy as np

from recallm_core.backends.vllm.base import RemoteBackend
from recallm_core.backends.vllm.http import START, ServerBackend
from recallm_core.decoding.spec import ConstraintSpec, Tag, hash_tokens
from recallm_core.errors import ServerError
from recallm_core.tokenization.tokenizer import HFTokenizer, Tokenizer

_COPY = 4
_NUDGE = 100.0  # the largest logit bias there is: a model opens the span that it never learned to


def check_processor(backend: RemoteBackend, tokenizer: Tokenizer) -> None:
    """Checks that a constraint is obeyed, by copying four random tokens with and without one.

    Raises:
        GenerationError: The constraint isn't obeyed, or the output is the same without it.
    """
    prompt, spec, expected = probe(_ordinary(tokenizer), backend.vocab_size)
    more = {"logit_bias": {expected[0]: _NUDGE}, "ignore_eos": True}
    bound = backend.complete(prompt, len(expected), spec=spec.to_json(), **more)
    free = backend.complete(prompt, len(expected), spec=None, **more)
    if bound != expected or free == expected:
        raise backend.error(
            f"{backend.where} doesn't hold its output to a constraint: of the only legal output "
            f"{expected} it made {bound[:20]}, and without the constraint {free[:20]}; "
            f"{backend.fix}"
        )


def probe(ids: Iterable[int], vocab_size: int) -> tuple[list[int], ConstraintSpec, list[int]]:
    """Returns a prompt, a constraint and the one output that it leaves once a span is open.

    Args:
        ids: At least seven distinct ids of ordinary tokens.
        vocab_size: Width of the logits.
    """
    opened, closed, ended, *copied = ids
    prompt = copied[:_COPY]
    marks = np.zeros(_COPY, dtype=np.bool_)
    first, last = marks.copy(), marks.copy()
    first[0], last[-1] = True, True
    spec = ConstraintSpec(
        prompt_length=_COPY,
        prompt_hash=hash_tokens(np.array(prompt, dtype=np.int32)),
        vocab_size=vocab_size,
        runs=((0, _COPY),),
        can_start=first,
        can_end=last,
        can_end_hard=last,
        open=Tag("<probe>", (opened,)),
        close=Tag("</probe>", (closed,)),
        think_close=None,
        thinking=False,
        eos=(ended,),
        max_span_tokens=_COPY,
    )
    return prompt, spec, [opened, *prompt, closed]


def _ordinary(tokenizer: Tokenizer) -> list[int]:
    """Random ids of ordinary tokens; which ones, nobody can know before."""
    controls = tokenizer.control_ids
    plain = [i for i in range(tokenizer.vocab_size) if i not in controls]
    count = _COPY + 3
    if len(plain) < count:
        raise ServerError(f"the server's tokenizer has only {len(plain)} ordinary tokens")
    return random.sample(plain, count)


def check_tokenizer(backend: ServerBackend, tokenizer: HFTokenizer) -> None:
    """Checks that a local tokenizer encodes some texts just as the server's own does.

    Raises:
        ServerError: They differ, or the server can't be asked.
    """
    for text in _TEXTS:
        body = {"model": backend.model, "prompt": text, "add_special_tokens": False}
        reply = backend.connection.post("/tokenize", body, limit=100_000)
        try:
            served_ids = None if reply is None else json.loads(reply)["tokens"]
        except (KeyError, TypeError, ValueError, RecursionError):
            served_ids = None
        if served_ids is None:
            raise ServerError(
                f"{backend.connection.url} can't be asked for its tokenizer (/tokenize); {START}"
            )
        local_ids = tokenizer.tokenizer.encode(text, add_special_tokens=False)
        if served_ids != local_ids:
            raise ServerError(
                f"the tokenizer given isn't the one of {backend.connection.url}: {text[:40]!r} is "
                f"{local_ids[:12]} here and {str(served_ids)[:80]} there; give the served model's "
                "own folder"
            )


_TEXTS = (
    "The quick brown fox, 1,234.5 km away; naïve café: 東京 — Привет! 🙂\n\tdef f(x): x",
    "antidisestablishmentarianism Überraschungsmoment ελληνικά العربية हिन्दी 한국어 ไทย",
)
