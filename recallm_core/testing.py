"""Offline stand-ins with which people test their own chains, under the true constraint.

``scripted_llm`` gives a ``RecaLLM`` whose model is a script: what it would like to say. The
decoding constraint is the real one, so a quote that isn't in the documents can't be produced even
by a script that asks for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from recallm_core.backends import FinishReason, GenerationRequest
from recallm_core.constraint import Constraint, Mask
from recallm_core.errors import GenerationError
from recallm_core.generator import RecaLLM
from recallm_core.recipe import Recipe, trained_recipe
from recallm_core.tokenizer import ByteDetokenizer, Detokenizer, PlainTokens

CONTROL = ("<|start_recall|>", "<|end_recall|>", "<think>", "</think>", "<|turn|>", "<|eos|>")
OPEN, CLOSE, THINK, THINK_END, TURN, EOS = range(256, 256 + len(CONTROL))

Script = str | Callable[[str], str]


class ByteTokenizer:
    """One token per byte, six control tokens above them; no file, no download."""

    vocab_size = 256 + len(CONTROL)
    fingerprint = "recallm-byte-tokenizer-1"
    control_ids = frozenset(range(256, 256 + len(CONTROL)))
    eos_ids = (EOS,)

    def encode_plain(self, text: str) -> PlainTokens:
        """One id per UTF-8 byte."""
        data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
        begins = (data & 0xC0) != 0x80
        at = (np.cumsum(begins) - 1).astype(np.int32)
        ids = data.astype(np.int32)
        return PlainTokens(ids, at, at + np.int32(1), np.ones(len(ids), dtype=np.bool_))

    def encode_template(self, text: str) -> list[int]:
        """Like plain text, but control tokens are recognised."""
        ids: list[int] = []
        while text:
            for number, mark in enumerate(CONTROL):
                if text.startswith(mark):
                    ids.append(256 + number)
                    text = text[len(mark) :]
                    break
            else:
                ids.extend(text[0].encode("utf-8"))
                text = text[1:]
        return ids

    def control_id(self, token: str) -> int | None:
        """The id of one of ``CONTROL``."""
        return 256 + CONTROL.index(token) if token in CONTROL else None

    def token_bytes(self, token: int) -> bytes | None:
        """The byte itself."""
        return bytes([token]) if 0 <= token < 256 else None

    def detokenizer(self) -> Detokenizer:
        """A fresh incremental decoder."""
        return ByteDetokenizer(self)

    def render_chat(self, messages: Sequence[Mapping[str, str]], **_: Any) -> str:
        """One ``<|turn|>`` before each message, and one for the reply."""
        return "".join(f"<|turn|>{m['role']}\n{m['content']}" for m in messages) + "<|turn|>"


class ScriptedBackend:
    """A model that follows a script as far as the constraint lets it.

    Args:
        script: What to say, or a function of the question's prompt text that returns it. Control
            tokens are written out: ``<|start_recall|>words of a document<|end_recall|></think>The
            answer.``. Anything after the script is end-of-sequence. Where the constraint forbids a
            token of the script, it is skipped; inside a span the copy goes on along the nearest
            legal token until it may close.
        window: Tokens of input and output together.
        tokens_per_chunk: How many tokens a stream yields at once.
        fail_after: Raise after this many tokens, to test error handling.
    """

    in_process = True

    def __init__(
        self,
        script: Script = "",
        *,
        tokenizer: ByteTokenizer | None = None,
        window: int = 1_000_000,
        tokens_per_chunk: int = 1,
        fail_after: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer or ByteTokenizer()
        self.vocab_size = self.tokenizer.vocab_size
        self.window = window
        self.requests: list[GenerationRequest] = []
        self.closed_streams = 0
        self._script = script
        self._chunk = max(1, tokens_per_chunk)
        self._fail_after = fail_after
        self._lock = threading.Lock()

    def generate(self, request: GenerationRequest) -> ScriptedStream:
        """Starts a stream; nothing is computed before it is read."""
        with self._lock:
            self.requests.append(request)
        text = bytes(t for t in request.token_ids.tolist() if t < 256).decode("utf-8", "replace")
        script = self._script if isinstance(self._script, str) else self._script(text)
        wanted = self.tokenizer.encode_template(script)
        return ScriptedStream(self, request, wanted, self._chunk, self._fail_after)

    def close(self) -> None:
        """Nothing to free."""


class ScriptedStream:
    """The tokens of one scripted request."""

    cached_tokens = 0

    def __init__(
        self,
        backend: ScriptedBackend,
        request: GenerationRequest,
        wanted: list[int],
        chunk: int,
        fail_after: int | None,
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self._backend = backend
        self._limit = request.sampling.max_new_tokens
        self._fail_after = fail_after
        self._tokens = self._walk(request.rules.start(request.prior), wanted)
        self._chunk = chunk
        self._given = 0

    def _walk(self, constraint: Constraint, wanted: list[int]) -> Iterator[int]:
        script = iter(wanted)
        closing = False
        while not constraint.done:
            closing = closing and constraint.in_span
            token = None if closing else self._follow(constraint, script)
            if token is None:
                closing = constraint.in_span
                token = _next_best(constraint.mask())
            constraint.consume(token)
            yield token

    @staticmethod
    def _follow(constraint: Constraint, script: Iterator[int]) -> int | None:
        """The next token of the script that is legal; None where a span has to find its end."""
        mask = constraint.mask()
        for token in script:
            if mask.allows(token):
                return token
            if constraint.in_span and token == CLOSE:
                return None
        return None

    def __iter__(self) -> ScriptedStream:
        return self

    def __next__(self) -> tuple[int, ...]:
        out: list[int] = []
        while self.finish_reason is None and len(out) < self._chunk:
            if self._fail_after is not None and self._given >= self._fail_after:
                raise GenerationError("the scripted backend failed, as it was told to")
            if self._given >= self._limit:
                self.finish_reason = "length"
                break
            token = next(self._tokens, None)
            if token is None:
                self.finish_reason = "stop"
                break
            self._given += 1
            out.append(token)
        if not out:
            raise StopIteration
        return tuple(out)

    def close(self) -> None:
        """Ends the stream."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled"
            self._backend.closed_streams += 1


def _next_best(mask: Mask) -> int:
    if mask.only is not None:
        return CLOSE if mask.allows(CLOSE) else int(mask.only[0])
    return EOS if mask.allows(EOS) else THINK_END


def scripted_llm(
    script: Script = "", *, recipe: Recipe | None = None, **backend_options: Any
) -> RecaLLM:
    """Returns a ``RecaLLM`` that follows a script under the true constraint.

    Args:
        script: See ``ScriptedBackend``.
        recipe: How the model is driven; a trained one by default.
        backend_options: Further arguments of ``ScriptedBackend``.
    """
    backend = ScriptedBackend(script, **backend_options)
    chosen = recipe or trained_recipe(sampling={"temperature": 0.0})
    return RecaLLM(backend.tokenizer, backend, chosen, name="scripted")
