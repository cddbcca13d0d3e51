"""Families for people: one problem with its gold marked, and a table of all of them."""

from __future__ import annotations

import random
from collections import Counter
from statistics import median

from recallm_core.rendering.visible import visible
from recallm_core.train.tasks.families.problem import Family, Problem
from recallm_core.train.tasks.families.registry import FAMILIES, available, draw_problem, family
from recallm_core.train.tasks.families.sources import Sources

OPEN, CLOSE = "\u27e6", "\u27e7"  # around gold


def shown_problem(name: str, seed: int, size: int, sources: Sources | None = None) -> str:
    """Returns a problem as text, its gold between double brackets.

    Raises:
        RecallmError: There is no such family, or the data folder lacks what it reads.
    """
    problem = draw_problem(name, random.Random(seed), sources or Sources(), size)
    drawn = family(name)
    lines = [f"{drawn.name} / {problem.kind}: {drawn.what}"]
    if drawn.stand_in:
        lines.append(f"({drawn.stand_in})")
    for number, (title, _) in enumerate(problem.passages):
        lines += ["", f"--- document {number} {title} ---", _mark_golds(problem, number)]
    lines += ["", "--- question ---", problem.question, "", "--- right answer ---", _key(problem)]
    scoring = problem.scoring
    lines.append(f"gold {len(problem.golds)}, overlap {scoring.overlap}, from {scoring.threshold}")
    return visible("\n".join(lines)) + "\n"


def _mark_golds(problem: Problem, number: int) -> str:
    """A passage with marks around its gold; ranges may lie in one another."""
    _, text = problem.passages[number]
    marks = [(g.place.end, CLOSE) for g in problem.golds if g.place.passage == number]
    marks += [(g.place.start, OPEN) for g in problem.golds if g.place.passage == number]
    for at, mark in sorted(marks, key=lambda pair: pair[0], reverse=True):
        text = text[:at] + mark + text[at:]
    return text


def _key(problem: Problem) -> str:
    key = problem.key
    wordings = "; ".join(" | ".join(item) for item in key.values)
    graded = sorted(key.grades, key=lambda pair: -pair[1])
    ranking = " > ".join(name for name, grade in graded if grade)
    cited = ", ".join(f"[{n}]" for n in key.references)
    return f"{key.kind}: " + " ".join(part for part in (wordings, ranking, cited) if part)


def families_table(count: int, seed: int, size: int, sources: Sources | None = None) -> str:
    """Returns rows, lengths and the share with gold of every family, from a sample of each."""
    sources = sources or Sources()
    lines = [
        "| family | sets drawn | rows read | characters, median (least to most) | with gold |",
        "| --- | --- | --- | --- | --- |",
    ]
    for drawn in FAMILIES.values():
        lines.append(_line(drawn, count, seed, size, sources))
    return "\n".join(lines) + "\n"


def _line(drawn: Family, count: int, seed: int, size: int, sources: Sources) -> str:
    if not available(drawn, sources):
        return f"| {drawn.name} | none: the data folder lacks its files | | | |"
    problems = [
        draw_problem(drawn.name, random.Random(f"{seed}:{n}"), sources, size) for n in range(count)
    ]
    lengths = [sum(len(text) for _, text in problem.passages) for problem in problems]
    kinds = Counter(problem.kind for problem in problems)
    with_gold = sum(bool(problem.golds) for problem in problems) / len(problems)
    shown = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    spread = f"{round(median(lengths)):,} ({min(lengths):,} to {max(lengths):,})"
    return f"| {drawn.name} | {shown} | {_rows(drawn, sources)} | {spread} | {with_gold:.0%} |"


def _rows(drawn: Family, sources: Sources) -> str:
    """How many records its sets read; what is generated has no number."""
    names = set(available(drawn, sources))
    counts = [f"{len(sources.rows(files[0])):,}" for kind, files in drawn.needs if kind in names]
    generated = len(drawn.needs) < len(drawn.kinds)
    return " + ".join(counts + (["generated"] if generated else []))
