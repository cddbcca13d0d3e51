from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM
from recallm_core.cli.eval import main
from recallm_core.errors import GenerationError
from recallm_core.evaluation.frame.compare import compare
from recallm_core.evaluation.frame.lengths import (
    ENOUGH,
    Fitter,
    LengthError,
    Meter,
    parse_lengths,
    shown_length,
)
from recallm_core.evaluation.frame.page import page
from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.frame.report import ending, examples
from recallm_core.evaluation.frame.results import failed_rows, read_run
from recallm_core.evaluation.frame.run import Cell, Progress, ask
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.frame.statistics import (
    difference_of,
    mcnemar,
    mean_of,
    sign_test,
    slope,
)
from recallm_core.evaluation.frame.ways import (
    ByPlain,
    ByRecall,
    ByUnmasked,
    after_prefix,
)
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.rows import RunError
from recallm_core.prompting.params import GenerationParams
from recallm_core.testing import random_llm, scripted_llm

GREEDY = GenerationParams(temperature=0.0)
PAGE = Document("The mill is red. It opened in 1901.", "page")


def sample(size: int = 1, **changes: Any) -> Sample:
    text = " ".join(["The mill is red."] * size)
    base = Sample("s", (Document(text, "page"),), "When?", ("1901",), group="task", length=1000)
    return replace(base, **changes)


# lengths


@settings(max_examples=30)
@given(st.integers(1200, 6000), st.integers(1, 400))
def test_a_fitted_sample_fills_its_length_and_no_more(length: int, start: int) -> None:
    meter = Meter(scripted_llm(""))
    fitter = Fitter(meter)
    fitter._size = start  # wherever the last search ended
    fitted = fitter.largest_fitting(sample, length)
    used = meter.tokens(fitted)
    assert used <= length
    assert (
        used >= ENOUGH * length
        or meter.tokens(sample(int(len(fitted.documents[0].text) / 16) + 2)) > length
    )


def test_the_meter_counts_at_least_what_the_model_reads() -> None:
    llm = scripted_llm("")
    for item in (sample(3), sample(9, shots=(("Q?", "A."),))):
        prompt, _ = llm.prepare(item.turns(), item.documents)
        counted = Meter(llm).tokens(item) - item.budget
        assert len(prompt.token_ids) <= counted <= len(prompt.token_ids) + 10


def test_a_length_above_the_context_length_is_refused_with_it() -> None:
    meter = Meter(scripted_llm("", window=2000), thought=200)
    meter.check([1000])
    with pytest.raises(LengthError, match=r"4K are above the model's context length of 2,000"):
        meter.check([1024, 4096])
    with pytest.raises(LengthError, match="smaller --thought"):
        meter.check([2000])
    with pytest.raises(LengthError, match="at least"):
        Fitter(meter).largest_fitting(sample, 40)


def test_lengths_as_people_write_them() -> None:
    assert parse_lengths("1k, 4K,1500,128k") == (1024, 4096, 1500, 131072)
    assert [shown_length(n) for n in (1024, 1500, 131072)] == ["1K", "1,500", "128K"]


# runs


class Stopping:
    """A way that answers with the question, until it is stopped."""

    name = "echo"

    def __init__(self, answers: int = 10**6) -> None:
        self._answers = answers

    def asks(self, item: Item) -> bool:
        return True

    def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
        self._answers -= len(items)
        if self._answers < 0:
            raise KeyboardInterrupt
        return [AnswerRecord(item.question, item.question) for item in items]


def cells() -> list[Cell]:
    def make(task: str) -> list[Sample]:
        return [sample(id=f"{task}-{n}", group=task, question=f"{task} {n}?") for n in range(5)]

    return [Cell("suite", task, 5, lambda task=task: make(task)) for task in ("a", "b")]  # type: ignore[misc]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return read_run(folder)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_a_killed_run_ends_with_the_rows_of_an_uninterrupted_one(
    tmp_path: Path, after: int
) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    ask([Stopping()], cells(), tmp_path / "whole", lambda line: None, batch=2)
    with pytest.raises(KeyboardInterrupt):
        ask([Stopping(after)], cells(), tmp_path / "killed", lambda line: None, batch=2)
    with (tmp_path / "killed" / "rows.jsonl").open("ab") as file:
        file.write(b'{"suite": "sui')
    lines: list[str] = []
    ask([Stopping()], cells(), tmp_path / "killed", lines.append, batch=2)
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    missing = 10 - {0: 0, 3: 2, 7: 7}[after]  # five a cell, in batches of two
    assert lines[-1].startswith(f"{missing} of {missing} answers")


def test_a_cell_that_cannot_be_made_is_left_out_and_named(tmp_path: Path) -> None:
    def never() -> list[Sample]:
        raise LengthError("it takes more")

    asked = ask(
        [Stopping()], [Cell("suite", "tiny", 5, never), *cells()], tmp_path, lambda line: None
    )
    assert asked.left_out == ("tiny: it takes more",)
    assert len(rows_of(tmp_path)) == 10


def test_progress_counts_what_need_not_be_asked() -> None:
    times: Iterator[float] = iter([0.0, 20.0])
    lines: list[str] = []
    progress = Progress(100, lines.append, lambda: next(times))
    progress.skip(50)
    progress.advance("a", 10)
    assert lines == ["10 of 50 answers (a), 2.0 s each, 80 s left"]


def test_what_failed_is_told_and_asked_again(tmp_path: Path) -> None:
    class Failing(Stopping):
        def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
            if any(item.id == "a-1" for item in items):
                raise GenerationError("it broke")
            return super().__call__(items)

    ask([Failing()], cells(), tmp_path, lambda line: None, batch=2)
    assert len(rows_of(tmp_path)) == 9
    (failed,) = failed_rows(tmp_path)
    assert failed["id"] == "a-1"
    assert any("it broke" in part for part in ending(tmp_path, [], {}))
    ask([Stopping()], cells(), tmp_path, lambda line: None, batch=2)
    assert len(rows_of(tmp_path)) == 10
    assert not failed_rows(tmp_path)


def test_answers_that_are_not_right_are_shown_as_text() -> None:
    row = {"suite": "s", "condition": "recall", "id": "a", "question": "Q?", "answers": ["x"]}
    row |= {"text": "`y` | <b>\n" + "z" * 200, "scores": {"score": 0.0}}
    shown = examples([row, row | {"id": "b", "scores": {"score": 1.0}}])
    assert "| recall | a | Q? | x | 'y' / <b> zzz" in shown
    assert "| b |" not in shown
    assert examples([{**row, "text": "y", "scores": {"score": 1.0}}]) == ""


# ways


def begins(text: str) -> str:
    return f"<|start_recall|>It opened in 1901.<|end_recall|></think>{text}"


def test_the_way_with_recall_answers_as_users_are_answered() -> None:
    llm = scripted_llm(begins("In 1901."))
    item = sample(documents=(PAGE,))
    (answer,) = ByRecall(llm, "recall", GREEDY, 64)([item])
    assert (answer.text, answer.abstained) == ("In 1901.", False)
    assert answer.quoted == ("It opened in 1901.",)
    assert answer.verbatim == 1


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.booleans())
def test_with_the_mask_every_span_is_verbatim(seed: int, opens: bool) -> None:
    llm = random_llm(seed=seed)
    item = sample(3, documents=(PAGE,), opens=opens, reasoning="So it is: ", budget=24)
    (answer,) = ByRecall(llm, "recall", GREEDY, 16)([item])
    assert answer.verbatim == len(answer.quoted)
    assert all(text in PAGE.text for text in answer.quoted)


def test_a_length_is_read_whole_whatever_a_recipe_packs() -> None:
    llm = random_llm(seed=1)
    small = RecaLLM(llm.tokenizer, llm.backend, replace(llm.recipe, pack_tokens=40))
    long = sample(60)
    read = [
        ByRecall(model, "recall", GenerationParams(max_new_tokens=1), 0)([long])[0].prompt_tokens
        for model in (llm, small)
    ]
    assert read[0] == read[1] > 100


def test_without_the_mask_a_span_may_hold_anything() -> None:
    llm = scripted_llm("<|start_recall|>It opened in 1887.<|end_recall|></think>In 1887.")
    (answer,) = ByUnmasked(llm, "unmasked", GREEDY, 64)([sample(documents=(PAGE,))])
    assert answer.quoted == ("It opened in 1887.",)
    assert answer.verbatim == 0


def test_without_us_there_are_no_marks_and_no_documents_where_none_are_shown() -> None:
    prompts: list[str] = []

    def script(prompt: str) -> str:
        prompts.append(prompt)
        return "</think>It was so.\nAnswer: 1901"

    (answer,) = ByPlain(scripted_llm(script), "plain", GREEDY, documents=lambda item: ())(
        [sample(documents=(PAGE,))]
    )
    assert (answer.text, answer.words) == ("It was so.\nAnswer: 1901", "1901")
    assert "The mill" not in prompts[0]
    assert not answer.quoted
    assert after_prefix("no line") == "no line"
    assert after_prefix("Answer:") == "Answer:"


def test_an_output_that_is_to_begin_with_words_continues_them() -> None:
    prompts: list[str] = []

    def script(prompt: str) -> str:
        prompts.append(prompt)
        return "</think>1901"

    way = ByPlain(scripted_llm(script), "plain", GREEDY)
    way([sample(documents=(PAGE,), reasoning="So it is: "), sample(documents=(PAGE,))])
    assert [prompt.endswith("So it is: ") for prompt in prompts] == [True, False]


# statistics


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_symmetric_and_a_probability(wins: int, losses: int) -> None:
    p = sign_test(wins, losses)
    assert 0 < p <= 1
    assert p == sign_test(losses, wins)


def test_mcnemar_by_hand() -> None:
    assert mcnemar([(1, 1), (0, 0)]) == 1
    assert mcnemar([(1, 0)] * 5) == pytest.approx(2 / 32)
    assert mcnemar([(1, 0)] * 6 + [(0, 1)]) == pytest.approx(2 * 8 / 128)
    assert sign_test(1500, 600) < 1e-40


def test_differences_are_of_pairs() -> None:
    difference = difference_of([(1.0, 0.0), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0)])
    assert difference is not None
    assert (difference.first, difference.second, difference.gap.mean) == (0.75, 0.25, 0.5)
    assert difference.p == pytest.approx(0.5)
    assert difference_of([]) is None
    halves = difference_of([(0.5, 0.0)])
    assert halves is not None
    assert halves.p is None


def test_what_is_right_or_wrong_has_an_interval_that_does_not_vanish() -> None:
    assert mean_of([1.0] * 10).low < 1
    assert mean_of([0.5] * 10).low == 0.5
    assert slope([(0, 0), (1, 1), (2, 2)]) == pytest.approx(1)


# comparing, and pages


def a_run(folder: Path, scores: Sequence[float], way: str = "recall") -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "rows.jsonl").open("a", encoding="utf-8") as file:
        for number, score in enumerate(scores):
            row = {"suite": "ruler", "condition": way, "id": f"s{number}", "digest": f"d{number}"}
            row |= {"task": "vt", "length": 1024, "scores": {"score": score}}
            file.write(json.dumps(row) + "\n")
    return folder


def test_two_runs_are_compared_on_what_both_were_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = a_run(tmp_path / "a", [1, 1, 1, 1, 0])
    second = a_run(tmp_path / "b", [0, 1, 0, 0])
    (line,) = compare(first, second)
    assert (line.task, line.length, line.n) == ("vt", 1024, 4)
    assert (line.difference.first, line.difference.second) == (1.0, 0.25)
    assert main(["compare", str(first), str(second)]) == 0
    assert (
        "| ruler | vt | 1K | recall | score | 4 | 1.000 | 0.250 | +0.750" in capsys.readouterr().out
    )


def test_two_ways_of_a_run_are_compared(tmp_path: Path) -> None:
    run = a_run(a_run(tmp_path / "a", [1, 1]), [0, 1], "without us")
    (line,) = compare(run, run, ("recall", "without us"))
    assert line.difference.gap.mean == 0.5


def test_runs_without_anything_in_common_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = a_run(tmp_path / "a", [1]), a_run(tmp_path / "b", [1], "plain")
    with pytest.raises(RunError, match="nothing to compare"):
        compare(first, second)
    assert main(["compare", str(first), str(tmp_path / "none")]) == 1
    assert "there are no rows" in capsys.readouterr().err


def test_a_page_holds_its_pictures_and_shows_markup_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    text = page(
        "# T\n\n| a | b |\n| --- | --- |\n| <script>x</script> | 1 |\n\n![a](a.png)\n",
        "T",
        tmp_path,
    )
    assert "<table>" in text
    assert "<script>" not in text
    assert "data:image/png;base64," in text
    assert 'src="a.png"' not in text


def test_rows_that_are_none_are_told_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"suite": "a"}\n', "utf-8")
    with pytest.raises(RunError, match="line 1"):
        read_run(tmp_path)


def test_a_model_elsewhere_cannot_be_made_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    llm = scripted_llm("")
    monkeypatch.setattr(type(llm.backend), "in_process", False)
    way = ByRecall(RecaLLM(llm.tokenizer, llm.backend, llm.recipe), "recall", GREEDY, 8)
    with pytest.raises(Exception, match="runs in this process"):
        way([sample(reasoning="So")])
