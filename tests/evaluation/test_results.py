"""The pages of results and the README's figures, made anew from the rows that are stored."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import pytest

from recallm_core.evaluation.frame.compact import compact, pack
from recallm_core.evaluation.frame.pages import main, with_fresh_blocks
from recallm_core.evaluation.frame.results import mean, read_run, values
from recallm_core.evaluation.frame.statistics import difference_of
from recallm_core.evaluation.rows import Row, RunError
from recallm_core.evaluation.ruler.report import task_means
from recallm_core.evaluation.ruler.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
SMOL = ROOT / "recallm_core" / "models" / "recallm-smol"
FROM_ROWS = ("cited.md", "long_contexts.md", "mini.md", "packing.md", "trained.md")
IN_MARKS = {
    "Qwen": (
        "cited.qwen2.5-coder-0.5b-instruct",
        "cited.qwen2.5-coder-0.5b-q4_k_m.gguf-in-marks",
    ),
    "SmolLM2": ("cited.smollm2-135m-instruct", "cited.smollm2-135m-q4_1.gguf-in-marks"),
}
DRAWN = {
    "Qwen": "cited.qwen2.5-coder-0.5b-q4_k_m.gguf-drawn",
    "SmolLM2": "cited.smollm2-135m-q4_1.gguf-drawn",
    "gemma": "cited.gemma-3-270m-q4_k_m.gguf-drawn",
}
WITHOUT = {
    "Qwen": "cited.qwen2.5-coder-0.5b-instruct",
    "SmolLM2": "cited.smollm2-135m-instruct",
    "gemma": "cited.gemma-3-270m",
}
UNDRAWN = {name: files[1] for name, files in IN_MARKS.items()} | {
    "gemma": "cited.gemma-3-270m-q4_k_m.gguf"
}
SUITES = {"Natural Questions": "nq", "SQuAD 2.0": "squad2"}


@cache
def stored(name: str) -> list[Row]:
    return read_run(RESULTS / "rows" / f"{name}.jsonl.gz")


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", sorted(path.name for path in RESULTS.glob("*.md")))
def test_every_table_is_what_its_rows_say(page: str) -> None:
    text = (RESULTS / page).read_text("utf-8")
    assert "<!-- end -->" in text or page not in FROM_ROWS
    assert with_fresh_blocks(text, RESULTS) == text


def test_every_file_of_rows_is_on_a_page() -> None:
    pages = "".join(path.read_text("utf-8") for path in RESULTS.glob("*.md"))
    for path in (RESULTS / "rows").iterdir():
        assert f"rows/{path.name}" in pages
        assert path.stat().st_size < 200_000


@pytest.mark.parametrize(
    ("model", "suite"),
    [
        ("Qwen2.5-Coder-0.5B-Instruct", "Natural Questions"),
        ("Qwen2.5-Coder-0.5B-Instruct", "SQuAD 2.0"),
        ("SmolLM2-135M-Instruct", "Natural Questions"),
        ("SmolLM2-135M-Instruct", "SQuAD 2.0"),
    ],
)
def test_the_readmes_table_of_cited_answers(model: str, suite: str) -> None:
    name = model.partition("2.5-")[0].removesuffix("-135M-Instruct")
    ours, without = (
        [r for r in stored(file) if (r["suite"], r["condition"]) == (SUITES[suite], way)]
        for file, way in ((DRAWN[name], "first"), (WITHOUT[name], "without us"))
    )
    names = ("cited", "abstained", "hit", "right")
    figures = [*(mean(ours, name) for name in names), mean(without, "right")]
    cited, none, hit, right, plain = (f"{value.mean:.2f}" for value in figures if value is not None)
    assert all(row["abstained"] or row["scores"]["cited"] for row in ours)
    line = f"| {suite} | {cited} | {none} | {hit} | {right} / {plain} |"
    table = readme().partition("Measured on 100 held-out questions")[2]
    table = table[table.index(model) :]
    assert line in table[: table.index("\n\nSo ")]


def pairs_in_marks(model: str, file: str, name: str, *suites: str) -> list[tuple[float, float]]:
    """A score of answers inside quotation marks, and of those to the same questions before."""
    before = {(r["suite"], r["id"]): r for r in stored(model) if r["condition"] == "first"}
    rows = [r for r in stored(file) if r["condition"] == "first" and r["suite"] in suites]
    return [(r["scores"][name], before[r["suite"], r["id"]]["scores"][name]) for r in rows]


def test_what_is_said_of_answers_inside_quotation_marks() -> None:
    page = " ".join((RESULTS / "cited.md").read_text("utf-8").split())
    for label, suites in (*((k, (v,)) for k, v in SUITES.items()), ("both", ("nq", "squad2"))):
        for name, (model, file) in IN_MARKS.items():
            gap = difference_of(pairs_in_marks(model, file, "f1", *suites))
            assert gap is not None
            told = f"{gap.second:.2f} to {gap.first:.2f}"
            within = f"{gap.gap.mean:+.2f}, {gap.gap.low:+.2f} to {gap.gap.high:+.2f}"
            assert f"{name}, {label}: {told} ({within})" in page
    f1, right = (
        difference_of(pairs_in_marks(*IN_MARKS["Qwen"], name, "nq", "squad2"))
        for name in ("f1", "right")
    )
    assert f1 is not None
    assert right is not None
    assert f1.gap.low > 0
    assert right.gap.low < 0 < right.gap.high


def by_question(file: str, way: str, suites: tuple[str, ...]) -> dict[tuple[str, str], Row]:
    return {
        (r["suite"], r["id"]): r
        for r in stored(file)
        if r["condition"] == way and r["suite"] in suites
    }


def test_what_is_said_of_words_that_are_drawn() -> None:
    page = " ".join((RESULTS / "cited.md").read_text("utf-8").split())
    both = ("nq", "squad2")
    for name, file in DRAWN.items():
        ours = by_question(file, "first", both)
        for label, old, way in (
            ("undrawn", UNDRAWN[name], "first"),
            ("without us", WITHOUT[name], "without us"),
        ):
            before = by_question(old, way, both)
            for score in ("f1", "right"):
                pairs = [
                    (r["scores"][score], before[k]["scores"][score])
                    for k, r in ours.items()
                    if k in before
                ]
                gap = difference_of(pairs)
                assert gap is not None
                told = f"{gap.second:.2f} to {gap.first:.2f}"
                told += f" ({gap.gap.mean:+.2f}, {gap.gap.low:+.2f} to {gap.gap.high:+.2f})"
                assert f"| {name} | {label} | {score} | {len(pairs)} | {told} |" in page
        assert sum(values(list(ours.values()), "wrong_slices")) == 0
        assert sum(values(list(ours.values()), "repeats")) == 0
    answers = sum(len(by_question(file, "first", both)) for file in DRAWN.values())
    assert f"none of {answers} answers" in page


def test_what_is_said_of_the_same_models_through_transformers() -> None:
    page = " ".join((RESULTS / "cited.md").read_text("utf-8").split())
    both = ("nq", "squad2")
    ours = [*by_question("cited.qwen2.5-coder-0.5b-instruct-drawn", "first", both).values()]
    without = [*by_question(WITHOUT["Qwen"], "without us", both).values()]
    held = [max(row["scores"]["hit"], row["scores"]["right"]) for row in ours]
    right, plain = mean(ours, "right"), mean(without, "right")
    assert right is not None
    assert plain is not None
    told = (
        f"hold what was asked for in {sum(held) / len(held):.3f} of {len(held)}, the words alone in"
    )
    assert f"{told} {right.mean:.2f}; without us the words in {plain.mean:.2f}" in page
    assert sum(values(ours, "wrong_slices")) == sum(values(ours, "repeats")) == 0


def test_what_the_readme_says_of_short_answers() -> None:
    both = ("nq", "squad2")
    ours, plain = (
        [*by_question(files["Qwen"], way, both).values()]
        for files, way in ((DRAWN, "first"), (WITHOUT, "without us"))
    )
    f1, without, words = mean(ours, "f1"), mean(plain, "f1"), mean(ours, "words")
    assert f1 is not None
    assert without is not None
    assert words is not None
    told = f"F1 is {f1.mean:.2f} over both, without us {without.mean:.2f}"
    assert told in " ".join(readme().split())
    assert f"about {words.mean:.0f} words of Qwen's" in " ".join(readme().split())


def test_the_readmes_lines_of_the_shipped_model() -> None:
    rows = [row for row in stored("mini.recallm-mini") if row["answerable"]]

    def shown(suite: str, way: str, name: str, count: int) -> str:
        some = [row for row in rows if row["suite"] == suite and row["condition"] == way]
        assert len(some) == count
        value = mean(some, name)
        assert value is not None
        return f"{value.mean:.2f}"

    ways = ("constraint, prior reader", "heuristic")
    easy, plain = (shown("easy", way, "em", 60) for way in ways)
    ours, heuristic = (
        ", ".join(shown("nq", way, name, 200) for name in ("f1", "hit")) for way in ways
    )
    (line,) = (line for line in readme().splitlines() if "60 easy questions" in line)
    assert f"| {easy} ({plain}) |" in line
    (line,) = (line for line in readme().splitlines() if "200 Natural Questions" in line)
    assert f"| {ours} ({heuristic}) |" in line


def test_what_the_readme_says_of_a_trained_model() -> None:
    trained, prompted = (
        mean([r for r in stored(name) if (r["suite"], r["condition"]) == ("nq", way)], "f1")
        for name, way in (
            ("cited.recallm-smol", "free/reader"),
            (DRAWN["SmolLM2"], "first"),
        )
    )
    assert trained is not None
    assert prompted is not None
    told = f"its words alone have an F1 of {trained.mean:.2f} on Natural Questions"
    assert f"{told} (prompted and drawn: {prompted.mean:.2f})" in " ".join(readme().split())


def test_what_is_said_of_values_behind_thought() -> None:
    direct, behind, other, filler = "direct", "own trace", "another's trace", "filler"

    def shown(name: str, way: str, task: str) -> str:
        rows = [r for r in stored(f"thought.{name}") if (r["condition"], r["task"]) == (way, task)]
        share = mean(rows, "score")
        assert share is not None
        assert len(rows) == 20
        return f"{100 * share.mean:.0f}"

    new, old = ("recallm-smol", "recall, free"), ("smollm2-135m-trained", "recall, free")
    told = f"the values of {shown(*new, behind)} of 100 keys, against {shown(*new, direct)} without"
    told += f" any working (trained without such rows: {shown(*old, behind)} and"
    assert f"{told} {shown(*old, direct)})" in " ".join(readme().split())
    prompted, alone = "smollm2-135m-prompted", "recall without reader"
    ways = ((prompted, "recall"), (prompted, alone), new, (new[0], alone), old)
    card = (SMOL / "README.md").read_text("utf-8")
    for label, task in (
        ("nothing", direct),
        ("the working that leads to the key", behind),
        ("the working of another problem", other),
        ("other text of that length", filler),
    ):
        shares = " | ".join(shown(*way, task) for way in ways)
        assert f"| {label} | {shares} |" in card


def test_the_readmes_line_of_ruler() -> None:
    (line,) = (line for line in readme().splitlines() if "RULER's 13 tasks" in line)
    single = [name for name in TASKS if name.startswith(("niah_single", "niah_multikey"))]
    assert len(single) == 6
    whole, alone = [], []
    for length in (1024, 4096):
        rows = [row for row in stored("ruler.recallm-mini") if row["length"] == length]
        assert {row["task"] for row in rows} == set(TASKS)
        assert len(rows) == 20 * len(TASKS)
        needles = [row for row in rows if row["task"] in single]
        whole.append(f"{100 * (task_means(rows) or 0):.0f}")
        alone.append(f"{100 * (task_means(needles) or 0):.0f}")
    assert f"| {' / '.join(whole)} of 100; {' / '.join(alone)} |" in line


def test_what_the_page_says_of_the_run_of_ruler() -> None:
    rows = stored("ruler.recallm-mini")
    minutes = sum(values(rows, "cpu_seconds")) / 60
    spans, verbatim = (int(sum(values(rows, name))) for name in ("spans", "verbatim"))
    page = " ".join((RESULTS / "long_contexts.md").read_text("utf-8").split())
    assert f"{minutes:.1f} minutes of CPU time" in page
    assert f"{verbatim:,} of {spans:,} spans are verbatim" in page
    assert verbatim == spans
    assert min(values(rows, "fill")) >= 0.95


def test_no_stored_citation_is_another_slice_than_it_says() -> None:
    cited = [r for names in IN_MARKS.values() for name in names for r in stored(name)]
    ours = [r for r in cited if r["condition"] == "first" and "unanswerable" not in r["suite"]]
    page = (RESULTS / "cited.md").read_text("utf-8")
    assert sum(values(ours, "wrong_slices")) == 0
    assert f"0 in {len(ours)} answers" in page


def test_rows_are_packed_without_texts_and_the_same_each_time(tmp_path: Path) -> None:
    row = {"suite": "s", "condition": "c", "id": "i", "digest": "d", "text": "long", "answers": []}
    row |= {"scores": {"score": 1 / 3}, "facts": {"depth": 1, "others": ["x"]}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    for name in ("a", "b"):
        assert pack([tmp_path], tmp_path / f"{name}.jsonl.gz") == 1
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    (small,) = read_run(tmp_path / "a.jsonl.gz")
    assert small == compact(row)
    assert small["scores"] == {"score": 0.3333}
    assert small["facts"] == {"depth": 1}
    assert "text" not in small


def test_a_page_that_is_wrong_is_rewritten(tmp_path: Path) -> None:
    source = RESULTS / "rows" / "cited.gemma-3-270m.jsonl.gz"
    (tmp_path / "cited.gemma-3-270m.jsonl.gz").write_bytes(source.read_bytes())
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- cited: cited.gemma-3-270m.jsonl.gz -->\n| stale |\n<!-- end -->\n", "utf-8"
    )
    assert main([str(page)]) == 0
    assert "| gemma-3-270m | nq | without us | 50 |" in page.read_text("utf-8")
    assert "stale" not in page.read_text("utf-8")
    with pytest.raises(RunError, match="no tables of 'x'"):
        with_fresh_blocks("<!-- x: a.jsonl.gz -->\n<!-- end -->", tmp_path)


def test_rows_that_are_no_gzip_or_too_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(b"nothing")
    with pytest.raises(RunError, match="can't be read"):
        read_run(path)
    monkeypatch.setattr("recallm_core.evaluation.frame.results._MOST", 100)
    path.write_bytes(gzip.compress(b" " * 1000))
    with pytest.raises(RunError, match="more than 100 bytes"):
        read_run(path)
