"""A process of its own for files that could take any amount of memory or time to read.

What a PDF inflates to can't be told before, and its reader can't be stopped. So it runs in a child
with limits, which is used again for the next file. Where no child can be started the caller reads
the file itself.
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from recallm_core.errors import DocumentError
from recallm_core.locks import ForkSafeLock

SPARE_BYTES = 384 << 20  # of memory that reading a file may take, beside some copies of it
COPIES = 4
HEAD = struct.Struct("!QQ")  # the size of what follows, and the most characters
_SECONDS = 30.0
_SECONDS_A_MEGABYTE = 10.0
_START_SECONDS = 60.0
_CHILD = "from recallm_core.documents.pdf_child import serve; serve()"
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "LANG")


def child_environment() -> dict[str, str]:
    """Returns what a child that reads strangers' files is told: where modules are, and no keys."""
    known = {name: os.environ[name] for name in _KEPT if name in os.environ}
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
    return known | {"PYTHONPATH": paths}


class LimitedProcess:
    """Reads files in a child process, one at a time; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._usable = True

    def read(self, data: bytes, max_chars: int) -> dict[str, Any] | None:
        """Returns what the child makes of a file; None where there can be no child.

        Args:
            data: The file.
            max_chars: The most characters that its text may have.

        Raises:
            DocumentError: The file can't be read, or takes too much memory or time.
        """
        with self._lock:
            child = self._running_child()
            if child is None:
                return None
            seconds = _SECONDS + _SECONDS_A_MEGABYTE * len(data) / 1e6
            answer = self._answer(child, data, max_chars, seconds)
        if answer is None:
            raise DocumentError(
                f"reading it takes more than {SPARE_BYTES >> 20} MB of memory or {seconds:,.0f} s, "
                "or breaks the reader; if you trust it, save it anew with another program"
            )
        if "error" in answer:
            raise DocumentError(str(answer["error"]))
        return answer

    def close(self) -> None:
        """Ends the child, if this process has one; the next file gets a new one."""
        with self._lock:
            child, self._child = self._child, None
            if child is not None and self._owner == os.getpid():
                _end(child)

    def _running_child(self) -> subprocess.Popen[bytes] | None:
        """The child; one that was started before a fork belongs to the parent."""
        alive = self._child is not None and self._child.poll() is None
        if not alive or self._owner != os.getpid():
            self._child, self._owner = (self._new() if self._usable else None), os.getpid()
            self._usable = self._child is not None
        return self._child

    def _new(self) -> subprocess.Popen[bytes] | None:
        if getattr(sys, "frozen", False) or not sys.executable:
            return None
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupted terminal interrupts this process only
                env=child_environment(),
            )
        except (OSError, ValueError):
            return None
        assert child.stdout is not None
        with _killed_after(child, _START_SECONDS):
            ready = child.stdout.read(1)
        if ready != b"+":
            _end(child)
            return None
        return child

    def _answer(
        self, child: subprocess.Popen[bytes], data: bytes, max_chars: int, seconds: float
    ) -> dict[str, Any] | None:
        """The child's answer; None where it died, which it does beyond its limits."""
        assert child.stdin is not None
        assert child.stdout is not None
        max_bytes = 16 * max_chars + (1 << 20)
        content: bytes | None = None
        try:
            with suppress(OSError), _killed_after(child, seconds):
                child.stdin.write(HEAD.pack(len(data), max_chars))
                child.stdin.write(data)
                child.stdin.flush()
                content = _read_answer(child.stdout, max_bytes)
        finally:
            if content is None:  # interrupted too: the next answer mustn't be this one's
                self._child = None
                _end(child)
        return None if content is None else _object(content)


def _read_answer(stream: IO[bytes], max_bytes: int) -> bytes | None:
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    size, _ = HEAD.unpack(head)
    body = stream.read(size) if size <= max_bytes else b""
    return body if len(body) == size else None


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class _killed_after:  # noqa: N801  (used like a function)
    """Kills a child that isn't done with the block in time."""

    def __init__(self, child: subprocess.Popen[bytes], seconds: float) -> None:
        self._timer = threading.Timer(seconds, child.kill)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: Any) -> None:
        self._timer.cancel()


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    child.wait()


pdf_process = LimitedProcess()
"""The one that this process reads PDF files with."""
atexit.register(pdf_process.close)
