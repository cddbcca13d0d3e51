"""Files of the small models that ship with the library, or of a user's own in their place."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from recallm_core.errors import CheckpointError


def usable_file(folder: Path, name: str, *, most: int, owner: str, remedy: str) -> Path:
    """Returns the path of a file that is there and not too large.

    Args:
        folder: The model's folder.
        name: The file's name.
        most: Bytes at most.
        owner: Whose folder it is, for the error.
        remedy: What makes such a folder, for the error.

    Raises:
        CheckpointError: The file is missing or too large.
    """
    path = folder / name
    if not path.is_file() or path.stat().st_size > most:
        raise CheckpointError(
            f"{owner}'s folder {folder} has no usable {name}; reinstall the package or {remedy}"
        )
    return path


def whole_tokenizer(path: Path) -> Tokenizer:
    """Returns a tokenizer that neither cuts texts off nor pads them, whatever its file says.

    Raises:
        CheckpointError: The file is no tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise CheckpointError(f"{path} can't be read as a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
