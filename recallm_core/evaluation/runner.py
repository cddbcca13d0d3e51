"""Runs suites under conditions and writes every result; what is written is never run again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recallm_core.errors import RecallmError
from recallm_core.evaluation.answering import Way
from recallm_core.evaluation.conditions import Condition, conditions
from recallm_core.evaluation.datasets import MissingDataError
from recallm_core.evaluation.rows import Place, Row, RowFile, RunError, failed_row, scored_row
from recallm_core.evaluation.tasks import SUITES, Scale, Suite
from recallm_core.generator import RecaLLM
from recallm_core.prompting.params import GenerationParams

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        suites: Names of suites, in order.
        priors: Names of priors; the first is held to the bars.
        constraint: ``on``, ``off`` or both.
        limit: Items per suite at most; None: as many as each suite says.
        params: Settings of all generations; unset ones come from the model's recipe.
        trained_tokens: The longest contexts that the model was trained on.
    """

    suites: tuple[str, ...] = tuple(SUITES)
    priors: tuple[str, ...] = ("none",)
    constraint: tuple[str, ...] = ("on", "off")
    limit: int | None = None
    params: GenerationParams = field(default_factory=lambda: GenerationParams(temperature=0.0))
    trained_tokens: int = 2048

    def conditions(self, suite: Suite) -> tuple[Condition, ...]:
        """The conditions that a suite is run under."""
        priors = self.priors if suite.all_priors else self.priors[:1]
        kinds = ("model", *(["free"] * suite.free), *(["prior", "heuristic"] * suite.baselines))
        return tuple(c for c in conditions(priors, self.constraint) if c.kind in kinds)


@dataclass(slots=True)
class Results:
    """What a run found.

    Attributes:
        plan: What was run.
        rows: The rows by suite and condition, in the order of the items.
        left_out: Suites that couldn't be run, and why.
        failures: Rows without a result.
    """

    plan: Plan
    rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failures: list[Row] = field(default_factory=list)


def check_settings(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Remembers what a run folder's rows depend on, or compares it.

    Raises:
        RunError: The folder has rows and ``resume`` is off, or they were made with other settings.
    """
    path = folder / "settings.json"
    if (folder / "rows.jsonl").is_file() and not resume:
        raise RunError(
            f"{folder} has rows of an earlier run; --resume goes on with them, another --out "
            "begins anew"
        )
    if resume and path.is_file():
        before = json.loads(path.read_text("utf-8"))
        names = {*before, *settings}
        differing = sorted(n for n in names if before.get(n) != settings.get(n))
        if differing:
            shown = "; ".join(f"{n}: {before.get(n)!r}, now {settings.get(n)!r}" for n in differing)
            raise RunError(
                f"the rows in {folder} were made with other settings and can't be mixed ({shown}); "
                "give another --out, or run with the settings of before"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(settings), indent=1) + "\n", "utf-8")


def run(llm: RecaLLM, plan: Plan, folder: Path, say: Say) -> Results:
    """Runs what isn't in the folder yet and returns everything that the plan asks for.

    The conditions of an item follow each other, so that they share what is cached of its prompt.

    Args:
        llm: The model.
        plan: What to run.
        folder: Has ``rows.jsonl``, or gets it.
        say: Is told how it goes, a line at a time.
    """
    file = RowFile(folder / "rows.jsonl")
    results = Results(plan)
    scale = Scale(llm.count_tokens, plan.trained_tokens)
    for name in plan.suites:
        suite = SUITES[name]
        try:
            items = suite.items(scale, plan.limit)
        except MissingDataError as error:
            results.left_out[name] = str(error)
            say(f"{name}: left out, {error}")
            continue
        ways = [(c, c.way(llm, plan.params)) for c in plan.conditions(suite)]
        began = time.perf_counter()
        for item in items:
            for condition, way in ways:
                _one(Place(name, condition, item), way, file, results)
        say(_progress(results, suite, ways, time.perf_counter() - began))
    return results


def _one(place: Place, way: Way, file: RowFile, results: Results) -> None:
    """Answers one item under one condition, unless that was done before."""
    if not file.done(place):
        try:
            file.append(scored_row(place, way(place.item)))
        except RecallmError as error:
            file.append(failed_row(place, error))
    row = file.get(place)
    assert row is not None
    if "error" in row:
        results.failures.append(row)
    else:
        results.rows.setdefault((place.suite, place.condition.name), []).append(row)


def _progress(
    results: Results, suite: Suite, ways: Sequence[tuple[Condition, Way]], seconds: float
) -> str:
    lines = [f"{suite.name} ({seconds:,.0f} s)"]
    for condition, _ in ways:
        rows = results.rows.get((suite.name, condition.name), [])
        answerable = [row for row in rows if row["answerable"]]
        means = [
            f"{name} {sum(row[name] for row in answerable) / len(answerable):.2f}"
            for name in ("em", "f1", "hit")
            if answerable
        ]
        lines.append(f"  {condition.name}: n {len(rows)} {' '.join(means)}")
    return "\n".join(lines)
