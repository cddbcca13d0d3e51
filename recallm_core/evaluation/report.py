"""What a run found: plain data for programs, and a page of Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recallm_core.evaluation.gates import (
    MEASURES,
    Bar,
    Reader,
    bars,
    interval_text,
    rates,
    verbatim,
)
from recallm_core.evaluation.metrics import interval
from recallm_core.evaluation.runner import Results
from recallm_core.evaluation.tasks import SUITES

_HEADS = {"em": "EM", "f1": "F1", "hit": "hit", "found": "found"}


def summary(results: Results, about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all figures as plain data.

    Args:
        results: The run.
        about: What it depends on: model, machine, command and so on.
    """
    reader = Reader(results)
    tables: dict[str, dict[str, Any]] = {}
    for suite, condition in results.rows:
        tables.setdefault(suite, {})[condition] = _figures(reader, suite, condition)
    return {
        "about": dict(about),
        "bars": [bar.to_dict() for bar in bars(results)],
        "suites": tables,
        "left_out": results.left_out,
        "failures": len(results.failures),
    }


def _figures(reader: Reader, suite: str, condition: str) -> dict[str, Any]:
    rows = reader.rows(suite, condition)
    exact, spans = verbatim(rows)
    figures: dict[str, Any] = {"n": len(rows), "spans": spans, "verbatim": exact}
    figures["abstained"] = sum(row["abstained"] for row in rows)
    figures |= _means(reader, suite, condition, "")
    groups = list(dict.fromkeys(row["group"] for row in rows if row["group"]))
    if groups:
        figures["groups"] = {group: _group(reader, suite, condition, group) for group in groups}
    separation = reader.auroc(suite, condition)
    if separation:
        figures["auroc"] = asdict(separation)
    after, whole = rates(rows)
    if after:
        figures["tokens_per_second"] = asdict(interval(after))
        figures["tokens_per_second_with_reading"] = asdict(interval(whole))
    return figures


def _group(reader: Reader, suite: str, condition: str, group: str) -> dict[str, Any]:
    means = _means(reader, suite, condition, group)
    separation = reader.auroc(suite, condition, group)
    return means | ({"auroc": asdict(separation)} if separation else {})


def _means(reader: Reader, suite: str, condition: str, group: str) -> dict[str, Any]:
    means = {m: reader.mean(suite, m, condition, group) for m in MEASURES}
    return {name: asdict(value) for name, value in means.items() if value}


def markdown(results: Results, about: Mapping[str, Any], plots: Sequence[str] | None) -> str:
    """Returns the report.

    Args:
        results: The run.
        about: What it depends on.
        plots: Names of the pictures beside the report; None: they couldn't be drawn.
    """
    reader = Reader(results)
    parts = [
        heading(f"Evaluation of {about.get('model', 'a model')}", about),
        "Means with 95 % bootstrap intervals over rows (2,000 draws).\n",
        _bars(bars(results)),
        *(_suite(reader, name) for name in results.plan.suites if name not in results.left_out),
        _left_out(results),
        _pictures(plots),
        _how(),
    ]
    return "\n".join(part for part in parts if part)


def heading(title: str, about: Mapping[str, Any]) -> str:
    """Returns the top of a report: its title, and what the figures depend on."""
    machine = about.get("machine", {})
    versions = ", ".join(f"{k} {v}" for k, v in machine.get("versions", {}).items())
    lines = [
        f"# {title}",
        "",
        f"- command: `{about.get('command', '')}`",
        f"- commit: {about.get('commit') or 'not a clone'}",
        f"- machine: {machine.get('processor')}, {machine.get('cores')} cores, "
        f"{about.get('threads')} threads used",
        f"- versions: Python {machine.get('python')}, {versions}",
        "",
    ]
    return "\n".join(lines)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a table of Markdown."""
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _mark(met: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "-"}[met]


def _bars(thresholds: Sequence[Bar]) -> str:
    if not thresholds:
        return ""
    body = [
        (
            bar.name,
            bar.value,
            str(bar.n),
            bar.floor,
            _mark(bar.floor_met),
            bar.goal,
            _mark(bar.goal_met),
        )
        for bar in thresholds
    ]
    head = ("what", "measured", "n", "floor", "met", "goal", "met")
    return "## Bars\n\n" + table(head, body)


def _suite(reader: Reader, name: str) -> str:
    suite = SUITES[name]
    conditions = [c.name for c in reader.results.plan.conditions(suite)]
    ran = [condition for condition in conditions if reader.rows(name, condition)]
    separates = any(not row["answerable"] for c in ran for row in reader.rows(name, c))
    head = ["by", "n", *_HEADS.values(), "verbatim spans", "abstained", *["AUROC"] * separates]
    body = [_line(reader, name, condition)[: len(head)] for condition in ran]
    title = f"## {suite.title[0].upper()}{suite.title[1:]}\n\n{suite.about}\n\n"
    return title + table(head, body) + _groups(reader, name, ran)


def _line(reader: Reader, suite: str, condition: str) -> Sequence[str]:
    rows = reader.rows(suite, condition)
    means = [reader.mean(suite, measure, condition) for measure in MEASURES]
    exact, spans = verbatim(rows)
    separation = reader.auroc(suite, condition)
    return (
        condition,
        str(len(rows)),
        *(interval_text(mean) if mean else "-" for mean in means),
        f"{exact:,} of {spans:,}" if spans else "-",
        str(sum(row["abstained"] for row in rows)),
        interval_text(separation) if separation else "-",
    )


def _groups(reader: Reader, suite: str, conditions: Sequence[str]) -> str:
    """A table of the suite's parts, where it has any."""
    rows = [row for condition in conditions for row in reader.rows(suite, condition)]
    groups = list(dict.fromkeys(row["group"] for row in rows if row["group"]))
    if len(groups) < 2:
        return ""
    measures = ["em", "hit", *["auroc"] * any(reader.auroc(suite, c) for c in conditions)]
    body = [
        (
            condition,
            _HEADS.get(measure, "AUROC"),
            *_parts(reader, suite, measure, condition, groups),
        )
        for condition in conditions
        for measure in measures
    ]
    return "\n" + table(("by", "", *groups), body)


def _parts(
    reader: Reader, suite: str, measure: str, condition: str, groups: Sequence[str]
) -> Iterator[str]:
    for group in groups:
        value = (
            reader.auroc(suite, condition, group)
            if measure == "auroc"
            else reader.mean(suite, measure, condition, group)
        )
        yield interval_text(value) if value else "-"


def _left_out(results: Results) -> str:
    lines = [f"- {SUITES[name].title}: {why}" for name, why in results.left_out.items()]
    if results.failures:
        first = results.failures[0]
        lines.append(
            f"- {len(results.failures)} rows have no result; the first: {first['suite']}, "
            f"{first['condition']}, {first['id']}: {first['error']}"
        )
    return "## Left out\n\n" + "\n".join(lines) + "\n" if lines else ""


def _pictures(plots: Sequence[str] | None) -> str:
    if plots is None:
        return (
            "## Plots\n\nNone: matplotlib isn't installed. `pip install 'recallm-core[eval]'` adds "
            "it; run the same command with `--resume` and they are drawn from the rows.\n"
        )
    if not plots:
        return ""
    return "## Plots\n\n" + "\n\n".join(f"![{Path(p).stem}]({p})" for p in plots) + "\n"


def _how() -> str:
    return """## How to read this

- *EM*, *F1*: the answer against the gold answers, word by word, without case, articles and outer
  punctuation. *found*: the answer's text holds a gold answer, whatever else it says.
- *hit*: a quote that supports the answer holds a gold answer, in the gold document. Without the
  constraint every span counts as a quote; one that stands in no document is no hit.
- *verbatim spans*: recalled spans of the output that stand in a document as they were given.
- *constraint*: spans are held to the documents; *no constraint*: the same rules for where spans
  open and close, but anything may stand in them (an evaluation's hook, no setting). A prior tilts
  where a constrained span starts, so it has no meaning without the constraint.
- *prior ... alone*: the sentence that the prior likes best, without the model, and the first piece
  of it that has the type the question asks for. *heuristic*: the same with BM25.
- *AUROC*: how often an answerable question scores above one that isn't. The score is the words and
  the meaning that the recalled evidence shares with the question (`sentence_scorer.support`);
  answers that count as abstained rank below all others.
- *tokens a second*: over rows whose prompt wasn't cached, from the first token on; "with reading"
  counts the time for the prompt, too.
"""


def write_report(
    results: Results, about: Mapping[str, Any], folder: Path, plots: Sequence[str] | None
) -> None:
    """Writes ``summary.json`` and ``report.md``."""
    data = json.dumps(summary(results, about), indent=1, ensure_ascii=False)
    (folder / "summary.json").write_text(data + "\n", "utf-8")
    (folder / "report.md").write_text(markdown(results, about, plots), "utf-8")
