"""What of an answer may be streamed: nothing that an abstention would have to take back.

Words that were streamed can't be unsaid, and an abstention's text is the recipe's phrase. So an
answer's first words are held back while they could still turn out to be none:

- at once and to the end, where what was recalled before the answer doesn't fit the question;
- until a quote has begun, or the documents are found to hold a complete sentence of the answer,
  where an answer without evidence is none;
- while they are the beginning of a phrase of abstention.

Models that recall before they answer are streamed token by token from the first word on. One case
is left: a phrase of abstention after other words that were streamed already. The answer is an
abstention then too, and what was streamed ends with the model's saying so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recallm_core.answers.abstention import Judge
from recallm_core.answers.answer import Answer
from recallm_core.answers.trace import (
    AnswerDelta,
    RecallDelta,
    RecallEnded,
    RecallStarted,
    ToolCallDelta,
    Trace,
    TraceEvent,
)
from recallm_core.text.lexical import sentences


class AnswerGate:
    """Lets events through, the answer's as soon as none of it has to be taken back.

    Args:
        judge: Says what could still make the answer an abstention.
        trace: Gives the output so far.
    """

    def __init__(self, judge: Judge, trace: Callable[[], Trace]) -> None:
        self._judge = judge
        self._trace = trace
        self._held: list[TraceEvent] = []
        self._open = not judge.replaces
        self._fits: bool | None = None
        self._section = "thinking"
        self._recalled = not judge.needs_support
        self._quoted = False  # in the answer
        self._text = ""
        self._asked = 0  # how much of the text is known to hold nothing that is supported

    def let_through(self, events: Sequence[TraceEvent]) -> list[TraceEvent]:
        """Takes the next events and returns those that may be shown, in order."""
        if self._open:
            return list(events)
        out: list[TraceEvent] = []
        for event in events:
            if isinstance(event, ToolCallDelta):
                out += self._release()
            waits = self._see(event) and not self._open
            (self._held if waits else out).append(event)
        if self._held and self._is_clear():
            out += self._release()
        return out

    def end(self, answer: Answer) -> list[TraceEvent]:
        """Returns what is left to show of a complete answer."""
        if self._open:
            return []
        return [AnswerDelta(answer.text)] if answer.abstained else self._release()

    def _release(self) -> list[TraceEvent]:
        self._open = True
        events, self._held = self._held, []
        return events

    def _see(self, event: TraceEvent) -> bool:
        """Takes note of an event; says whether it is part of the answer's text."""
        match event:
            case AnswerDelta(text):
                self._text += text
                return True
            case RecallStarted(section):
                self._section = section
            case RecallDelta(text):
                self._recalled = True
                if self._section == "answer":
                    self._quoted = True
                    self._text += text
            case RecallEnded():
                pass
            case _:
                return False
        return self._section == "answer"

    def _is_clear(self) -> bool:
        """Whether the answer can't become an abstention any more by what is known now."""
        if self._fits is None:
            self._fits = self._judge.fits(self._trace())
        if not self._fits or (not self._quoted and self._judge.may_say_nothing(self._text)):
            return False
        return self._recalled or self._is_supported()

    def _is_supported(self) -> bool:
        """Whether the documents hold a sentence that is complete since it was last asked."""
        pieces = sentences(self._text[self._asked :])
        if len(pieces) < 2:
            return False
        begun = self._asked + pieces[-1][0]
        complete, self._asked = self._text[self._asked : begun], begun
        return self._judge.supports(complete)
