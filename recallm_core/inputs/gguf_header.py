"""The header of a GGUF file, checked whole before any other program parses it.

A GGUF file says how long everything in it is. llama.cpp reads it in C++, and some of what it takes
for granted ends the process where it doesn't hold. So every length is held against the file's own
size before anything is made of it, and so is what llama.cpp asserts of names, tables and tokens.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from typing import IO, Any

import numpy as np

from recallm_core.errors import CheckpointError
from recallm_core.inputs.arguments import shown
from recallm_core.inputs.gguf_checks import DamageError, check_model

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_MOST_HEADER = 1 << 28  # bytes; the largest vocabularies take some 20 MB
_MOST_KEYS = 1 << 16
_MOST_TENSORS = 1 << 17
_MOST_KEY = 1 << 16  # bytes of a key
_MOST_NAME = 63  # bytes of a tensor's name
_MOST_AXES = 4
_MOST_SPLITS = 10_000
_BLOCK = 1 << 22  # bytes read at once
_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
_KINDS = {  # numbers by their GGUF type
    **{0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?"},
    **{10: "<u8", 11: "<i8", 12: "<f8"},
}
_BLOCKS: Mapping[int, tuple[int, int]] = {  # ggml's types: elements and bytes of a block
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},
    **{9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210)},
    **{15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18)},
    **{21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4)},
    **{27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66)},
    **{39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18)},
}
_TYPES = {  # their names in ggml
    **{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1"},
    **{10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS"},
    **{17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S"},
    **{23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M"},
    **{30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0"},
}
_U32, _U64 = Struct("<I"), Struct("<Q")
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the table.

    Attributes:
        shape: Elements along each axis, the innermost first, as GGUF has it.
        kind: ggml's number of its type.
        size: Bytes.
    """

    shape: tuple[int, ...]
    kind: int
    size: int

    @property
    def type_name(self) -> str:
        """Ggml's name of its type, such as ``Q4_K``."""
        return _TYPES.get(self.kind, f"type {self.kind}")


@dataclass(frozen=True, slots=True, eq=False)
class GgufHeader:
    """What a GGUF file says of itself, checked against the file.

    Attributes:
        path: The file; of a split model its first.
        metadata: By key; lists of texts are tuples, lists of numbers arrays.
        tensors: By name; of a split model those of all files.
        size: Bytes of the file; of a split model those of all files.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    size: int

    @property
    def architecture(self) -> str:
        """The name that llama.cpp has for the kind of model."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def model_type(self) -> str:
        """The same as transformers spells it."""
        return _MODEL_TYPES.get(self.architecture, self.architecture)

    def text(self, key: str) -> str | None:
        """A text, or None where there is none of that key."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """A whole number, or None where there is none of that key."""
        value = self.metadata.get(key)
        return value if type(value) is int else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where there is none of that key."""
        value = self.metadata.get(key)
        return value if isinstance(value, tuple) else ()

    def numbers(self, key: str) -> np.ndarray[Any, Any]:
        """A list of numbers; empty where there is none of that key."""
        value = self.metadata.get(key)
        return value if isinstance(value, np.ndarray) else np.empty(0)

    @property
    def config(self) -> dict[str, Any]:
        """What ``config.json`` would say of the model's type and sizes."""
        named = {f"{self.architecture}.{key}": name for key, name in _SIZES.items()}
        sizes = {name: self.metadata[key] for key, name in named.items() if key in self.metadata}
        return {"model_type": self.model_type, **sizes}

    def without_texts(self) -> GgufHeader:
        """The same without lists of texts: vocabulary and merges, which take tens of megabytes."""
        rest = {key: value for key, value in self.metadata.items() if not isinstance(value, tuple)}
        return replace(self, metadata=rest)


_SIZES = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "expert_count": "num_experts",
}
_MODEL_TYPES = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "gemma3": "gemma3_text"}


def read_header(path: Path) -> GgufHeader:
    """Reads and checks the header of a model, of all its files where it is split.

    Raises:
        CheckpointError: A file is missing, damaged, cut off, or no model that llama.cpp takes.
    """
    files = split_files(path)
    missing = [file.name for file in files if not file.exists()]
    if missing and len(files) > 1:
        raise CheckpointError(
            f"{path} is one of {len(files):,} files of a model, and {missing[0]} isn't beside it; "
            "download the others, or join them where they are: llama-gguf-split --merge FIRST OUT"
        )
    header = _read(files[0])
    try:
        header = _join_split(header, [_read(file) for file in files[1:]])
        check_model(header, len(files))
    except DamageError as error:
        raise CheckpointError(f"{path} can't be used: {error}") from error
    return header


def _join_split(first: GgufHeader, others: Sequence[GgufHeader]) -> GgufHeader:
    """The header of a split model: what its first file says, with the tensors of all."""
    tensors = dict(first.tensors)
    for number, other in enumerate(others, start=1):
        _check_split(other, number, len(others) + 1)
        twice = tensors.keys() & other.tensors.keys()
        if twice:
            raise DamageError(f"tensor {min(twice)!r} stands in two of its files")
        tensors |= other.tensors
    return replace(first, tensors=tensors, size=first.size + sum(one.size for one in others))


def split_files(path: Path) -> tuple[Path, ...]:
    """The files of a model: the file itself, or all of a split one in order.

    Raises:
        CheckpointError: It isn't the first of its files, or says that there are too many.
    """
    split = _SPLIT.fullmatch(path.name)
    if split is None:
        return (path,)
    stem, number, count = split[1], int(split[2]), int(split[3])
    if number != 1 or not 1 <= count <= _MOST_SPLITS:
        raise CheckpointError(f"{path} is one of {count:,} files of a model; give the first")
    return tuple(path.with_name(f"{stem}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1))


def _read(path: Path) -> GgufHeader:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(f"{path} isn't a regular file; expected a GGUF file")
        with path.open("rb") as file:
            return _Reader(file, path).header()
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}; expected a GGUF file") from error
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}") from error
    except DamageError as error:
        raise CheckpointError(
            f"{path} is no whole GGUF file: {error}; download it again"
        ) from error


class _Reader:
    """A cursor over the beginning of a file, which is read as far as the header goes."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._size = path.stat().st_size
        self._data = b""
        self._at = 0

    def header(self) -> GgufHeader:
        """The whole header."""
        if self._take(4) != MAGIC:
            raise DamageError(f"it begins with {self._data[:4]!r}, expected {MAGIC!r}")
        version = self._u32()
        if version not in VERSIONS:
            raise DamageError(f"it is of version {version:,}, expected one of {VERSIONS}")
        tensors, keys = self._count(_MOST_TENSORS, 24), self._count(_MOST_KEYS, 13)
        metadata = self._metadata(keys)
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
            raise DamageError(f"its alignment is {shown(alignment)}, expected a power of two")
        table = [self._tensor() for _ in range(tensors)]
        begin = self._at + -self._at % alignment
        self._check_places(table, begin, alignment)
        named = {name: tensor for name, tensor, _ in table}
        if len(named) < len(table):
            raise DamageError("two of its tensors have one name")
        return GgufHeader(self._path, metadata, named, self._size)

    def _check_places(
        self, table: Iterable[tuple[str, Tensor, int]], begin: int, alignment: int
    ) -> None:
        """Tensors follow each other without a gap, as llama.cpp wants them, and end in the file."""
        place = 0
        for name, tensor, offset in table:
            if offset != place:
                raise DamageError(f"tensor {name!r} lies at {offset:,}, expected {place:,}")
            if begin + offset + tensor.size > self._size:
                raise DamageError(
                    f"tensor {name!r} ends at byte {begin + offset + tensor.size:,}, but the file "
                    f"has {self._size:,}"
                )
            place += tensor.size + -tensor.size % alignment

    def _metadata(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(count):
            key = self._string(_MOST_KEY)
            if not key or key in metadata:
                raise DamageError(f"its key {key[:80]!r} is empty or stands there twice")
            metadata[key] = self._value(key, self._u32())
        return metadata

    def _value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self._string(self._size)
        if kind == _ARRAY:
            inner, count = self._u32(), self._u64()
            return self._strings(count) if inner == _STRING else self._array(key, inner, count)
        return self._array(key, kind, 1)[0].item()

    def _array(self, key: str, kind: int, count: int) -> np.ndarray[Any, Any]:
        if kind not in _KINDS:
            raise DamageError(f"{key[:80]!r} is of type {kind:,}, which GGUF doesn't have")
        dtype = np.dtype(_KINDS[kind])
        data = self._take(count * dtype.itemsize)
        return np.frombuffer(data, dtype="u1" if kind == 7 else dtype).astype(dtype, copy=False)

    def _tensor(self) -> tuple[str, Tensor, int]:
        name = self._string(_MOST_NAME)
        axes = self._u32()
        if not 0 < axes <= _MOST_AXES:
            raise DamageError(f"tensor {name!r} has {axes:,} axes, expected 1 to {_MOST_AXES}")
        shape = tuple(self._u64() for _ in range(axes))
        kind = self._u32()
        if kind not in _BLOCKS:
            raise DamageError(f"tensor {name!r} is of type {kind:,}, which llama.cpp can't read")
        elements, size = _BLOCKS[kind]
        if min(shape) < 1 or shape[0] % elements:
            raise DamageError(
                f"tensor {name!r} has the shape {shape}; expected rows of whole blocks of "
                f"{elements}"
            )
        return name, Tensor(shape, kind, math.prod(shape) // elements * size), self._u64()

    def _count(self, limit: int, least_bytes: int) -> int:
        """A number of things that follow, each of some bytes at least."""
        count = self._u64()
        if count > limit or count * least_bytes > self._size:
            raise DamageError(f"it says that {count:,} things follow, in a file of {self._size:,}")
        return count

    def _u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack(self._take(8))[0])

    def _string(self, max_bytes: int) -> str:
        size = self._u64()
        if size > max_bytes:
            raise DamageError(f"a name or text of it has {size:,} bytes, more than {max_bytes:,}")
        return self._take(size).decode("utf-8", "replace")

    def _strings(self, count: int) -> tuple[str, ...]:
        if count * 8 > self._size:
            raise DamageError(f"it lists {count:,} texts, in a file of {self._size:,} bytes")
        texts: list[str] = []
        data, at, unpack = self._data, self._at, _U64.unpack_from
        for _ in range(count):
            if at + 8 > len(data):
                data = self._reach(at + 8)
            begin = at + 8
            at = begin + unpack(data, at)[0]
            if at > len(data):
                data = self._reach(at)
            texts.append(data[begin:at].decode("utf-8", "replace"))
        self._at = at
        return tuple(texts)

    def _take(self, count: int) -> bytes:
        end = self._at + count
        data = self._reach(end)[self._at : end] if count else b""
        self._at = end
        return data

    def _reach(self, end: int) -> bytes:
        """What was read of the file, up to a place at least."""
        if end > self._size:
            raise DamageError(f"it ends at byte {self._size:,}, within its header")
        if end > _MOST_HEADER:
            raise DamageError(f"its header has more than {_MOST_HEADER:,} bytes")
        if end > len(self._data):
            self._data += self._file.read(max(_BLOCK, end - len(self._data)))
            if end > len(self._data):
                raise DamageError(f"it ends at byte {len(self._data):,}, within its header")
        return self._data


def _check_split(header: GgufHeader, number: int, count: int) -> None:
    place = (header.number("split.no"), header.number("split.count"))
    if place != (number, count):
        raise DamageError(
            f"{header.path.name} says that it is file {place[0]} of {place[1]}, expected {number} "
            f"of {count}"
        )
