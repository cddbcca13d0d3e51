from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recallm_core import Answer, RecaLLM, cli
from recallm_core.answers.answer import Usage
from recallm_core.answers.trace import Trace
from recallm_core.cli.interactive import converse
from recallm_core.errors import GenerationError
from recallm_core.testing import scripted_llm

SCRIPT = "<|start_recall|>27 days<|end_recall|></think>You have 27 days."


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


class Model:
    """Answers with the number of the question; keeps what it was asked."""

    def __init__(self, *failures: BaseException | None) -> None:
        self.asked: list[list[str]] = []
        self._failures = list(failures)

    def __call__(self, messages: list[Any]) -> Answer:
        self.asked.append([message["content"] for message in messages])
        if self._failures and (failure := self._failures.pop(0)) is not None:
            raise failure
        return Answer(f"answer {len(self.asked)}", (), False, Trace(), Usage(), "stop")


def test_a_question_knows_those_before_it(typed: Callable[[str], None]) -> None:
    typed("And who?\n\n  Why?  \n")
    model = Model()
    assert converse("When?", model) == 0
    assert model.asked == [
        ["When?"],
        ["When?", "answer 1", "And who?"],
        ["When?", "answer 1", "And who?", "answer 2", "Why?"],
    ]


def test_what_was_said_can_be_forgotten_and_is_bounded(typed: Callable[[str], None]) -> None:
    typed("a\n/new\nb\n" + "c\n" * 20)
    model = Model()
    converse(None, model)
    assert model.asked[1] == ["b"]
    assert len(model.asked[-1]) == 13


def test_a_failed_or_stopped_question_does_not_end_it(
    typed: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    typed("a\nb\nc\n")
    model = Model(GenerationError("it \x1b[31mbroke"), KeyboardInterrupt(), None)
    assert converse(None, model) == 0
    assert model.asked == [["a"], ["b"], ["c"]]
    assert capsys.readouterr().err == "error: it ␛[31mbroke\nstopped\n"


def test_the_model_is_loaded_once(
    tmp_path: Path, typed: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "leave.md").write_text("You have 27 days of paid leave a year.\n")
    loaded: list[str] = []

    def load(name: str) -> RecaLLM:
        loaded.append(name)
        return scripted_llm(SCRIPT)

    typed("How many days?\nHow many again?\n")
    assert cli.main(["ask", "--interactive", "--docs", str(tmp_path)], load=load) == 0
    assert loaded == ["recallm-mini"]
    assert capsys.readouterr().out.count("You have 27 days[1].") == 2


@pytest.mark.parametrize("more", [[], [" "], ["--interactive", "--html", "x.html"]])
def test_wrong_usage(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["ask", "--docs", ".", *more])
    assert "--interactive" in capsys.readouterr().err
