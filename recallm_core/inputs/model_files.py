"""Files of model folders, whose sizes are looked at before anything is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallm_core.errors import CheckpointError
from recallm_core.inputs.extras import needs

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_IDS = 1 << 24
_LONG_NUMBER = re.compile(rb":\s*[0-9]{8}|[0-9]{8}\"\s*:")  # as a value, or as a key
_MOST: Mapping[str, int] = {  # bytes of a file by name, or by how its name ends
    "tokenizer.json": 1 << 26,  # twice what the largest known has
    "config.json": 1 << 22,
    ".index.json": 1 << 26,
    ".json": 1 << 25,
    ".jinja": 1 << 20,
    ".model": 1 << 26,
    ".txt": 1 << 26,
}


def check_file_sizes(folder: Path) -> None:
    """Refuses a folder with a file, other than of weights, that is larger than any model has.

    Raises:
        CheckpointError: There is one, or the folder can't be read.
    """
    try:
        sizes = {path: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    except OSError as error:
        raise CheckpointError(f"{folder} can't be read: {error.strerror}") from error
    for path, size in sizes.items():
        limit = next((limit for end, limit in _MOST.items() if path.name.endswith(end)), size)
        if size > limit:
            raise CheckpointError(
                f"{path} has {size:,} bytes, more than any model's has ({limit:,} at most); "
                "download the checkpoint again, or choose another model"
            )


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file of a model folder.

    Raises:
        CheckpointError: It isn't there, too large, or holds something else.
    """
    limit = next(limit for end, limit in _MOST.items() if path.name.endswith(end))
    try:
        with path.open("rb") as opened:
            content = opened.read(limit + 1)
        if len(content) > limit:
            raise CheckpointError(f"{path} has more than {limit:,} bytes: not a file of a model")
        data = json.loads(content)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} has no {path.name}; it isn't a model folder of transformers"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data


def check_ids(folder: Path) -> None:
    """Refuses a tokenizer whose ids are absurdly high: whoever reads it counts up to them.

    Raises:
        CheckpointError: There is such an id, or a file can't be read.
    """
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"):
        path = folder / name
        if path.is_file() and _LONG_NUMBER.search(path.read_bytes()):
            data = read_json(path)
            listed = _whole(data.values()) if name == "vocab.json" else _ids(data)
            highest = max(listed, default=0)
            if highest >= MOST_IDS:
                raise CheckpointError(
                    f"{path} has ids up to {highest:,}; expected at most {MOST_IDS:,}"
                )


def _ids(data: Mapping[str, Any]) -> Iterator[int]:
    """The ids in one of the two files that describe a tokenizer."""
    model = data.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    yield from _whole(vocab.values() if isinstance(vocab, dict) else ())
    added = data.get("added_tokens")
    listed = added if isinstance(added, list) else ()
    yield from _whole(entry.get("id") for entry in listed if isinstance(entry, dict))
    named = data.get("added_tokens_decoder")
    yield from (int(key) for key in named or () if key.isdecimal() and len(key) < 100)


def _whole(values: Iterable[Any]) -> Iterator[int]:
    return (value for value in values if type(value) is int)


def usable_file(folder: Path, name: str, *, limit: int, owner: str, remedy: str) -> Path:
    """Returns the path of a file that is there and not too large.

    Args:
        folder: The model's folder.
        name: The file's name.
        limit: Bytes at most.
        owner: Whose folder it is, for the error.
        remedy: What makes such a folder, for the error.

    Raises:
        CheckpointError: The file is missing or too large.
    """
    path = folder / name
    if not path.is_file() or path.stat().st_size > limit:
        raise CheckpointError(
            f"{owner}'s folder {folder} has no usable {name}; reinstall the package or {remedy}"
        )
    return path


def whole_tokenizer(path: Path) -> Tokenizer:
    """Returns a tokenizer that neither cuts texts off nor pads them, whatever its file says.

    Raises:
        CheckpointError: The file is no tokenizer.
    """
    with needs("index", "search or scoring by meaning"):
        from tokenizers import Tokenizer
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise CheckpointError(f"{path} can't be read as a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
