"""Output tokens to a trace, as they come; feeding in pieces equals feeding whole.

The parser replays the constraint over the tokens. So it knows where every copied token came from,
quotes are source slices and never decoded tokens, and a backend that let an illegal token through
is caught here, before an answer leaves the library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal

from recallm_core.answers.anchoring import Place, anchor
from recallm_core.answers.answer import Usage
from recallm_core.answers.text_flow import TextFlow, measures_in
from recallm_core.answers.trace import (
    AnswerDelta,
    AnswerText,
    Reasoning,
    ReasoningDelta,
    RecallDelta,
    RecallEnded,
    RecallSpan,
    RecallStarted,
    Segment,
    ToolCall,
    ToolCallDelta,
    Trace,
    TraceEvent,
)
from recallm_core.decoding.constraint import ClosedSpan, Effect
from recallm_core.decoding.spec import Tag
from recallm_core.errors import ConstraintError, GenerationError
from recallm_core.prompting.prompt import Prompt
from recallm_core.tokenization.tokenizer import Tokenizer

TextSection = Literal["thinking", "evidence", "answer"]


class TraceParser:
    """Reads one sequence's output.

    Args:
        prompt: What the output continues.
        tokenizer: Turns ordinary tokens into text.
    """

    def __init__(self, prompt: Prompt, tokenizer: Tokenizer) -> None:
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._constraint = prompt.rules.start()
        self._detokenizer = tokenizer.detokenizer()
        self._section: TextSection = "thinking"
        spaced = prompt.spec.evidence is not None
        self._flows: dict[TextSection, TextFlow] = {
            "thinking": TextFlow(),
            "evidence": TextFlow(),
            "answer": TextFlow(
                prompt.recipe.answer_prefix,
                prompt.params.stop,
                spaced,
                ends_loops=prompt.spec.grammar is None or prompt.spec.grammar.answer is None,
            ),
        }
        self._segments: list[Segment] = []
        self._recalled: list[RecallSpan] = []  # those of them that are quotes
        self._pending = ""  # may still be the beginning of a text mark
        self._quote = ""  # of the open span, let through so far
        self._spans = 0
        self._call: str | None = None  # text of the tool call that is being written
        self._calls: list[ToolCall] = []
        self._counts = {"reasoning": 0, "recall": 0, "answer": 0}
        self._ended = False
        self._finished = False
        self._follow_section()

    def _follow_section(self) -> None:
        """The section that the next token belongs to."""
        section = self._constraint.section
        if section != "done":
            self._section = section

    @property
    def has_stopped(self) -> bool:
        """Whether a stop string was met, or a loop: nothing after it counts."""
        return self._flows["answer"].stopped

    @property
    def has_looped(self) -> bool:
        """Whether the answer went round in circles: the model wouldn't have ended it."""
        return self._flows["answer"].looped

    @property
    def has_ended(self) -> bool:
        """Whether the model ended its output."""
        return self._ended

    @property
    def trace(self) -> Trace:
        """Everything let through so far, neighbouring texts joined."""
        return Trace(tuple(_merge_neighbours(self._segments)))

    def usage(self, *, cached_tokens: int = 0) -> Usage:
        """The tokens so far."""
        return Usage(
            prompt_tokens=len(self._prompt.token_ids),
            cached_tokens=cached_tokens,
            reasoning_tokens=self._counts["reasoning"],
            recall_tokens=self._counts["recall"],
            answer_tokens=self._counts["answer"],
        )

    def feed(self, tokens: Iterable[int]) -> list[TraceEvent]:
        """Takes output tokens and returns what they made certain.

        Raises:
            GenerationError: A token is illegal here: the backend ignored the constraint.
        """
        events: list[TraceEvent] = []
        for token in tokens:
            if self._ended or self._finished or self.has_stopped:
                break
            try:
                inside = self._constraint.in_span
                effect = self._constraint.consume(int(token))
            except ConstraintError as error:
                raise GenerationError(
                    f"the backend produced an illegal token, so no quote can be vouched for: "
                    f"{error}"
                ) from error
            self._count(effect, inside)
            events.extend(self._take(int(token), effect))
        return events

    def _count(self, effect: Effect, inside: bool) -> None:
        if inside or effect is Effect.OPENED:
            self._counts["recall"] += 1
        else:
            self._counts["answer" if self._section == "answer" else "reasoning"] += 1

    def _take(self, token: int, effect: Effect) -> list[TraceEvent]:
        spec = self._prompt.spec
        if effect is Effect.TEXT:
            self._pending += self._detokenizer.feed(token)
            return self._let_through(self._constraint.watched_characters)
        if effect is Effect.COPIED:
            return self._more_quote()
        if effect is Effect.CLOSED:
            return self._end_span(self._constraint.spans[-1])
        if effect is Effect.OPENED:
            return [*self._before_mark(token, spec.open), *self._start_span()]
        if effect is Effect.THINKING_ENDED:
            assert spec.think_close is not None
            events = [*self._before_mark(token, spec.think_close), *self._end_section()]
            self._follow_section()
            return events
        if effect is Effect.LED_IN:
            self._follow_section()
            if self._section == "answer" and spec.grammar is None:
                self._end_words_where_told()
            return []
        if effect in (Effect.CALL_OPENED, Effect.CALL, Effect.CALL_CLOSED):
            return self._take_call(token, effect)
        if effect is Effect.ENDED:
            self._ended = True
        return []

    def _end_words_where_told(self) -> None:
        """Ends the words after the evidence at their closing mark, and where marks are imitated."""
        flow, recipe = self._flows["answer"], self._prompt.recipe
        flow.closing = recipe.lead_out
        flow.measures = measures_in((span.text for span in self._recalled), flow.closing)
        flow.stop += recipe.imitations

    def _take_call(self, token: int, effect: Effect) -> list[TraceEvent]:
        """A tool call is handed out when it is complete; its text never shows in the answer."""
        grammar = self._prompt.spec.grammar
        assert grammar is not None
        assert grammar.call_open is not None
        assert grammar.call_close is not None
        if effect is Effect.CALL_OPENED:
            self._call = ""
            return self._before_mark(token, grammar.call_open)
        self._call = (self._call or "") + self._detokenizer.feed(token)
        if effect is Effect.CALL:
            return []
        text = (
            self._call
            if grammar.call_close.control
            else self._call.removesuffix(grammar.call_close.text)
        )
        self._call = None
        self._detokenizer = self._tokenizer.detokenizer()
        value = json.loads(text)
        call = ToolCall(value["name"], value["arguments"], self._call_id(text))
        self._calls.append(call)
        arguments = json.dumps(value["arguments"], ensure_ascii=False)
        return [ToolCallDelta(len(self._calls) - 1, call.name, arguments, call.id)]

    def _call_id(self, text: str) -> str:
        """An id that is the same whenever the same output follows the same prompt."""
        seed = f"{self._prompt.spec.prompt_hash}/{len(self._calls)}/{text}"
        return "call_" + hashlib.blake2b(seed.encode(), digest_size=8).hexdigest()

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls that are complete."""
        return tuple(self._calls)

    @property
    def cut_call(self) -> str | None:
        """The text of a tool call that the output was cut off in."""
        return self._call

    def _before_mark(self, token: int, mark: Tag) -> list[TraceEvent]:
        """Lets the text before a mark through; the mark itself never leaves."""
        self._pending += self._detokenizer.feed(token) + self._detokenizer.flush()
        self._detokenizer = self._tokenizer.detokenizer()
        if not mark.control:
            self._pending = self._pending.removesuffix(mark.text)
        return self._let_through(0)

    def _let_through(self, hold: int) -> list[TraceEvent]:
        size = len(self._pending) - hold
        piece, self._pending = self._pending[:size], self._pending[size:]
        return self._emit(self._flows[self._section].text(piece)) if piece else []

    def _emit(self, text: str) -> list[TraceEvent]:
        if not text:
            return []
        if self._section != "answer":
            self._segments.append(Reasoning(text))
            return [ReasoningDelta(text)]
        self._segments.append(AnswerText(text))
        return [AnswerDelta(text)]

    def _end_section(self) -> list[TraceEvent]:
        return self._emit(self._flows[self._section].end())

    def _start_span(self) -> list[TraceEvent]:
        events = self._emit(self._flows[self._section].before_quote())
        self._quote = ""
        self._spans += 1
        return [*events, RecallStarted(self._section, self._spans - 1)]

    def _more_quote(self) -> list[TraceEvent]:
        """The quote up to its last legal end: what follows could still be cut back."""
        matcher = self._constraint.matcher
        assert matcher is not None
        opening = matcher.first_token
        assert opening is not None
        if not matcher.can_close or self._tokenizer.token_bytes(opening) is None:
            return []
        first = matcher.first_occurrence
        assert first is not None
        return self._grow_quote(self._slice(first, matcher.length))

    def _slice(self, occurrence: tuple[int, int], length: int) -> str:
        passage, start, end = self._prompt.locate(*occurrence, length)
        return self._prompt.passages[passage].text[start:end]

    def _grow_quote(self, quote: str) -> list[TraceEvent]:
        new = quote[len(self._quote) :]
        self._quote = quote
        return [RecallDelta(new)] if new else []

    def _end_span(self, closed: ClosedSpan) -> list[TraceEvent]:
        span = self._resolve(closed)
        events = self._grow_quote(span.text)
        self._segments.append(span)
        self._recalled.append(span)
        self._flows[self._section].length += len(span.text)
        self._detokenizer = self._tokenizer.detokenizer()
        return [*events, RecallEnded(span)]

    def _resolve(self, closed: ClosedSpan) -> RecallSpan:
        """The span where it counts as taken from; a lossy tokenizer's other slices don't count."""
        prompt, length = self._prompt, len(closed.tokens)
        passage, start, end = prompt.locate(*closed.occurrences[0], length)
        text = prompt.passages[passage].text[start:end]
        places = []
        for occurrence in closed.occurrences:
            number, a, b = prompt.locate(*occurrence, length)
            if prompt.passages[number].text[a:b] == text:
                places.append(Place(number, prompt.place(number, a, b)))
        place = anchor(text, places, self._recalled)
        cited = place.location
        return RecallSpan(
            text=text,
            document_id=cited.document_id,
            start=cited.start,
            end=cited.end,
            passage=place.passage,
            occurrences=tuple(dict.fromkeys([cited, *(other.location for other in places)])),
            section=self._section,
            offset=self._flows[self._section].length,
            tokens=length,
        )

    def finish(self) -> list[TraceEvent]:
        """Ends the output where it stands; a span cut off is cut back to its last legal end."""
        events: list[TraceEvent] = []
        if self._finished:
            return events
        self._finished = True
        if self._constraint.in_span:
            closed = self._constraint.cut_span()
            events.extend(self._end_span(closed) if closed else [RecallEnded(None)])
        elif self._constraint.draft(1):  # cut off inside a mark that had begun
            self._pending = self._pending[
                : len(self._pending) - self._constraint.watched_characters
            ]
        self._pending += self._detokenizer.flush()
        events.extend(self._let_through(0))
        events.extend(self._end_section())
        return events


def _merge_neighbours(segments: Sequence[Segment]) -> Iterable[Segment]:
    """Neighbouring stretches of one kind as one."""
    for kind, group in groupby(segments, key=type):
        if kind is RecallSpan:
            yield from group
        else:
            text = "".join(segment.text for segment in group)
            yield Reasoning(text) if kind is Reasoning else AnswerText(text)
