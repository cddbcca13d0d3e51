"""Files of a saved index: written once and checked before they are read; links aren't followed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recallm_core.errors import CorpusIndexError

_BLOCK = 1 << 20
_ADVICE = "restore the folder from a copy, or build the index again"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a manifest says of a file.

    Attributes:
        size: Bytes.
        digest: BLAKE2b-256 of its content, hexadecimal.
    """

    size: int
    digest: str


def damage_error(path: Path, what: str) -> CorpusIndexError:
    """Returns the error for a file that isn't what it should be."""
    return CorpusIndexError(f"{path} {what}; {_ADVICE}")


def record(path: Path) -> FileRecord:
    """Returns size and digest of a file.

    Raises:
        FileNotFoundError: There is no such file.
        CorpusIndexError: It is a link, a folder or something else that isn't a plain file.
    """
    digest = hashlib.blake2b(digest_size=32)
    size = 0
    with os.fdopen(_open(path), "rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return FileRecord(size, digest.hexdigest())


def read(path: Path, limit: int) -> bytes:
    """Returns the content of a plain file of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: There is no such file.
        CorpusIndexError: It isn't a plain file or larger than that.
    """
    with os.fdopen(_open(path), "rb") as content:
        data = content.read(limit + 1)
    if len(data) > limit:
        raise damage_error(path, f"has more than {limit:,} bytes")
    return data


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise damage_error(path, "is a symbolic link, which an index never has") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise damage_error(path, "isn't a plain file")
    return descriptor


def check(path: Path, expected: FileRecord) -> None:
    """Raises unless a file has the size and the content that were recorded.

    Raises:
        FileNotFoundError: There is no such file.
        CorpusIndexError: It was changed or cut off.
    """
    size = os.lstat(path).st_size
    if size != expected.size:
        raise damage_error(path, f"has {size:,} bytes, expected {expected.size:,}")
    if record(path) != expected:
        raise damage_error(path, "was changed since it was written: its checksum differs")


def write(path: Path, content: bytes) -> None:
    """Writes a new file and waits until it is on the disk."""
    with path.open("xb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def write_array(path: Path, values: npt.NDArray[Any]) -> None:
    """Writes an array as a new ``.npy`` file and waits until it is on the disk."""
    with path.open("xb") as out:
        np.lib.format.write_array(out, np.ascontiguousarray(values), allow_pickle=False)
        out.flush()
        os.fsync(out.fileno())


def read_array(path: Path, dtype: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """Returns a memory-mapped array; None in ``shape`` stands for any length.

    Raises:
        CorpusIndexError: Its type or shape differ, or the file doesn't hold as much as it says.
    """
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy reads a header as Python, with all that can go wrong
        raise damage_error(path, f"can't be read as an array ({error})") from error
    fits = len(array.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != np.dtype(dtype) or not array.flags.c_contiguous:
        expected = ", ".join("any" if want is None else f"{want:,}" for want in shape)
        raise damage_error(
            path, f"holds {array.dtype} of shape {array.shape}, expected {dtype} of ({expected})"
        )
    return np.asarray(array)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_lock(path: Path, patience: float) -> Iterator[None]:
    """Holds a lock file while the block runs; the system frees it when the process dies.

    Raises:
        CorpusIndexError: Another writer holds it for longer than ``patience`` seconds.
    """
    import fcntl

    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise CorpusIndexError(
                        f"another process is writing to the index {path.parent}; "
                        "wait until it has finished, then open the index again"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
