"""Pages of results: their tables are made from rows that stand beside them, and can be made anew.

A page has blocks between ``<!-- SUITE: FILE FILE -->`` and ``<!-- end -->``; what stands between is
written by ``with_fresh_blocks``. ``python -m recallm_core.evaluation.frame.pages PAGE ...``
rewrites pages.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, ItemsView, Sequence
from pathlib import Path
from typing import Any

from recallm_core.evaluation.frame.results import group_by, mean, read_run, values
from recallm_core.evaluation.frame.statistics import difference_of
from recallm_core.evaluation.helmet import report as helmet
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.positions import report as positions
from recallm_core.evaluation.report import table
from recallm_core.evaluation.rows import Row, RunError
from recallm_core.evaluation.ruler import report as ruler
from recallm_core.evaluation.thought import report as thought

_BLOCK = re.compile(
    r"(<!-- (?P<kind>\w+): (?P<files>[^>]*?)(?:; (?P<about>[^>]*?))? -->\n).*?(<!-- end -->)",
    re.DOTALL,
)
_CITED = {
    "cited, of all": "cited",
    "quote holds the answer": "hit",
    "answer's words right": "right",
    "F1 of the words": "f1",
    "counted as none": "abstained",
}
_OF_GIVEN = "cited, of answers that aren't none"
_MINI = {"EM": "em", "F1": "f1", "quote holds the answer": "hit"}
_PLAIN = {"words": "words", "CPU s": "cpu_seconds"}
_SETTING = {"gold in the pack": "packed", "quote holds the answer": "hit", "F1 of the words": "f1"}
Runs = Sequence[tuple[str, list[Row]]]
Make = Callable[[Runs, dict[str, Any]], str]


def share(value: Interval | None) -> str:
    """Returns a share as pages show it: ``0.91 (.84-.95)``."""
    if value is None:
        return "-"
    low, high = (f"{bound:.2f}".removeprefix("0") for bound in (value.low, value.high))
    return f"{value.mean:.2f} ({low}-{high})"


def with_fresh_blocks(text: str, folder: Path) -> str:
    """Returns a page with all of its blocks made anew.

    Args:
        text: The page.
        folder: Where its rows are.

    Raises:
        RunError: A block names rows that can't be read, or a suite that isn't there.
    """
    return _BLOCK.sub(lambda match: _block(match, folder), text)


def _block(match: re.Match[str], folder: Path) -> str:
    kind = match.group("kind")
    if kind not in MAKERS:
        raise RunError(f"no tables of {kind!r}; there are {', '.join(MAKERS)}")
    files = match.group("files").split()
    runs = [(_title(file), read_run(folder / file)) for file in files]
    pairs = (pair.partition("=")[::2] for pair in (match.group("about") or "").split("; ") if pair)
    body = MAKERS[kind](runs, dict(pairs))
    return f"{match.group(1)}\n{body.strip()}\n\n{match.group(5)}"


def _title(file: str) -> str:
    """The model that a file of rows is named after: ``rows/ruler.recallm-mini.jsonl.gz``."""
    return Path(file).name.removesuffix(".jsonl.gz").partition(".")[2]


def _parts(parts: Callable[[Sequence[Row], dict[str, Any]], list[str]]) -> Make:
    def make(runs: Runs, about: dict[str, Any]) -> str:
        pages = []
        for model, rows in runs:
            text = "\n".join(part for part in parts(rows, about) if part)
            pages.append(f"## {model}\n\n" + re.sub(r"^## ", "### ", text, flags=re.MULTILINE))
        return "\n".join(pages)

    return make


def _by_suite_and_way(rows: Sequence[Row]) -> ItemsView[tuple[str, str], list[Row]]:
    return group_by(rows, lambda row: (row["suite"], row["condition"])).items()


def _citation_table(runs: Runs, about: dict[str, Any]) -> str:
    """One table of all models: a line for each suite and way."""
    body = [
        [model, suite, way, str(len(rows)), *_cells(rows)]
        for model, all_rows in runs
        for (suite, way), rows in _by_suite_and_way(all_rows)
    ]
    return table(["model", "suite", "way", "n", _OF_GIVEN, *_CITED, *_PLAIN], body)


def _mini_table(runs: Runs, about: dict[str, Any]) -> str:
    """One table of all models: a line for each suite and condition, of rows with an answer."""
    body = [
        [model, suite, condition, str(len(rows)), *(share(mean(rows, m)) for m in _MINI.values())]
        for model, all_rows in runs
        for (suite, condition), rows in _by_suite_and_way(
            [row for row in all_rows if row["answerable"]]
        )
    ]
    return table(["model", "suite", "condition", "n", *_MINI], body)


def _cells(rows: Sequence[Row]) -> list[str]:
    plain = [mean(rows, name) for name in _PLAIN.values()]
    answered = [row for row in rows if not row.get("abstained")]
    return [
        share(mean(answered, "cited")),
        *(share(mean(rows, name)) for name in _CITED.values()),
        *("-" if value is None else f"{value.mean:.1f}" for value in plain),
    ]


def _settings_table(runs: Runs, about: dict[str, Any]) -> str:
    """What settings make of the same questions, and what each has more than ``against``."""
    body = []
    for _, rows in runs:
        for suite, asked in {**group_by(rows, lambda row: row["suite"]), "all": rows}.items():
            ways = group_by(asked, lambda row: row["condition"])
            before = ways[about["against"]]
            for way, answers in ways.items():
                cells = _setting_cells(answers, [] if answers is before else before)
                body.append([suite, way, str(len(answers)), *cells])
    heads = [head for name in _SETTING for head in (name, "more")]
    return table(["questions", "setting", "n", *heads, "CPU s"], body)


def _setting_cells(rows: Sequence[Row], before: Sequence[Row]) -> list[str]:
    cells = []
    for name in _SETTING.values():
        old = {row["id"]: row["scores"][name] for row in before}
        pairs = [(row["scores"][name], old[row["id"]]) for row in rows if row["id"] in old]
        gap = None if (difference := difference_of(pairs)) is None else difference.gap
        more = "" if gap is None else f"{gap.mean:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"
        cells += [share(mean(rows, name)), more]
    return [*cells, f"{sum(values(rows, 'cpu_seconds')) / len(rows):.1f}"]


MAKERS: dict[str, Make] = {
    "settings": _settings_table,
    "cited": _citation_table,
    "mini": _mini_table,
    "ruler": _parts(ruler.parts),
    "positions": _parts(positions.parts),
    "thought": _parts(thought.parts),
    "helmet": _parts(helmet.parts),
}


def main(paths: Sequence[str]) -> int:
    """Rewrites pages; returns the exit status."""
    for name in paths:
        path = Path(name)
        path.write_text(with_fresh_blocks(path.read_text("utf-8"), path.parent), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
