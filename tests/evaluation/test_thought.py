from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM, cli
from recallm_core.evaluation.frame.lengths import Meter
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.frame.texts import Haystack
from recallm_core.evaluation.frame.ways import ByRecall
from recallm_core.evaluation.thought.conditions import (
    ABSENT,
    ANOTHER,
    CONDITIONS,
    DIRECT,
    FILLER,
    LITERAL,
    OPENED,
    PLAIN_LITERAL,
    REPLAYED,
    Beginnings,
    dictionaries,
    dose,
    samples,
)
from recallm_core.evaluation.thought.dictionaries import SHAPES, dictionary, equation
from recallm_core.evaluation.thought.report import closing, gaps
from recallm_core.evaluation.thought.scores import (
    CUT,
    GARBLED,
    INVENTED,
    NONE,
    OTHER,
    RIGHT,
    answer_scores,
    is_refusal,
    kind,
    worst,
)
from recallm_core.evaluation.thought.traces import cut_at_key, templates
from recallm_core.prompting.params import GenerationParams
from recallm_core.testing import random_llm, scripted_llm
from tests.evaluation.long_contexts import record

FILL = Haystack("test", ("The otters swim in the river every day.", "Nobody counts them at all."))


@cache
def meter() -> Meter:
    return Meter(scripted_llm(""))


@cache
def everything() -> tuple[Sample, ...]:
    """Two dictionaries under every condition, and a dose."""
    entries = dictionaries(2600, 2, seed=0, meter=meter())
    begin = Beginnings(templates(entries), FILL)
    return tuple(samples(entries, 2600, begin, meter(), doses=(300,)))


@given(st.integers(-100, 99), st.integers(0, 10**6))
def test_an_equation_has_its_solution_and_the_steps_state_it(solution: int, seed: int) -> None:
    problem, steps = equation(random.Random(seed), solution)
    left, right = problem.split(" = ")
    python = re.sub(r"(-?\d+)x", r"\1*x", left)
    assert eval(python, {"x": solution}) == int(right)
    others = [x for x in (solution - 1, solution + 1) if eval(python, {"x": x}) == int(right)]
    assert not others
    assert steps[-1] == f"So the key is {solution}."


@given(st.integers(0, 200), st.integers(2, 120))
def test_a_dictionary_holds_its_key_once_and_not_the_absent_one(number: int, size: int) -> None:
    entry = dictionary(number, size, seed=0)
    keys = [key for key, _ in entry.pairs]
    assert len(set(keys)) == len(set(entry.values)) == size
    assert keys.count(entry.key) == 1
    assert entry.absent not in keys
    assert entry.shape in SHAPES
    text = entry.document.text
    assert text.count(entry.before + entry.value) == 1
    assert entry == dictionary(number, size, seed=0)


def test_every_dictionary_is_asked_under_every_condition_over_the_same_text() -> None:
    by_number: dict[int, list[Sample]] = {}
    for sample in everything():
        by_number.setdefault(sample.facts["dictionary"], []).append(sample)
    for some in by_number.values():
        assert {sample.task for sample in some} == {*CONDITIONS, dose(300)}
        assert len({sample.documents[0].text for sample in some}) == 1
        assert len({sample.id for sample in some}) == len(some)
        assert max(map(meter().tokens, some)) <= 2600 + 300


def test_what_outputs_begin_with() -> None:
    first = {s.task: s for s in everything() if s.facts["dictionary"] == 0}
    key = str(first[DIRECT].facts["key"])
    assert first[DIRECT].reasoning == "Answer: "
    assert first[REPLAYED].reasoning.endswith(f"So the key is {key}. Answer: ")
    assert first[REPLAYED + OPENED].opens
    assert first[LITERAL].reasoning.endswith(first[PLAIN_LITERAL].reasoning)
    assert first[ANOTHER].reasoning != first[REPLAYED].reasoning
    assert f"So the key is {key}." in first[ANOTHER].reasoning
    sizes = [meter().count(first[name].reasoning) for name in (REPLAYED, FILLER, dose(300))]
    assert abs(sizes[0] - sizes[1]) < 60
    assert 200 < sizes[2] <= 320
    assert "otters" in first[FILLER].reasoning
    assert first[ABSENT].answers == ()


def test_without_a_right_trace_there_is_no_condition_that_needs_it() -> None:
    entries = dictionaries(2600, 1, seed=0, meter=meter())
    tasks = {s.task for s in samples(entries, 2600, Beginnings({}, FILL), meter())}
    assert REPLAYED not in tasks
    assert {DIRECT, PLAIN_LITERAL, ABSENT} < tasks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 12, since", "x = 12."),
        ("So x is 12", "So x is 12."),
        ("x = \\boxed{12}", "x = \\boxed{12."),
        ("x = 120", ""),
        ("x = 1/12", ""),
        ("it is 12", ""),
    ],
)
def test_a_trace_ends_where_it_states_the_key(text: str, expected: str) -> None:
    assert cut_at_key(text, 12) == expected


# what became of a value

GOLD, ANOTHER_VALUE = "aB3dE6gH9j", "Zz9Yy8Xx7W"
VALUES = (GOLD, ANOTHER_VALUE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"It is {GOLD}.", RIGHT),
        (f'"{ANOTHER_VALUE}"', OTHER),
        (f"{GOLD[:7]}", CUT),
        (f"{GOLD[:4]}x{GOLD[5:]}", GARBLED),
        (f"{ANOTHER_VALUE}Q", GARBLED),
        ("qqqqq11111", INVENTED),
        ("The documents don't say.", NONE),
        ("Key 12", NONE),
        ("", NONE),
    ],
)
def test_kinds_of_errors(text: str, expected: str) -> None:
    assert kind(text, GOLD, VALUES) == expected


def test_the_worst_code_of_the_spans_counts() -> None:
    assert worst([GOLD, f"Key 3:\n{ANOTHER_VALUE}"], GOLD, VALUES) == OTHER
    assert worst([GOLD, "qqqqq11111"], GOLD, VALUES) == INVENTED
    assert worst([], GOLD, VALUES) == NONE


def test_the_oracle_and_the_shuffled_control() -> None:
    first, second = (s for s in everything() if s.task == DIRECT)
    right = answer_scores(first, record(first.answers[0], quoted=(first.answers[0],)))
    assert (right["score"], right["quoted"], right["wrong_quotes"]) == (1, 1, 0)
    assert answer_scores(first, record(""))["score"] == 0
    shuffled = answer_scores(first, record(second.answers[0]))
    assert (shuffled["score"], shuffled["is invented"]) == (0, 1)
    absent = next(s for s in everything() if s.task == ABSENT)
    assert "score" not in answer_scores(absent, record("x"))
    assert answer_scores(absent, record("The key isn't there."))["declined"] == 1
    assert is_refusal("There is no such key")
    assert not is_refusal(f"It isn't {GOLD}")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 200))
def test_with_the_mask_no_span_holds_a_garbled_or_invented_value(seed: int, index: int) -> None:
    """Whatever a model says, under any condition: the promise that the suites rest on."""
    sample = everything()[index % len(everything())]
    way = ByRecall(random_llm(seed=seed), "recall", GenerationParams(temperature=0.0), 16)
    (answer,) = way([sample])
    assert answer_scores(sample, answer)["wrong_quotes"] == 0
    assert answer.verbatim == len(answer.quoted)


# the report


def row(way: str, task: str, number: int, score: float) -> dict[str, Any]:
    facts = {"dictionary": number}
    base = {"suite": "thought", "condition": way, "id": f"{task}-{number}", "task": task}
    return base | {"length": 1024, "facts": facts, "scores": {"score": score}}


def test_the_gap_and_whether_recall_closes_it() -> None:
    plain = [row("without us", DIRECT, n, 1) for n in range(8)]
    plain += [row("without us", REPLAYED, n, float(n < 2)) for n in range(8)]
    recall = [row("recall", task, n, 1) for task in (DIRECT, REPLAYED) for n in range(8)]
    by_way = {gap.way: gap.difference for gap in gaps([*plain, *recall])}
    assert by_way["without us"].gap.mean == 0.75
    assert by_way["without us"].p == pytest.approx(2 / 64)
    assert by_way["recall"].gap.mean == 0
    result = closing(plain, recall, DIRECT, REPLAYED)
    assert result is not None
    assert result[0].mean == 0.75
    assert result[1] < 0.05
    assert closing([], recall, DIRECT, REPLAYED) is None


def test_a_run_makes_traces_once_and_leaves_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(prompt: str) -> str:
        return "<|start_recall|>Key<|end_recall|></think>It is x = 1."

    monkeypatch.setattr(RecaLLM, "load", lambda model, **options: scripted_llm(script))
    out = tmp_path / "run"
    words = [
        "eval",
        "thought",
        "--lengths",
        "2500",
        "--n",
        "2",
        "--out",
        str(out),
        "--thought",
        "9",
    ]
    words += ["--arms", "recall,plain", "--doses", "40", "--data", str(tmp_path)]
    assert cli.main(words) == 0
    assert "made by rule, as 0 of the model's own 2 traces are right" in capsys.readouterr().err
    assert (out / "traces" / "rows.jsonl").is_file()
    report = (out / "report.md").read_text("utf-8")
    assert "Does recall close the gap?" in report
    assert {"conditions.png", "dose.png"} < {path.name for path in out.iterdir()}
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]
    assert not [r for r in rows if r["condition"] == "without us" and r["task"].endswith(OPENED)]
    assert cli.main([*words, "--resume"]) == 0
    assert len((out / "rows.jsonl").read_text("utf-8").splitlines()) == len(rows)
    fewer = tmp_path / "fewer"
    words[words.index(str(out))] = str(fewer)
    assert cli.main([*words, "--skip-opened"]) == 0
    lines = (fewer / "rows.jsonl").read_text("utf-8").splitlines()
    ids = {(row["condition"], row["id"]) for row in map(json.loads, lines)}
    expected = {(r["condition"], r["id"]) for r in rows if not r["task"].endswith(OPENED)}
    assert ids == expected
    assert len(expected) < len(rows)


def test_samples_are_hidden_in_a_document_of_their_own() -> None:
    assert all(isinstance(s.documents[0], Document) for s in everything())
