"""A model behind a vLLM server over HTTP: token ids out and in, streamed, cancellable, pooled."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any

from recallm_core.backends import Sampling
from recallm_core.backends.vllm.base import RemoteBackend
from recallm_core.backends.vllm.connection import Connection
from recallm_core.backends.vllm.manifest import ADAPTERS_PATH, PROCESSOR
from recallm_core.backends.vllm.wire import (
    COMPLETIONS_PATH,
    Allowance,
    OutputChunk,
    completion,
    events,
    read_event,
)
from recallm_core.errors import ServerError

START = (
    "start it with: recallm serve MODEL   (or: vllm serve MODEL --logits-processors " + PROCESSOR
) + ")"

_MAX_REPLY = 100_000  # bytes of a reply to a request that isn't for tokens


class ServerBackend(RemoteBackend):
    """A served model; safe to call from many threads, its requests share the server's batches.

    ``recallm_core.backends.vllm.connect.connect`` makes one from an address, and checks the server.

    Args:
        connection: The way to the server.
        model: The name under which the model is served.
        window: Its context length: tokens that it can attend to, input and output together.
        vocab_size: Width of its logits.
        cache_salt: Only requests with the same salt share the server's prefix cache.
    """

    error = ServerError
    who = "the server"
    fix = START

    def __init__(
        self,
        connection: Connection,
        *,
        model: str,
        window: int,
        vocab_size: int,
        cache_salt: str | None = None,
    ) -> None:
        super().__init__(window=window, vocab_size=vocab_size)
        self.connection = connection
        self.model = model
        self._salt = cache_salt

    def __repr__(self) -> str:
        return f"ServerBackend({self.connection.url!r}, model={self.model!r})"

    @property
    def where(self) -> str:
        """The server's address."""
        return self.connection.url

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Runs a coroutine on the connection's loop."""
        return self.connection.start(work)

    def prepare(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        eos: Sequence[int],
        spec: str | None,
        **more: Any,
    ) -> tuple[bytes, int, int]:
        """Returns the body of a request, and the tokens of its prompt and of its answer."""
        body = completion(
            self.model, prompt, sampling, eos=eos, spec=spec, cache_salt=self._salt, **more
        )
        return json.dumps(body).encode(), len(prompt), sampling.max_new_tokens

    async def chunks(self, prepared: tuple[bytes, int, int]) -> AsyncGenerator[OutputChunk, None]:
        """Yields the events of one answer; closing this closes the request's connection."""
        body, size, max_tokens = prepared
        connection = self.connection
        async with (
            connection.open_reply("POST", COMPLETIONS_PATH, body) as response,
            aclosing(connection.chunks(response)) as data,
        ):
            may = Allowance(prompt_tokens=size, max_tokens=max_tokens, timeout=connection.timeout)
            async with aclosing(events(data, prompt_tokens=size, allowance=may)) as stream:
                async for event in stream:
                    chunk = read_event(event, vocab_size=self.vocab_size)
                    if chunk.tokens:
                        may.progress()
                    yield chunk

    def use_adapter(self, name: str) -> None:
        """Has the server load an adapter by name; from now on it answers with that.

        Args:
            name: A folder in the one that the server was started with (``--adapters``).

        Raises:
            ServerError: It takes none, has none of that name, or vLLM can't use it.
        """
        if self.connection.post(ADAPTERS_PATH + name, {}, limit=_MAX_REPLY) is None:
            raise ServerError(
                f"{self.where} takes no adapters; start it with: recallm serve MODEL --adapters "
                "FOLDER"
            )
        self.model = name

    def close(self) -> None:
        """Ends all streams and closes the connections; safe to call twice."""
        self.connection.close()
