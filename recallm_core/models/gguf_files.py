"""From a model's name to a GGUF file: a path, a folder or hub id with a pattern, Ollama's store."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from recallm_core.errors import CheckpointError
from recallm_core.inputs.arguments import shown
from recallm_core.inputs.gguf_header import split_files
from recallm_core.models.ollama import PREFIX, ollama_file

_ENDING = ".gguf"
_SHOWN = 12  # files named in an error


def gguf_file(
    model: str,
    pattern: str | None = None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path | None:
    """Returns the GGUF file that a model's name means; None: it means something else.

    Args:
        model: A GGUF file, ``ollama:NAME``, or a folder or hub id.
        pattern: Which file of a folder or hub id, such as ``*Q4_K_M*``; needed where there are
            several.
        revision: A branch, tag or commit of a hub id.
        local_files_only: Never ask the hub.

    Raises:
        CheckpointError: It means a GGUF file that isn't there, or several.
    """
    if pattern is not None and (not isinstance(pattern, str) or not pattern.strip()):
        raise CheckpointError(f"gguf must be a pattern such as '*Q4_K_M*', got {shown(pattern)}")
    path = Path(model).expanduser()
    if model.startswith(PREFIX):
        return ollama_file(model)
    if path.is_dir():
        return _of_folder(path, pattern)
    if model.lower().endswith(_ENDING):
        if not path.is_file():
            raise CheckpointError(
                f"there is no file {model}; give a GGUF file, or a folder or hub id with "
                "gguf='*Q4_K_M*'"
            )
        return path
    if pattern is None:
        return None
    return _of_hub(model, pattern, revision, local_files_only)


def _of_folder(folder: Path, pattern: str | None) -> Path | None:
    names = sorted(p.name for p in folder.iterdir() if p.name.lower().endswith(_ENDING))
    if pattern is None and (not names or (folder / "config.json").is_file()):
        return None
    path = folder / _the_one(names, pattern, str(folder))
    for file in split_files(path):
        _check_link(folder, file)
    return path


def _check_link(folder: Path, path: Path) -> None:
    """Refuses links that lead out; a hub cache links to the blobs beside its snapshots."""
    target, home = path.resolve(), folder.resolve()
    cached = any(
        parent.name == "snapshots" and target.is_relative_to(parent.parent / "blobs")
        for parent in home.parents
    )
    if not (target.is_relative_to(home) or cached):
        raise CheckpointError(
            f"{path} links out of its folder, to {target}; a model folder must hold its own files"
        )


def _the_one(names: list[str], pattern: str | None, place: str) -> str:
    """The one file of a list that a pattern fits, the first where it is split."""
    fitting = [name for name in names if pattern is None or _fits(name, pattern)]
    firsts = [name for name in fitting if _is_first(name)]
    if len(firsts) == 1:
        return firsts[0]
    listed = ", ".join((firsts or names)[:_SHOWN]) or "none"
    problem = f"fit gguf={pattern!r}" if pattern else "are there"
    raise CheckpointError(
        f"{len(firsts)} GGUF files {problem} in {place}, expected one; say which with "
        f"gguf='*Q4_K_M*' or the like: {listed}"
    )


def _fits(name: str, pattern: str) -> bool:
    return fnmatch(name.lower(), pattern.lower()) or name == pattern


def _is_first(name: str) -> bool:
    """Whether a file stands for a whole model."""
    try:
        split_files(Path(name))
    except CheckpointError:
        return False
    return True


def _of_hub(name: str, pattern: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.count("/") != 1 or name.startswith((".", "~", os.sep)):
        raise CheckpointError(
            f"no folder at {name!r}; give a GGUF file, a folder, or a hub id such as "
            "'Qwen/Qwen3-1.7B-GGUF' with gguf='*Q4_K_M*'"
        )
    files_wanted: list[str] | None = None
    try:
        if not local_files_only:
            listed = HfApi().list_repo_files(name, revision=revision)
            first = _the_one([f for f in listed if f.lower().endswith(_ENDING)], pattern, name)
            files_wanted = [str(file) for file in split_files(Path(first))]
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=files_wanted,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"the hub gave no GGUF file of {name!r} ({type(error).__name__}); check the spelling "
            "and the network, log in if the model is gated, or download the file elsewhere and "
            "give its path"
        ) from error
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob(f"*{_ENDING}"))
    path = folder / _the_one(files, pattern, name)
    for file in split_files(path):
        _check_link(folder, file)
    return path
