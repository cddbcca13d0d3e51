from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.answers.answer import Answer, Citation, Usage
from recallm_core.answers.trace import (
    AnswerDelta,
    AnswerText,
    Reasoning,
    ReasoningDelta,
    RecallDelta,
    RecallEnded,
    RecallSpan,
    RecallStarted,
    Trace,
)
from recallm_core.rendering import safe_url, visible
from recallm_core.rendering.layout import place_of
from recallm_core.rendering.terminal import AnswerConsole, AnswerView, to_text

# All that our own styles, links and the live preview may send.
SEQUENCE = re.compile(
    r"\x1b\[(?:0|2|1;33|1;36|36|33|1;35|1|1A|2K|\?25[lh])m?"
    r"|\x1b\]8;(?:id=\d+)?;([^\x1b]*)\x1b\\"
)


def console(
    *, terminal: bool, width: int = 50, **options: object
) -> tuple[AnswerConsole, StringIO]:
    out = StringIO()
    made = AnswerConsole(
        file=out,
        force_terminal=terminal,
        width=width,
        height=20,
        highlight=False,
        markup=False,
        emoji=False,
        color_system="standard" if terminal else None,
        _environ={},
        **options,  # type: ignore[arg-type]
    )
    return made, out


def show(answer: Answer, *, terminal: bool, reasoning: bool = True, **options: object) -> str:
    made, out = console(terminal=terminal, **options)
    view = AnswerView(made, reasoning=reasoning)
    for segment in answer.trace.segments:
        if isinstance(segment, Reasoning):
            for character in segment.text:
                view.feed(ReasoningDelta(character))
        elif isinstance(segment, RecallSpan):
            view.feed(RecallStarted("thinking", 0))
            view.feed(RecallDelta(segment.text))
            view.feed(RecallEnded(segment))
        else:
            view.feed(AnswerDelta(segment.text))
    view.finish(answer)
    view.close()
    return out.getvalue()


def squeezed(text: str) -> str:
    return "".join(text.split())


def spaced(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text)


@given(st.data())
def test_without_a_terminal_it_is_plain_text_and_complete(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    answer = data.draw(hostile_answers)
    out = show(answer, terminal=False)
    assert out == visible(out)
    assert squeezed(visible(answer.trace.reasoning)) in squeezed(out).replace("«", "").replace(
        "»", ""
    ) or any(mark in answer.trace.reasoning for mark in "«»")
    for number, citation in enumerate(answer.citations, 1):
        assert f"[{number}] {place_of(citation)}" in out
        for line in visible(citation.text).split("\n"):
            if "\t" in line:  # which goes on to the next stop
                assert spaced(line) in spaced(out)
            else:
                assert line in out


@given(st.data())
def test_a_printed_answer_is_what_the_command_prints_without_its_reasoning(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    answer = data.draw(hostile_answers)
    shown = show(answer, terminal=False, reasoning=False)
    assert str(answer) == to_text(answer)
    assert squeezed(str(answer)) == squeezed(shown)
    assert str(answer) == visible(str(answer))


@given(st.data())
def test_on_a_terminal_only_our_own_sequences_are_sent(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    answer = data.draw(hostile_answers)
    out = show(answer, terminal=True)
    links = {match.group(1) for match in SEQUENCE.finditer(out) if match.group(1)}
    assert links <= {safe_url(c.source) for c in answer.citations}
    rest = SEQUENCE.sub("", out).replace("\r", "")
    assert rest == visible(rest)


ANSWER = Answer(
    "You have 27 days.",
    (Citation("d", 3, 10, "27 days", 9, 16, title="Leave", source="a/leave.md", lines=(4, 4)),),
    False,
    Trace(
        (
            Reasoning("Where is it? "),
            RecallSpan("27 days", "d", 3, 10, 0, (), "thinking", 0, 2),
            Reasoning(" So."),
            AnswerText("You have 27 days."),
        )
    ),
    Usage(),
    "stop",
)

PLAIN = """\
Where is it? «27 days» So.

You have 27 days[1].

[1] a/leave.md:4  Leave
    27 days
"""


def test_plain() -> None:
    assert show(ANSWER, terminal=False) == PLAIN


def test_a_tab_in_a_quote_goes_on_to_the_next_stop() -> None:
    answer = replace(ANSWER, citations=(Citation("d", 0, 3, "a\tb"),))
    assert show(answer, terminal=False).endswith("\n    a   b\n")


def test_quiet() -> None:
    assert show(ANSWER, terminal=False, reasoning=False) == PLAIN.split("\n\n", 1)[1]


def test_reasoning_is_dim_and_quotes_stand_out() -> None:
    out = show(ANSWER, terminal=True)
    assert "\x1b[2mWhere is it? \x1b[0m" in out.replace("\x1b[0m\x1b[2m", "")
    assert "\x1b[1;33m27 \x1b[0m\x1b[1;33mdays\x1b[0m" in out
    assert "You have 27 days\x1b[1;36m[1]\x1b[0m." in out


def test_without_colour_quotes_are_bracketed() -> None:
    out = show(ANSWER, terminal=True, no_color=True)
    assert "«27 " in out
    assert not re.search(r"\x1b\[[\d;]*3\dm", out)


def test_an_interrupted_answer_stays_and_the_cursor_comes_back() -> None:
    made, out = console(terminal=True)
    view = AnswerView(made)
    view.feed(ReasoningDelta("Let me "))
    view.feed(AnswerDelta("You have"))
    view.close()
    assert out.getvalue().endswith("You have\n")
    assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")


@pytest.mark.parametrize("width", [20, 33])
def test_words_are_not_broken_at_the_margin(width: int) -> None:
    thought = "some words of reasoning that are longer than one line of the terminal is"
    words = thought.split()
    trace = Trace((Reasoning(thought),))
    answer = Answer("", (), True, trace, Usage(), "stop")
    shown = SEQUENCE.sub("", show(answer, terminal=True, width=width)).split("\n\n")[0]
    assert shown.split() == words
    assert all(len(line.rstrip()) <= width for line in shown.split("\n"))


@given(st.text(st.sampled_from("ab 漢\n\té"), max_size=120), st.integers(1, 7))
def test_wrapping_loses_nothing(text: str, size: int) -> None:
    made, out = console(terminal=True, width=20)
    view = AnswerView(made)
    for at in range(0, len(text), size):
        view.feed(ReasoningDelta(text[at : at + size]))
    view.close()
    assert squeezed(SEQUENCE.sub("", out.getvalue())) == squeezed(text)
