"""What a run found, as tables for a terminal, a page of Markdown and plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from recallm_core.evaluation.cited.baseline import BASELINE, INSTRUCTION
from recallm_core.evaluation.cited.run import Answers, Key
from recallm_core.evaluation.cited.scores import interval_of, kind, measures
from recallm_core.evaluation.metrics import Interval
from recallm_core.evaluation.report import heading, table

Figures = dict[str, Interval]
TITLES = {
    "nq": "Natural Questions",
    "squad2": "SQuAD 2.0",
    "xquad-es": "XQuAD, Spanish",
    "xquad-zh": "XQuAD, Chinese",
    "xquad-ar": "XQuAD, Arabic",
    "own": "your questions",
}
_HEADS = {
    "cited": "cited",
    "hit": "hit",
    "right": "right",
    "f1": "F1",
    "em": "EM",
    "nearest": "nearest",
    "words": "words",
    "abstained": "abstained",
    "repeats": "repeats",
    "wrong_slices": "wrong slices",
    "seconds": "s",
    "cpu_seconds": "CPU s",
    "output_tokens": "tokens",
}
_COUNTED = ("wrong_slices", "repeats")
_PLAIN = ("words", "seconds", "cpu_seconds", "output_tokens")


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of one suite, way and kind of question."""

    suite: str
    way: str
    kind: str
    n: int
    figures: Figures


def groups(answers: Answers) -> list[Group]:
    """Returns all figures of a run, in the order of suites and ways."""
    return [group for key in answers.records for group in _of(answers, key)]


def _of(answers: Answers, key: Key) -> list[Group]:
    suite, way = key
    by_kind: dict[str, list[Any]] = {}
    for item, answer in answers.records[key]:
        by_kind.setdefault(kind(item), []).append((item, answer))
    return [
        Group(suite, way, name, len(rows), _figures(rows, name, plain=way == BASELINE))
        for name, rows in by_kind.items()
    ]


def _figures(rows: Sequence[Any], name: str, *, plain: bool) -> Figures:
    by_label = measures(answerable=name == "answerable", plain=plain)
    return {
        label: interval_of(label, [measure(item, answer) for item, answer in rows])
        for label, measure in by_label.items()
    }


def title(suite: str) -> str:
    """Returns a suite's name for people."""
    return TITLES.get(suite.removesuffix("-unanswerable"), suite)


def _cell(group: Group, name: str) -> str:
    value = group.figures.get(name)
    if value is None:
        return "-"
    if name in _COUNTED:
        return f"{round(value.mean * group.n):,}"
    if name in _PLAIN:
        return f"{value.mean:.1f}"
    return f"{value.mean:.2f} ({value.low:.2f}-{value.high:.2f})"


def _sections(all_groups: Sequence[Group]) -> dict[tuple[str, str], list[Group]]:
    """The groups that stand in one table."""
    parts: dict[tuple[str, str], list[Group]] = {}
    for group in all_groups:
        parts.setdefault((title(group.suite), group.kind), []).append(group)
    return parts


def _columns(part: Sequence[Group]) -> list[str]:
    return [name for name in _HEADS if any(name in group.figures for group in part)]


def _group_table(part: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    names = _columns(part)
    head = ["by", "n", *(_HEADS[name] for name in names)]
    return head, [[g.way, str(g.n), *(_cell(g, name) for name in names)] for g in part]


def markdown(answers: Answers, about: Mapping[str, Any], plots: Sequence[str] | None) -> str:
    """Returns the report.

    Args:
        answers: The run.
        about: What it depends on.
        plots: Names of the pictures beside the report; None: they couldn't be drawn.
    """
    parts = [heading(f"Cited answers of {about.get('model', 'a model')}", about), _INTERVALS]
    for (suite, sort), part in _sections(groups(answers)).items():
        parts.append(f"## {suite[0].upper()}{suite[1:]}, {sort}\n\n{table(*_group_table(part))}")
    parts += [_notes(answers), _pictures(plots), _HOW]
    return "\n".join(part for part in parts if part)


def _notes(answers: Answers) -> str:
    lines = [f"- {note}" for note in answers.notes]
    if answers.failures:
        first = answers.failures[0]
        lines.append(
            f"- {len(answers.failures)} questions have no answer; the first: "
            f"{first.get('suite')}, {first.get('condition')}, {first.get('id')}: {first['error']}"
        )
    return "## Left out\n\n" + "\n".join(lines) + "\n" if lines else ""


def _pictures(plots: Sequence[str] | None) -> str:
    if plots is None:
        return (
            "## Plot\n\nNone: matplotlib isn't installed. `pip install 'recallm-core[eval]'` adds "
            "it; run the same command with `--resume` and it is drawn from the rows.\n"
        )
    return "## Plot\n\n" + "\n\n".join(f"![{Path(p).stem}]({p})" for p in plots) + "\n"


_INTERVALS = (
    "Shares with Wilson's 95 % interval, F1 with the bootstrap's (2,000 draws); greedy decoding.\n"
)
_HOW = f"""## How to read this

- *cited*: answers with at least one citation. *hit*: a citation's range, in the document that
  answers, holds a gold answer. *wrong slices*: citations that aren't the slice of their document
  that they say, checked anew from the rows; it has to be 0. *repeats*: answers with a quote twice.
- *right*: the text that a user reads, quotes included, holds a gold answer. *F1*, *EM*: the
  model's own words, those between the quotes, against the gold answers; of an answer that is
  nothing but quotes, the quotes. Words are compared without case, punctuation and English
  articles; in scripts without spaces, character by character.
- *abstained*: wrongly where the question is answerable, rightly where it isn't. An abstained
  answer counts in all other columns as what it is: an answer without citation and gold answer.
- *{BASELINE}*: the same weights, the model's own chat template (a model without one completes the
  text, up to the end of the line), the sentence "{INSTRUCTION}", the documents and
  the question; greedy, nothing constrained. *nearest*: the sentence of the documents that shares
  most words with that answer holds a gold answer, which is how one would cite it afterwards.
- *s*, *CPU s*: wall and processor time of a batch, divided by its answers, prompts included.
- Each question has three documents. Answerable: its paragraph and two others; unanswerable: the
  same question over three others. No other paragraph holds a gold answer. SQuAD's paragraphs are
  those that no training of the project's own models read.
"""


def show(answers: Answers, console: Console) -> None:
    """Prints the tables, a way a column."""
    for (suite, sort), part in _sections(groups(answers)).items():
        head, body = _group_table(part)
        shown = Table(title=f"{suite}, {sort}", title_justify="left", box=None, pad_edge=False)
        shown.add_column("")
        for group in part:
            shown.add_column(group.way, justify="right")
        for number, name in enumerate(head[1:], start=1):
            shown.add_row(name, *(row[number] for row in body))
        console.print(shown)
        console.print()
    for line in _notes(answers).splitlines()[2:]:
        console.print(line, markup=False)


def summary(answers: Answers, about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all figures as plain data, by suite, kind of question and way."""
    suites: dict[str, Any] = {}
    for group in groups(answers):
        figures = {name: asdict(value) for name, value in group.figures.items()}
        by_way = suites.setdefault(group.suite, {}).setdefault(group.kind, {})
        by_way[group.way] = {"n": group.n, **figures}
    return {
        "about": dict(about),
        "suites": suites,
        "left_out": list(answers.notes),
        "failures": len(answers.failures),
    }


def write_report(
    answers: Answers, about: Mapping[str, Any], folder: Path, plots: Sequence[str] | None
) -> None:
    """Writes ``summary.json`` and ``report.md``."""
    data = json.dumps(summary(answers, about), indent=1, ensure_ascii=False)
    (folder / "summary.json").write_text(data + "\n", "utf-8")
    (folder / "report.md").write_text(markdown(answers, about, plots), "utf-8")
