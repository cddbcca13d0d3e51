"""``recallm model merge``: an adapter and its base become one model folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from recallm_core.errors import CheckpointError
from recallm_core.inputs.extras import needs
from recallm_core.inputs.model_config import dtype_name
from recallm_core.models.adapters import is_adapter, read_adapter
from recallm_core.models.writing import cached_folder, copy_beside, whole_folder


def merge(
    adapter: str | Path,
    out: str | Path,
    *,
    base: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the model that an adapter makes of its base, for whatever reads whole models only.

    Args:
        adapter: A folder or hub id.
        out: The folder to write; it appears complete or not at all.
        base: The model that the adapter goes on; None: the one that it names.
        overwrite: Replace ``out`` if it exists.

    Raises:
        CheckpointError: It is no adapter, or doesn't fit the base, or ``out`` exists.
    """
    with needs("local", "merging an adapter"):
        import torch

        from recallm_core.models.checkpoint import find_base, find_folder, load_model
    folder, target = find_folder(adapter), Path(out)
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} exists; choose another folder or pass overwrite=True")
    if not is_adapter(folder):
        raise CheckpointError(f"{folder} holds no adapter; there is nothing to merge")
    whole = find_base(folder, base)
    model = load_model(
        whole,
        device=torch.device("cpu"),
        dtype=getattr(torch, dtype_name(whole)),
        adapter=read_adapter(folder),
    )
    with whole_folder(target, overwrite=overwrite) as aside:
        for source in (whole, folder):  # the adapter's own go before its base's
            copy_beside(source, aside)
        model.save_pretrained(aside)
    return target


def merged(adapter: Path, base: str | os.PathLike[str] | None = None) -> Path:
    """Returns the model that an adapter makes of its base, from the cache once it was written.

    Args:
        adapter: Its folder.
        base: The model that it goes on; None: the one that it names.

    Raises:
        CheckpointError: It doesn't fit the base.
    """
    with needs("local", "merging an adapter"):
        from recallm_core.models.checkpoint import find_base
    whole = find_base(adapter, base).resolve()
    name = f"{adapter.name}-{_state(adapter.resolve(), whole)}"
    target = cached_folder("merged", name) / adapter.name
    if not target.is_dir():
        _merge_once(adapter, target, whole)
    return target


def _merge_once(adapter: Path, target: Path, base: Path) -> None:
    """Of several processes that want the same model at once, the first to end writes it."""
    try:
        merge(adapter, target, base=base)
    except (CheckpointError, OSError):
        if not target.is_dir():
            raise


def _state(*folders: Path) -> str:
    """Changes with any file of the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.iterdir()):
            state = file.stat()
            digest.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]
