"""Runs every notebook from top to bottom; a cell that raises fails the run.

``--write`` saves the outputs into the notebooks, for committing. A notebook whose metadata names a
GGUF file (``recallm.needs``) is left out, with a word, where the file or llama.cpp isn't there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parent


def run(path: Path, *, write: bool) -> None:
    """Executes one notebook in the repository's root."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": FOLDER.parent}},
    )
    client.execute()
    if write:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":  # progress bars and warnings name the machine's folders
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        nbformat.write(notebook, path)


def lacking(path: Path) -> str:
    """What a notebook needs and this machine lacks; empty: nothing."""
    needed = nbformat.read(path, as_version=4).metadata.get("recallm", {}).get("needs")
    models = Path(os.environ.get("RECALLM_REAL_MODELS", "~/.cache/recallm-real")).expanduser()
    if needed is None:
        return ""
    if find_spec("llama_cpp") is None:
        return "llama.cpp (make llama-cpp)"
    return "" if (models / needed).is_file() else f"{needed} in {models} (tests/real/bring.py)"


def main() -> int:
    """Runs them all; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="save the outputs")
    parser.add_argument("names", nargs="*", help="only notebooks whose name holds one of these")
    args = parser.parse_args()
    failed = 0
    for path in sorted(FOLDER.glob("*.ipynb")):
        if args.names and not any(name in path.name for name in args.names):
            continue
        if lack := lacking(path):
            print(f"left out {path.name}: no {lack}")
            continue
        began = time.monotonic()
        try:
            run(path, write=args.write)
        except CellExecutionError as error:
            failed += 1
            print(f"FAILED {path.name}\n{error}", file=sys.stderr)
        else:
            print(f"ok {path.name} ({time.monotonic() - began:.0f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
