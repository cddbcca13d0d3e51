"""An answer in a terminal, as it comes and when it is complete; plain text where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from recallm_core.answers.answer import Answer, Citation
from recallm_core.answers.trace import (
    AnswerDelta,
    ReasoningDelta,
    RecallDelta,
    RecallEnded,
    RecallStarted,
    ToolCallDelta,
    TraceEvent,
)
from recallm_core.rendering.layout import (
    GRADES,
    MOST_NEAREST,
    NEAREST,
    NOT_FOUND,
    elsewhere,
    markers,
    place_of,
)
from recallm_core.rendering.visible import (
    VisibleStream,
    one_line,
    safe_url,
    visible,
    visible_slice,
)

THOUGHT = "dim"
QUOTE = "bold yellow"
MARK = "bold cyan"
PLACE = "cyan"
NONE = "bold magenta"
INDENT = 4


class AnswerConsole(Console):
    """A console that leaves a broken pipe to its caller."""

    def on_broken_pipe(self) -> None:
        """Raises instead of ending the process here."""
        raise BrokenPipeError


class AnswerView:
    """Shows one answer on a console: ``feed`` the events, then ``finish``, at last ``close``.

    Reasoning is printed as it comes, dimmed, its quotes highlighted. On a terminal the answer grows
    below it and is then replaced by the final one with its numbered citations; elsewhere it is
    printed once, when it is complete. Whatever the text holds, only visible characters, tabs and
    newlines are printed.

    Args:
        console: Where to show it.
        reasoning: Whether to show the reasoning.
    """

    def __init__(self, console: Console, *, reasoning: bool = True) -> None:
        self._console = console
        self._reasoning = reasoning
        self._marks = console.no_color or not console.is_terminal
        self._flow = _Flow(console)
        self._visible = VisibleStream()
        self._section = "thinking"
        self._thought = False
        self._draft: list[tuple[str, str]] = []
        self._live: Live | None = None

    def feed(self, event: TraceEvent | ToolCallDelta) -> None:
        """Shows one event of the stream."""
        match event:
            case ReasoningDelta(text):
                self._think(text, THOUGHT)
            case RecallStarted(section, _):
                self._section = section
                self._quote_edge("«")
            case RecallDelta(text) if self._section != "answer":
                self._think(text, QUOTE)
            case RecallDelta(text):
                self._answer(text, QUOTE)
            case RecallEnded():
                self._quote_edge("»")
            case AnswerDelta(text):
                self._answer(text, "")
            case _:
                pass

    def finish(self, answer: Answer) -> None:
        """Prints the complete answer with its citations."""
        self._stop()
        self._end_thought()
        for text, indent in answer_texts(answer):
            width = max(20, self._console.width - indent)
            wraps = self._console.is_interactive and text
            for line in text.wrap(self._console, width) if wraps else (text,):
                self._console.print(Text(" " * indent) + line, soft_wrap=True)

    def close(self) -> None:
        """Leaves the console in order; what was written of an unfinished answer stays."""
        draft = self._draft
        self._stop()
        self._flow.end()
        if draft:
            self._console.print(Text.assemble(*draft), soft_wrap=True)

    def _quote_edge(self, mark: str) -> None:
        if self._marks and self._section != "answer":
            self._think(mark, QUOTE)

    def _think(self, text: str, style: str) -> None:
        if self._reasoning and text:
            self._thought = True
            self._flow.write(self._visible.feed(text), style)

    def _end_thought(self) -> None:
        self._flow.end()
        if self._thought:
            self._console.print()
            self._thought = False

    def _answer(self, text: str, style: str) -> None:
        if not self._console.is_interactive:
            return
        if self._live is None:
            self._end_thought()
            self._visible = VisibleStream()
            self._live = Live(
                console=self._console,
                transient=True,
                refresh_per_second=8,
                get_renderable=self._preview,
            )
            self._live.start()
        self._draft.append((self._visible.feed(text), style))

    def _preview(self) -> Text:
        """The end of what there is of the answer, as much as the terminal can redraw."""
        shown = Text.assemble(*self._draft[-2000:])
        lines = shown.wrap(self._console, self._console.width)
        return Text("\n").join(lines[-max(1, self._console.height - 2) :])

    def _stop(self) -> None:
        self._draft = []
        if self._live is not None:
            self._live.stop()
            self._live = None


def to_text(answer: Answer) -> str:
    """Returns a complete answer with its citations as plain lines, as the command prints them."""
    return "\n".join(" " * indent + text.plain for text, indent in answer_texts(answer))


class _Flow:
    """Writes text in pieces and breaks lines between words; leaves them alone off a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._wraps = console.is_interactive
        self._column = 0
        self._word: list[tuple[str, str]] = []
        self._width = 0
        self._out: list[tuple[str, str]] = []

    def write(self, text: str, style: str) -> None:
        if not self._wraps:
            self._put(text, style)
            self._column = 0 if text.endswith("\n") else 1
            self._print()
            return
        start = 0
        for at, character in enumerate(text):
            if character.isspace() or cell_len(character) > 1:
                self._add(text[start:at], style)
                self._flush()
                self._space(character, style)
                start = at + 1
        self._add(text[start:], style)
        self._print()

    def end(self) -> None:
        """Ends the last line."""
        self._flush()
        if self._column:
            self._put("\n", "")
        self._column = 0
        self._print()

    def _add(self, text: str, style: str) -> None:
        if text:
            self._word.append((text, style))
            self._width += cell_len(text)

    def _flush(self) -> None:
        if not self._word:
            return
        if self._column and self._column + self._width > self._console.width:
            self._put("\n", "")
            self._column = 0
        for text, style in self._word:
            self._put(text, style)
        self._column += self._width
        if self._column > self._console.width:  # a word longer than a line
            self._column %= self._console.width
        self._word, self._width = [], 0

    def _space(self, character: str, style: str) -> None:
        """A white space, or a wide character, which may begin a line of its own."""
        size = 4 if character == "\t" else cell_len(character)
        if character == "\n":
            self._put("\n", "")
            self._column = 0
        elif self._column + size > self._console.width:
            self._put("\n" if character.isspace() else "\n" + character, style)
            self._column = 0 if character.isspace() else size
        else:
            self._put("    " if character == "\t" else character, style)
            self._column += size

    def _put(self, text: str, style: str) -> None:
        self._out.append((text, style))

    def _print(self) -> None:
        """Prints what is due, each stretch of one style as one."""
        if self._out:
            due, self._out = self._out, []
            runs = groupby(due, key=itemgetter(1))
            parts = (("".join(text for text, _ in run), style) for style, run in runs)
            self._console.print(Text.assemble(*parts), end="", soft_wrap=True)


def answer_texts(answer: Answer) -> Iterator[tuple[Text, int]]:
    """Yields the answer with its marks, then its citations: lines, and how far to indent each."""
    if answer.abstained:
        yield Text(NOT_FOUND, style=NONE), 0
    yield _mark(answer), 0
    for number, citation in enumerate(answer.citations, 1):
        yield Text(), 0
        yield Text.assemble((f"[{number}]", MARK), " ", _heading(citation)), 0
        for line in visible(citation.text).split("\n"):
            yield Text(line, style="yellow"), INDENT
        others = elsewhere(answer, citation)
        if others:
            more = f" and {len(others) - 5} more places" if len(others) > 5 else ""
            same = f"the same words also stand in {', '.join(others[:5])}{more}"
            yield Text(same, style=THOUGHT), INDENT
    if answer.nearest:
        yield Text(), 0
        yield Text(NEAREST, style=THOUGHT), 0
    for citation in answer.nearest[:MOST_NEAREST]:
        yield _heading(citation), INDENT
        for line in visible(citation.text).split("\n"):
            yield Text(line, style=THOUGHT), 2 * INDENT


def _mark(answer: Answer) -> Text:
    text, marks = answer.text, markers(answer)
    out, start = Text(), 0
    for end in sorted({*marks, len(text)}):
        out.append(visible(visible_slice(text, start, end)))
        for number in marks.get(end, ()):
            out.append(f"[{number}]", style=MARK)
        start = end
    return out


def _heading(citation: Citation) -> Text:
    place = place_of(citation)
    url = safe_url(citation.source)
    style = f"{PLACE} link {url}" if url else PLACE
    heading = Text.assemble((place, style))
    title = one_line(citation.title or "")
    if title and title not in place:
        heading.append(f"  {title}")
    grade = GRADES[citation.basis]
    if grade:
        heading.append(f"  ({grade})", style=THOUGHT)
    return heading
