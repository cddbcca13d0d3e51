"""Streams of text that are read once and can be read again: by handlers, tools and the user.

LlamaIndex hands a live stream to event handlers, drains it on another event loop when a tool wants
its text, and forgets the text afterwards. So the model is read by whoever comes first, in a worker
thread where the reader is asynchronous, and every piece is kept.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

from pydantic_core import SchemaSerializer, core_schema


class Recording:
    """The pieces of one stream: pulled on demand, each once, and kept.

    Args:
        source: The pieces; closed with the recording if it can be.
        on_end: Called once, before readers learn that the stream has ended.
    """

    def __init__(self, source: Iterator[str], on_end: Callable[[str], None] | None = None) -> None:
        self._source = source
        self._on_end = on_end
        self._pieces: list[str] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self.over = False

    def pulled_piece(self, number: int) -> str | None:
        """Returns a piece that was pulled before; None where it wasn't."""
        return self._pieces[number] if number < len(self._pieces) else None

    def piece(self, number: int) -> str | None:
        """Returns a piece, waiting for the model if it must; None after the last one.

        Raises:
            Exception: What the model raised, for every reader that comes so far.
        """
        with self._lock:
            if number < len(self._pieces):
                return self._pieces[number]
            if not self.over:
                self._pull()
            if self._error is not None:
                raise self._error
            return self.pulled_piece(number)

    def _pull(self) -> None:
        try:
            self._pieces.append(next(self._source))
        except StopIteration:
            self.over = True
            if self._on_end is not None:
                self._on_end(self.text)
        except BaseException as error:
            self.over, self._error = True, error
            raise

    @property
    def text(self) -> str:
        """All that was pulled so far."""
        return "".join(self._pieces)

    def all(self) -> str:
        """Returns the whole text, waiting for its end."""
        number = 0
        while self.piece(number) is not None:
            number += 1
        return self.text

    def close(self) -> None:
        """Stops the model; what was pulled stays."""
        with self._lock:
            if not self.over:
                self.over = True
                close = getattr(self._source, "close", None)
                if close is not None:
                    close()


def _so_far(stream: TextStream | AsyncTextStream) -> str:
    return stream._recording.text


# What dumps a response, such as the output of a tool, gets the text so far, and reads no further.
_SERIALIZER = SchemaSerializer(
    core_schema.any_schema(serialization=core_schema.plain_serializer_function_ser_schema(_so_far))
)


class TextStream(Generator[str, None, None]):
    """A generator over a recording; once exhausted, a new loop over it starts from the top."""

    __pydantic_serializer__ = _SERIALIZER

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._at = 0

    def __iter__(self) -> TextStream:
        if self._recording.over and self._recording.pulled_piece(self._at) is None:
            self._at = 0
        return self

    def __next__(self) -> str:
        text = self._recording.piece(self._at)
        if text is None:
            raise StopIteration
        self._at += 1
        return text

    def send(self, value: Any, /) -> str:
        """Like ``next``; what is sent is ignored."""
        return next(self)

    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> str:
        """Stops the model and raises."""
        self.close()
        raise kind if value is None else value

    def close(self) -> None:
        """Stops the model."""
        self._recording.close()


class AsyncTextStream(AsyncGenerator[str, None]):
    """The same for asynchronous readers, on whatever event loop each of them runs."""

    __pydantic_serializer__ = _SERIALIZER

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._at = 0

    def __aiter__(self) -> AsyncTextStream:
        if self._recording.over and self._recording.pulled_piece(self._at) is None:
            self._at = 0
        return self

    async def __anext__(self) -> str:
        text = self._recording.pulled_piece(self._at)
        if text is None:
            text = await asyncio.to_thread(self._recording.piece, self._at)
        if text is None:
            raise StopAsyncIteration
        self._at += 1
        return text

    async def asend(self, value: Any, /) -> str:
        """Like ``anext``; what is sent is ignored."""
        return await self.__anext__()

    async def athrow(self, kind: Any, value: Any = None, trace: Any = None, /) -> str:
        """Stops the model and raises."""
        await self.aclose()
        raise kind if value is None else value

    async def aclose(self) -> None:
        """Stops the model."""
        await asyncio.to_thread(self._recording.close)
