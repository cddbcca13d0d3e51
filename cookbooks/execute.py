"""Runs every notebook from top to bottom; a cell that raises fails the run.

``--write`` saves the outputs into the notebooks, for committing.
"""

from __future__ import annotations

import argparse
import sys
import time
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
