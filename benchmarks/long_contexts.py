"""The long-context suites on one model, within a time limit; what is done is kept and goes on.

Run as ``python benchmarks/long_contexts.py --model FOLDER --out DIR [--minutes 12]``.
The suites run one after another, each resumable: run the same command again to go on. At the end
(or when the time is up) the rows that there are become ``DIR/rows/SUITE.MODEL.jsonl.gz``, which
``docs/results/`` makes its tables from.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

SUITES = {
    "thought": ["--n", "50", "--lengths", "1k", "--doses", "64,256,1024"],
    "positions": ["--n", "50", "--documents", "10,20"],
    "ruler": ["--n", "20", "--lengths", "1k,4k,8k,16k,32k", "--arms", "recall,unmasked,plain"],
}


def main() -> int:
    """Runs what time there is for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--lengths", help="of ruler, in place of 1k to 32k")
    parser.add_argument("--device")
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    for suite in options.suites.split(","):
        if not run(options, suite, ends - time.monotonic()):
            print(f"{suite}: the time is up; the same command goes on", file=sys.stderr)
            break
    keep(options)
    return 0


def run(options: argparse.Namespace, suite: str, seconds: float) -> bool:
    """Runs a suite, or goes on with it; False when the time is up before its end."""
    words = [*SUITES[suite], "--model", options.model, "--out", str(options.out / suite)]
    words += ["--resume"] + (["--device", options.device] if options.device else [])
    if suite == "ruler" and options.lengths:
        words += ["--lengths", options.lengths]
    command = [sys.executable, "-m", "recallm_core.evaluation", suite, *words]
    try:
        subprocess.run(command, check=True, timeout=max(1, seconds))
    except subprocess.TimeoutExpired:
        return False
    return True


def keep(options: argparse.Namespace) -> None:
    """Packs the rows that there are."""
    rows = options.out / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    for suite in SUITES:
        if (options.out / suite / "rows.jsonl").is_file():
            file = rows / f"{suite}.{Path(options.model).name.lower()}.jsonl.gz"
            words = ["pack", str(options.out / suite), "--out", str(file)]
            subprocess.run([sys.executable, "-m", "recallm_core.evaluation", *words], check=True)


if __name__ == "__main__":
    sys.exit(main())
