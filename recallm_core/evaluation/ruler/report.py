"""What a run of RULER says: scores by task and length, effective length, depth, deviations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recallm_core.evaluation.frame.compare import shown_gap
from recallm_core.evaluation.frame.lengths import LEAST, shown_length
from recallm_core.evaluation.frame.report import cell, figures
from recallm_core.evaluation.frame.results import (
    group_by,
    mean,
    of_way,
    score_pairs,
    values,
    ways,
)
from recallm_core.evaluation.frame.statistics import difference_of, shown_p
from recallm_core.evaluation.report import table
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.ruler.tasks import NEEDLES, TASKS

EFFECTIVE = 0.856  # Llama-2-7B at 4K, RULER's bar
MEASURES = ("score", "words", "precision", "quoted", "truncated", "abstained", "fill")
BANDS = 5
DEVIATIONS = (
    "Needles, variables, lists and paragraphs are documents; the question stands after them. "
    "RULER's sentence before the text (that something is hidden in it) is left out.",
    "No answer prefix is put into the model's mouth: it would keep a model from thinking, and "
    "from quoting. Thought and evidence have a budget of their own (`--thought`) on top of the "
    "length; only what follows thinking is scored.",
    "The solved example of `vt` and `cwe` is an earlier turn of the conversation; below 2K that of "
    "`cwe` has 15 words instead of 40.",
    "Essays are replaced: see *text* above. Their sentences are found by `recallm_core.text`, and "
    "what is no sentence (code, tables, headings) is left out.",
    "Words of keys and lists come from the shipped embedder's vocabulary, not from wonderwords.",
    "The tasks `qa_1` and `qa_2` ask nothing but the question (RULER adds to give only the "
    "answer), and their last distractor is cut to fill the length. `niah_multikey_2` and "
    "`niah_multikey_3` end with sentences of noise where no whole needle fits any more.",
    "`qa_1` asks about the half of SQuAD 2.0's development set that is in the data folder, `qa_2` "
    "about 150 rows of HotpotQA's, both filled up with Wikipedia passages. recallm-mini was "
    "trained on SQuAD paragraphs: `qa_1` is in its domain.",
    "Precision isn't RULER's: the share of the values that an answer offers that are wanted (of "
    "its words, where any gold answer is enough). An answer that lists everything has none.",
)


def parts(rows: Sequence[Row], about: Mapping[str, Any]) -> list[str]:
    """Returns the parts of the report."""
    return [
        f"Text: {about.get('haystack')}. Greedy unless a temperature is given. In per cent, with "
        "95 % intervals: Wilson's for what is right or wrong, else the bootstrap's.\n",
        _headline(rows),
        _against(rows),
        *(_tasks(rows, way) for way in ways(rows)),
        _depths(rows),
        _fill(rows),
        "## Where this differs from RULER\n\n"
        + "\n".join(f"- {line}" for line in DEVIATIONS)
        + "\n",
    ]


def lengths(rows: Sequence[Row]) -> list[int]:
    """Returns the lengths of a run, shortest first."""
    return sorted({row["length"] for row in rows})


def task_means(rows: Sequence[Row], measure: str = "score") -> float | None:
    """Returns the plain mean over tasks of their means; None where there are no rows."""
    groups = group_by(rows, lambda row: row["task"])
    means = [
        sum(numbers) / len(numbers) for r in groups.values() if (numbers := values(r, measure))
    ]
    return sum(means) / len(means) if means else None


def complete_lengths(rows: Sequence[Row]) -> list[int]:
    """Returns the lengths at which every task of the rows was asked: means compare only there."""
    tasks = {row["task"] for row in rows}
    at = group_by(rows, lambda row: row["length"])
    return [n for n in sorted(at) if {row["task"] for row in at[n]} == tasks]


def effective_length(rows: Sequence[Row]) -> int | None:
    """Returns the longest length up to which the mean over tasks stays at RULER's bar."""
    best = None
    for length in complete_lengths(rows):
        average = task_means([row for row in rows if row["length"] == length])
        if average is None or average < EFFECTIVE:
            return best
        best = length
    return best


def weighted_mean(rows: Sequence[Row], *, rising: bool) -> float:
    """Returns RULER's weighted mean over lengths: the longer count more, or less."""
    points = [
        task_means([row for row in rows if row["length"] == length]) or 0.0
        for length in complete_lengths(rows)
    ]
    weights = list(range(1, len(points) + 1))
    ordered = weights if rising else weights[::-1]
    return sum(w * p for w, p in zip(ordered, points, strict=True)) / max(1, sum(ordered))


def _headline(rows: Sequence[Row]) -> str:
    tasks = len({row["task"] for row in rows})
    shown = lengths(rows)
    head = ["way", *map(shown_length, shown), "rising", "falling", "effective length", "precision"]
    body = [_headline_of(way, of_way(rows, way), shown) for way in ways(rows)]
    scope = f"of RULER's {len(TASKS)} tasks" if tasks < len(TASKS) else "tasks"
    return (
        f"## Mean of {tasks} {scope}\n\n{table(head, body)}\n*rising*, *falling*: lengths weighted "
        f"by rank. *effective length*: the mean is at least {100 * EFFECTIVE:.1f} up to it. "
        "Lengths at which tasks are missing have no mean.\n"
    )


def _headline_of(way: str, rows: Sequence[Row], shown: Sequence[int]) -> list[str]:
    complete = complete_lengths(rows)
    means = {n: task_means([row for row in rows if row["length"] == n]) for n in complete}
    longest = effective_length(rows)
    return [
        way,
        *(f"{100 * (means[n] or 0):.1f}" if n in means else "-" for n in shown),
        f"{100 * weighted_mean(rows, rising=True):.1f}",
        f"{100 * weighted_mean(rows, rising=False):.1f}",
        shown_length(longest) if longest else "none",
        f"{100 * (task_means(rows, 'precision') or 0):.1f}",
    ]


def _against(rows: Sequence[Row]) -> str:
    """The first way against each other one, sample by sample."""
    names = ways(rows)
    lines = []
    for other in names[1:]:
        pairs = score_pairs(of_way(rows, names[0]), of_way(rows, other), "score", lambda r: r["id"])
        difference = difference_of(pairs)
        if difference is not None:
            gap = shown_gap(difference)
            lines.append([f"{names[0]} - {other}", str(len(pairs)), gap, shown_p(difference.p)])
    if not lines:
        return ""
    return "## Pair by pair\n\n" + table(["ways", "n", "difference (95 %)", "McNemar p"], lines)


def _tasks(rows: Sequence[Row], way: str) -> str:
    way_rows, shown = of_way(rows, way), lengths(rows)
    groups = group_by(way_rows, lambda row: (row["task"], row["length"]))
    names = [name for name in TASKS if any((name, length) in groups for length in shown)]
    head = ["task", "n", *map(shown_length, shown), "precision", "own words", "quoted", "truncated"]
    body = [_task_line(name, groups, shown) for name in names]
    return f"## By task: {way}\n\n{table(head, body)}"


def _task_line(
    name: str, groups: Mapping[tuple[str, int], Sequence[Row]], shown: Sequence[int]
) -> list[str]:
    everything = [row for length in shown for row in groups.get((name, length), [])]
    at = [mean(groups.get((name, length), []), "score") for length in shown]
    others = ("precision", "words", "quoted", "truncated")
    sizes = {len(groups.get((name, length), [])) for length in shown}
    return [
        name,
        "/".join(map(str, sorted(sizes))),
        *(cell(value) for value in at),
        *(_plain(everything, measure) for measure in others),
    ]


def _plain(rows: Sequence[Row], measure: str) -> str:
    numbers = values(rows, measure)
    return f"{100 * sum(numbers) / len(numbers):.0f}" if numbers else "-"


def band(row: Row) -> int:
    """Returns in which fifth of the context the needle stands."""
    return min(BANDS - 1, int(row["facts"]["depth"] * BANDS / 100))


def with_depth(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows whose answer stands at one depth."""
    return [row for row in rows if row["task"] in NEEDLES and "depth" in row["facts"]]


def _depths(rows: Sequence[Row]) -> str:
    placed = with_depth(rows)
    if not placed:
        return ""
    titles = [f"{100 * n // BANDS}-{100 * (n + 1) // BANDS} %" for n in range(BANDS)]
    body = []
    for way in ways(placed):
        groups = group_by(of_way(placed, way), band)
        body.append([way, *(cell(mean(groups.get(n, []), "score")) for n in range(BANDS))])
    return "## Needles by depth (of the first one asked for)\n\n" + table(["way", *titles], body)


def _fill(rows: Sequence[Row]) -> str:
    """How full the contexts are, and which cells aren't of their length."""
    groups = group_by(rows, lambda row: (row["task"], row["length"], row["condition"]))
    short = [
        f"{task} at {shown_length(length)} ({way}): {min(values(some, 'fill')):.2f}"
        for (task, length, way), some in groups.items()
        if "without" not in way and min(values(some, "fill"), default=1.0) < LEAST
    ]
    average = mean(rows, "fill")
    lines = f"On average {cell(average)} per cent of the length is filled.\n"
    if short:
        lines += f"\nBelow {LEAST}: {'; '.join(short)}.\n"
    return "## Fill\n\n" + lines


def data(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns all figures as plain values."""
    result: dict[str, Any] = {}
    for way in ways(rows):
        way_rows = of_way(rows, way)
        tasks: dict[str, Any] = {}
        for (task, length), some in group_by(way_rows, lambda r: (r["task"], r["length"])).items():
            tasks.setdefault(task, {})[str(length)] = figures(some, MEASURES)
        result[way] = {
            "means": {
                str(n): task_means([row for row in way_rows if row["length"] == n])
                for n in lengths(way_rows)
            },
            "effective_length": effective_length(way_rows),
            "tasks": tasks,
        }
    return {"ways": result}
