"""What a run's figures depend on besides the model's answers: machine, versions, sources, model."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recallm_core.generator import RecaLLM
from recallm_core.models import shipped
from recallm_core.models.adapters import is_adapter
from recallm_core.models.checkpoint import find_base, find_folder

_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = ("recallm-core", "torch", "transformers", "tokenizers", "numpy")
_TOLD_ONLY = {
    "evaluation/report.py",
    "evaluation/plots.py",
    "evaluation/gates.py",
    "evaluation/cited/scores.py",
    "evaluation/cited/words.py",
    "evaluation/cited/report.py",
    "evaluation/cited/plot.py",
    "evaluation/cited/command.py",
    "evaluation/frame/compact.py",
    "evaluation/frame/compare.py",
    "evaluation/frame/page.py",
    "evaluation/frame/report.py",
    "evaluation/frame/results.py",
    "evaluation/frame/statistics.py",
    "evaluation/ruler/report.py",
    "evaluation/ruler/plots.py",
    "evaluation/positions/report.py",
    "evaluation/positions/plots.py",
    "evaluation/thought/report.py",
    "evaluation/thought/plots.py",
    "evaluation/helmet/report.py",
    "evaluation/helmet/plots.py",
}
"""What reads rows, and doesn't change them."""
_ENDS = 1 << 20  # bytes hashed at both ends of a file of weights


def machine() -> dict[str, Any]:
    """Returns processor, cores that this process may use, system and the versions in use."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """Returns the commit of the sources, marked where they were changed; empty outside a clone."""
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{revision} with changes" if changed else revision


def _git(*arguments: str) -> str:
    ran = subprocess.run(
        ["git", *arguments], cwd=_PACKAGE, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


def sources() -> str:
    """Returns a hash of the code that answers; that of reports isn't in it."""
    whole = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        name = path.relative_to(_PACKAGE).as_posix()
        if name not in _TOLD_ONLY:
            whole.update(name.encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def model_identity(model: str, llm: RecaLLM, base: str | None = None) -> dict[str, str]:
    """Returns what tells one model from another: recipe, tokenizer and weights, hashed.

    Of large files the size and both ends are hashed. Those of an adapter's base count, too.

    Args:
        model: Its name.
        llm: The model, loaded.
        base: What it goes on, where it is an adapter and the caller said so.
    """
    recipe = json.dumps(llm.recipe.to_dict(), sort_keys=True)
    return {
        "model": llm.name,
        "recipe": hashlib.sha256(recipe.encode()).hexdigest()[:16],
        "tokenizer": llm.tokenizer.fingerprint,
        "weights": weights(model, base),
    }


def weights(model: str, base: str | None = None) -> str:
    """Returns a hash of a model's weights: a folder's, a file's; of a server its address.

    Raises:
        CheckpointError: There is no such model.
    """
    if "://" in model:
        return hashlib.sha256(model.encode()).hexdigest()[:16]
    whole = hashlib.sha256()
    for file in _files_of(model, base):
        _hash_ends(file, whole)
    return whole.hexdigest()[:16]


def _files_of(model: str, base: str | None) -> list[Path]:
    path = Path(model)
    if path.is_file():
        return [path]
    folders = [find_folder(shipped(model) or model)]
    if is_adapter(folders[0]):
        folders.append(find_base(folders[0], base))
    kinds = ("*.safetensors", "*.gguf")
    return [file for place in folders for kind in kinds for file in sorted(place.glob(kind))]


def _hash_ends(path: Path, whole: hashlib._Hash) -> None:
    """Adds a file's name, size and both ends to a hash."""
    size = path.stat().st_size
    whole.update(f"{path.name}:{size}".encode())
    with path.open("rb") as file:
        whole.update(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        whole.update(file.read(_ENDS))
