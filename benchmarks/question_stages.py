"""CPU seconds of ``recallm ask`` over the PEPs, by stage: two questions, model and index kept.

Run as ``python benchmarks/question_stages.py [CHECKOUT ...] [--threads N]``. Each checkout runs in
a process of its own, this one where none is named; another commit's is made by ``git worktree
add``. It reads docs_peps from the folder in RECALLM_DATA (default: ../shared/data) and writes its
688 files and their index into a folder that is removed. The index is built before, and not counted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("RECALLM_DATA", ROOT / "../shared/data"))
QUESTIONS = (
    "Which PEP introduced dataclasses?",
    "What is the maximum line length of the standard library?",
)


class Watch:
    """The CPU seconds of this process, by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = 0.0

    def lap(self, stage: str) -> None:
        """Books what was used since the last stage."""
        now = time.process_time()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def ask(llm: Any, question: str, index: Any, watch: Watch, name: str) -> None:
    """Asks a question and books its stages."""

    def lap_when_read(done: int, total: int) -> None:
        if done == total:
            watch.lap(f"{name}: read the prompt")

    llm.backend.on_prefill = lap_when_read
    with llm.stream(question, index) as stream:
        watch.lap(f"{name}: pack and score")
        answer = stream.result()
    watch.lap(f"{name}: write")
    print(answer.usage.prompt_tokens, repr(answer.text[:60]), file=sys.stderr)


def measure(folder: Path, saved: Path) -> dict[str, float]:
    """Returns the seconds of each stage, as ``recallm ask --interactive`` goes through them."""
    watch = Watch()
    watch.lap("start of Python")
    from recallm_core.cli import index_cache
    from recallm_core.documents.loading import load_documents

    documents = load_documents([str(folder)]).documents
    watch.lap("read the files")
    with ExitStack() as stack:
        loading = _long_lived(stack)
        with loading():
            from recallm_core import RecaLLM

            llm = stack.enter_context(RecaLLM.load("recallm-mini"))
            watch.lap("import and load the model")
            index = index_cache.cached_index([str(folder)], documents, root=saved)
            watch.lap("open the index")
        for number, question in enumerate(QUESTIONS, 1):
            ask(llm, question, index, watch, f"question {number}")
    return watch.seconds


def _long_lived(stack: ExitStack) -> Callable[[], Any]:
    """What the command does with garbage, where the checkout has it."""
    try:
        from recallm_core.cli.garbage import long_lived
    except ImportError:
        return ExitStack
    return lambda: long_lived(stack)


def write_files(folder: Path) -> None:
    """Writes the PEPs as text files."""
    with gzip.open(DATA / "docs_peps.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            name = row["id"].replace("/", "_")
            (folder / f"{name}.txt").write_text(row["text"], encoding="utf-8")


def of_checkout(checkout: Path, files: Path, saved: Path, threads: int) -> dict[str, float]:
    """Returns what a checkout measures; the first of two runs builds its index."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, __file__, "--inside", str(files), str(saved)]
    build = (
        "import sys; from recallm_core.cli import index_cache as c; "
        "from recallm_core.documents.loading import load_documents as l; from pathlib import Path; "
        "c.cached_index([sys.argv[1]], l([sys.argv[1]]).documents, root=Path(sys.argv[2]))"
    )
    saved.mkdir()
    built = [sys.executable, "-c", build, str(files), str(saved)]
    subprocess.run(built, env=environment, check=True)
    run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    seconds: dict[str, float] = json.loads(run.stdout)
    return seconds


def main() -> int:
    """Prints a row for each stage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--inside", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(*options.inside)))
        return 0
    if not (DATA / "docs_peps.jsonl.gz").exists():
        print(f"no PEPs in {DATA}; set RECALLM_DATA to the folder that has them")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "peps"
        files.mkdir()
        write_files(files)
        columns = [
            of_checkout(checkout.resolve(), files, Path(scratch) / str(number), options.threads)
            for number, checkout in enumerate(options.checkouts)
        ]
    print("| CPU seconds | " + " | ".join(map(str, options.checkouts)) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for stage in columns[-1]:
        print(f"| {stage} | " + " | ".join(f"{c[stage]:.2f}" for c in columns) + " |")
    totals = [
        sum(value for stage, value in column.items() if not stage.startswith("question 2"))
        for column in columns
    ]
    print("| one question in all | " + " | ".join(f"{total:.2f}" for total in totals) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
