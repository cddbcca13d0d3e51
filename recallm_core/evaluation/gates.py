"""The bars for a model that ships as the default, and what a run says about each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recallm_core.evaluation.conditions import FREE, HEURISTIC, prior_alone, under_constraint
from recallm_core.evaluation.metrics import Interval, auroc_interval, interval
from recallm_core.evaluation.rows import Row
from recallm_core.evaluation.runner import Results
from recallm_core.evaluation.thought.pairs import AFTER, DIRECT, OPENED

MEASURES = ("em", "f1", "hit", "found")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar and how a run stands to it.

    Attributes:
        name: What is measured.
        value: The figure, as it reads.
        floor: What is asked of a model that ships, as it reads.
        goal: What is aimed at.
        floor_met: Whether the floor is met; None: it isn't a question of yes or no.
        goal_met: The same for the goal.
        n: Rows behind it.
    """

    name: str
    value: str
    floor: str
    goal: str
    floor_met: bool | None
    goal_met: bool | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


class Reader:
    """Reads figures off a run's rows; the first prior's condition is the model's."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.prior = results.plan.priors[0]
        self.main = under_constraint(self.prior).name

    def rows(self, suite: str, condition: str = "", group: str = "") -> list[Row]:
        """The rows of a suite under a condition (the model's by default), or a group of them."""
        rows = self.results.rows.get((suite, condition or self.main), [])
        return [row for row in rows if not group or row["group"] == group]

    def mean(
        self, suite: str, measure: str, condition: str = "", group: str = ""
    ) -> Interval | None:
        """The mean of a measure over the answerable rows; None where there are none."""
        rows = self.rows(suite, condition, group)
        values = [row[measure] for row in rows if row["answerable"]]
        return interval(values) if values else None

    def gap(self, suite: str, measure: str, condition: str, pair: Sequence[str]) -> Interval | None:
        """The mean difference of two groups, over items that are in both."""
        first, second = (self._by_item(suite, measure, condition, group) for group in pair)
        shared = [name for name in first if name in second]
        return interval([first[name] - second[name] for name in shared]) if shared else None

    def _by_item(self, suite: str, measure: str, condition: str, group: str) -> dict[str, float]:
        rows = self.rows(suite, condition, group)
        return {row["id"].split("-")[0]: row[measure] for row in rows}

    def answerability(
        self, suite: str, condition: str = "", group: str = ""
    ) -> tuple[list[float], list[float]]:
        """The scores of the answerable rows (of a group), and of all others."""
        kinds: tuple[list[float], list[float]] = ([], [])
        for row in self.rows(suite, condition):
            if not row["answerable"] or group in ("", row["group"]):
                kinds[not row["answerable"]].append(row["answerability"])
        return kinds

    def auroc(self, suite: str, condition: str = "", group: str = "") -> Interval | None:
        """How well the scores tell the two kinds of rows apart."""
        kinds = self.answerability(suite, condition, group)
        return auroc_interval(*kinds) if all(kinds) else None


def interval_text(value: Interval) -> str:
    """A mean and its interval, as they read."""
    return f"{value.mean:.2f} ({value.low:.2f}-{value.high:.2f})"


def bars(results: Results) -> list[Bar]:
    """Returns every bar that the run has rows for."""
    reader = Reader(results)
    makers: tuple[Callable[[Reader], Iterator[Bar]], ...] = (
        _verbatim,
        _easy,
        _natural,
        _hops,
        _lookups,
        _length,
        _missing,
        _speed,
        _thought,
    )
    return [bar for make in makers for bar in make(reader)]


def verbatim(rows: Sequence[Row]) -> tuple[int, int]:
    """How many spans are verbatim, and how many there are."""
    return sum(row["verbatim"] for row in rows), sum(row["spans"] for row in rows)


def _verbatim(reader: Reader) -> Iterator[Bar]:
    groups = reader.results.rows.items()
    rows = [row for (_, name), some in groups for row in some if name.startswith("constraint")]
    exact, spans = verbatim(rows)
    wrong = sum(not quote["exact"] for row in rows for quote in row["evidence"])
    if spans:
        met = exact == spans and not wrong
        value = f"{exact:,} of {spans:,}"
        yield Bar("quotes verbatim, constraint on", value, "all", "all", met, met, spans)


def _easy(reader: Reader) -> Iterator[Bar]:
    for suite, name, goal in (
        ("easy", "easy questions, EM", 0.75),
        ("paraphrased", "paraphrased questions, EM", 0.45),
        ("handbook-18f", "18F handbook, EM", 0.75),
    ):
        value, base = reader.mean(suite, "em"), reader.mean(suite, "em", HEURISTIC)
        if value and base:
            floor = f"above the heuristic's {base.mean:.2f}"
            met = (value.mean > base.mean, value.mean >= goal)
            yield Bar(name, interval_text(value), floor, f"{goal:.2f}", *met, value.n)


def _natural(reader: Reader) -> Iterator[Bar]:
    hit, alone = reader.mean("nq", "hit"), reader.mean("nq", "hit", prior_alone(reader.prior).name)
    alone = alone or reader.mean("nq", "hit", HEURISTIC)
    if hit and alone:
        floor = f"at least the prior alone, {alone.mean:.2f}"
        met = (hit.mean >= alone.mean, hit.mean >= 0.85)
        yield Bar("Natural Questions, evidence hit", interval_text(hit), floor, "0.85", *met, hit.n)
    f1, base = reader.mean("nq", "f1"), reader.mean("nq", "f1", HEURISTIC)
    if f1 and base:
        floor = f"above the heuristic's {base.mean:.2f}"
        met = (f1.mean > base.mean, f1.mean >= 0.50)
        yield Bar("Natural Questions, F1", interval_text(f1), floor, "0.50", *met, f1.n)


def _hops(reader: Reader) -> Iterator[Bar]:
    value = reader.mean("two-hop", "em")
    names = [HEURISTIC, prior_alone(reader.prior).name]
    bases = [base.mean for name in names if (base := reader.mean("two-hop", "em", name))]
    if value and bases:
        floor = f"lower bound above the best single sentence's {max(bases):.2f}"
        met = (value.low > max(bases), value.mean >= 0.6)
        yield Bar("two hops, unseen, EM", interval_text(value), floor, "0.60", *met, value.n)


def _lookups(reader: Reader) -> Iterator[Bar]:
    for keys in (75, 140):
        value = reader.mean(f"kv-{keys}", "em")
        if value:
            met = (value.mean >= 0.9, value.mean >= 0.99)
            yield Bar(
                f"key-value, {keys} keys, EM", interval_text(value), "0.90", "0.99", *met, value.n
            )


def _length(reader: Reader) -> Iterator[Bar]:
    gap = reader.gap("length", "em", "", ("1x", "4x"))
    if gap:
        value = f"{100 * gap.mean:.0f} points lost ({100 * gap.low:.0f} to {100 * gap.high:.0f})"
        met = (gap.mean <= 0.15, gap.mean <= 0.05)
        yield Bar("context 4x longer than trained, EM", value, "15 points", "5 points", *met, gap.n)


def _missing(reader: Reader) -> Iterator[Bar]:
    for suite, name in (
        ("missing", "handbook"),
        ("missing-nq", "Natural Questions"),
        ("missing-clapnq", "ClapNQ"),
    ):
        value = reader.auroc(suite)
        if value:
            met = (value.mean >= 0.7, value.mean >= 0.85)
            yield Bar(
                f"not in the documents, AUROC: {name}",
                interval_text(value),
                "0.70",
                "0.85",
                *met,
                value.n,
            )


def rates(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Tokens per second of rows: once the prompt is read, and in all."""
    timed = [row for row in rows if row["output_tokens"] > 1 and not row["cached_tokens"]]
    after = [
        (row["output_tokens"] - 1) / max(row["seconds"] - row["first_token_seconds"], 1e-6)
        for row in timed
    ]
    return after, [row["output_tokens"] / row["seconds"] for row in timed]


def _speed(reader: Reader) -> Iterator[Bar]:
    after, whole = rates(reader.rows("speed"))
    if after:
        value, all_in = interval(after), interval(whole)
        text = f"{value.mean:.0f} ({value.low:.0f} to {value.high:.0f})"
        text += f"; with reading {all_in.mean:.0f}"
        met = (value.mean >= 30, value.mean >= 100)
        yield Bar("tokens a second, 2K context", text, "30", "100", *met, value.n)


def _thought(reader: Reader) -> Iterator[Bar]:
    for group, name in (
        (AFTER, "lost in thought"),
        (OPENED, "lost in thought, once a span is open"),
    ):
        on = reader.gap("thought", "found", "", (DIRECT, group))
        off = reader.gap("thought", "found", FREE, (DIRECT, group))
        if on and off:
            value = f"{_loss(reader, reader.main, on)} with, {_loss(reader, FREE, off)} without"
            met = on.mean <= off.mean / 5 if off.mean > 0 else None
            yield Bar(name, value, "measured", "a fifth of the loss without", True, met, on.n)


def _loss(reader: Reader, condition: str, gap: Interval) -> str:
    """Points lost, of those that were there to lose."""
    direct = reader.mean("thought", "found", condition, DIRECT)
    assert direct is not None
    return f"{100 * gap.mean:.0f} of {100 * direct.mean:.0f} points lost"
