"""Model folders, and files beside them, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recallm_core.errors import CheckpointError


@contextmanager
def whole_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into; it takes the target's place once the block is through.

    Weights get the access rights that new files get here: safetensors keeps its own to their
    owner, and a folder that others are to use would be of no use to them.

    Args:
        target: What the folder is called then.
        overwrite: Whether a folder that stands there is replaced.

    Raises:
        OSError: The target exists and isn't to be replaced, or can't be written.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        _share_weights(aside)
        if overwrite and target.exists():
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            target.rename(old)
            aside.rename(target)
            shutil.rmtree(old)
        else:
            aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to; the file takes the target's place once the block is through.

    Raises:
        OSError: It can't be written.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield aside
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _share_weights(folder: Path) -> None:
    new = folder / ".new"
    new.touch()
    rights = stat.S_IMODE(new.stat().st_mode)
    new.unlink()
    for weights in folder.glob("*.safetensors"):
        weights.chmod(rights)


def copy_beside(folder: Path, target: Path) -> None:
    """Copies what stands beside a model's weights: tokenizer, recipe, template, settings."""
    for file in folder.iterdir():
        if file.is_file() and _is_beside(file.name):
            shutil.copy2(file, target / file.name)


def _is_beside(name: str) -> bool:
    return not name.endswith((".safetensors", ".bin", ".index.json")) and name not in _OWN


_OWN = ("config.json", "adapter_config.json")  # whoever writes weights writes these


def cache_root() -> Path:
    """Returns where this library keeps what it can make anew, below the user's cache.

    Raises:
        RuntimeError: The user has no home.
    """
    cache_home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache_home) if Path(cache_home).is_absolute() else Path.home() / ".cache"
    return base / "recallm"


def cached_folder(kind: str, name: str) -> Path:
    """Returns a private folder below the user's cache, the same each time; made if need be.

    Raises:
        CheckpointError: Somebody else made it.
        OSError: It can't be made.
    """
    directory = cache_root() / kind / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise CheckpointError(f"{directory} belongs to somebody else; set XDG_CACHE_HOME")
    return directory
