"""A pointed reply as it comes: text that may be shown, and at last the checked answer."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from recallm_core.answers.answer import Answer, Citation, Usage
from recallm_core.answers.trace import AnswerText, Reasoning, Trace
from recallm_core.errors import ReplyError
from recallm_core.pointing.reply import MOST_CHARACTERS, ReplyParser, Statement
from recallm_core.pointing.resolving import PlacedStatement
from recallm_core.prompting.recipe import ABSTAIN

if TYPE_CHECKING:
    from recallm_core.pointing.prompt import PointedPrompt

Outside = Literal["raise", "match"]

_THINKING = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_WIDE = ("W", "F")  # scripts that put no space between sentences


class PointedReader:
    """Reads one reply, in pieces or whole.

    Words are held back until the model has said that there is an answer, has pointed at a sentence
    and begun to say what for: until then they may come to an abstention, whose text is another.

    Args:
        prompt: What was asked.
        outside: What becomes of a reply that isn't what was asked for: ``raise``, or ``match``:
            its words are an answer like any model's, cited only where the documents hold them.
    """

    def __init__(self, prompt: PointedPrompt, *, outside: Outside = "raise") -> None:
        if outside not in ("raise", "match"):
            raise ValueError(f"outside must be raise or match, got {outside!r}")
        self._prompt = prompt
        self._outside = outside
        self._parser = ReplyParser(len(prompt.sentences), strict=outside == "raise")
        self._text = _Text()
        self._raw: list[str] = []
        self._size = 0
        self._error: ReplyError | None = None
        self._shown = 0

    def feed(self, piece: str) -> str:
        """Returns the text that the next piece of the reply lets be shown; often none.

        Raises:
            ReplyError: The reply is none that the schema allows, and ``outside`` is ``raise``.
            TypeError: The piece is no text.
        """
        if not isinstance(piece, str):
            raise TypeError(f"a piece of a reply must be a str, got {type(piece).__name__}")
        self._raw.append(piece[: max(MOST_CHARACTERS - self._size, 0)])
        self._size += len(piece)
        if self._error is None:
            try:
                self._parser.feed(piece)
            except ReplyError as error:
                self._refuse(error)
        self._text.take(self._parser.statements)
        return self._newly_shown() if self._may_show() else ""

    def finish(
        self,
        *,
        usage: Usage | None = None,
        finish_reason: str = "stop",
        model: str = "",
        reasoning: str = "",
    ) -> Answer:
        """Returns the answer, as the reply is complete or was cut off.

        Its text begins with all that was shown.

        Args:
            usage: Tokens spent.
            finish_reason: Why the model stopped; a reply that breaks off counts as ``length``, and
                so does one of which only the first ``MOST_CHARACTERS`` were read.
            model: Which model replied.
            reasoning: What it thought, as far as it shows that.

        Raises:
            ReplyError: The reply is empty or none that the schema allows, and ``outside`` is
                ``raise``.
            CitationError: A quote isn't the slice of its document that it claims to be.
        """
        if not self._parser.statements and not self._parser.over and self._error is None:
            self._refuse(self._nothing(finish_reason))
        text, placed = self._text.finish(), self._text.placed
        if self._error is not None and not placed:
            text = _words("".join(self._raw))
        citations = self._prompt.resolver.resolve(text, placed, question=self._prompt.question)
        abstained = self._abstains(text, citations)
        thoughts = (Reasoning(_encodable(reasoning)),) if reasoning else ()
        return Answer(
            text=ABSTAIN if abstained else text,
            citations=() if abstained else citations,
            abstained=abstained,
            trace=Trace((*thoughts, *((AnswerText(text),) if text else ()))),
            usage=usage or Usage(),
            finish_reason="length" if self._was_cut() else finish_reason,
            question=self._prompt.question,
            model=model,
            sources=self._prompt.documents,
            nearest=self._nearest(citations) if abstained else (),
        )

    # what may be shown

    def _may_show(self) -> bool:
        owed = self._prompt.owes_evidence
        evident = not owed or any(map(_is_evident, self._parser.statements))
        return self._parser.answered is True and evident

    def _newly_shown(self) -> str:
        text = self._text.since(self._shown)
        self._shown += len(text)
        return text

    # what it comes to

    def _was_cut(self) -> bool:
        """Whether there was more of the reply than was read."""
        unfinished = not self._parser.over and self._error is None
        return unfinished or self._size > MOST_CHARACTERS

    def _refuse(self, error: ReplyError) -> None:
        if self._outside == "raise":
            raise error
        self._error = error

    def _nothing(self, finish_reason: str) -> ReplyError:
        cut = finish_reason == "length"
        return ReplyError(
            f"the model's reply {'was cut off' if cut else 'ended'} before its first statement, "
            f"after {self._size:,} characters; expected JSON of the schema"
            + ("; raise the model's max_tokens" if cut else "")
        )

    def _abstains(self, text: str, citations: Sequence[Citation]) -> bool:
        if not text or self._parser.answered is False:
            return True
        return self._prompt.owes_evidence and not citations

    def _nearest(self, citations: Sequence[Citation]) -> tuple[Citation, ...]:
        if citations:
            bare = (replace(c, answer_start=None, answer_end=None) for c in citations)
            return tuple({(c.document_id, c.start, c.end): c for c in bare}.values())
        numbers = [n for statement in self._parser.statements for n in statement.pointers or ()]
        return self._prompt.resolver.cite_sentences(numbers)


def _is_evident(statement: Statement) -> bool:
    """Whether a statement points at something and has words for it; without, nothing is cited."""
    return bool(statement.pointers) and not all(map(str.isspace, statement.pieces))


def _words(reply: str) -> str:
    """What a reply in another form says: itself, or the strings in its JSON; not its thinking."""
    reply = _THINKING.sub("", reply)
    try:
        texts = list(_strings(json.loads(reply)))
    except (ValueError, RecursionError):
        texts = [reply]
    return _encodable(" ".join(texts).strip())


def _encodable(text: str) -> str:
    """The text with halves of characters replaced; streams cut characters in two."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


class _Text:
    """The text of an answer, put together from its statements; white space outside them is ours.

    Attributes:
        placed: Where each statement stands that has words.
    """

    def __init__(self) -> None:
        self.placed: list[PlacedStatement] = []
        self._parts: list[str] = []
        self._size = 0
        self._taken = 0  # statements that are done with
        self._pieces = 0  # of the one after them
        self._start: int | None = None  # of that
        self._held = ""  # white space that counts only if words follow
        self._last = ""
        self._open: Statement | None = None  # the last one, which may grow

    def take(self, statements: Sequence[Statement]) -> None:
        """Takes what is new in statements of which only the last may grow."""
        for number in range(self._taken, len(statements)):
            statement = statements[number]
            self._add(statement.pieces[self._pieces :])
            self._pieces = len(statement.pieces)
            if number < len(statements) - 1:
                self._end(statement)
        self._open = statements[-1] if statements else None

    def since(self, offset: int) -> str:
        """Returns the text from a character on; cheap near the end."""
        return "".join(self._parts[offset:])

    def finish(self) -> str:
        """Returns the whole text, as there are no more statements."""
        if self._open is not None:
            self._end(self._open)
            self._open = None
        return "".join(self._parts)

    def _add(self, characters: Sequence[str]) -> None:
        for character in characters:
            if character.isspace():
                self._held += character
            else:
                if self._start is None:
                    self._held = self._between()
                    self._start = self._size + len(self._held)
                self._put(self._held + character)
                self._held = ""

    def _put(self, text: str) -> None:
        self._parts.extend(text)
        self._size += len(text)
        self._last = text[-1]

    def _between(self) -> str:
        """What stands before a statement: its own line breaks, or what its script has."""
        if not self._last:
            return ""
        if "\n" in self._held:
            return self._held
        wide = unicodedata.east_asian_width(self._last) in _WIDE
        return "" if wide else " "

    def _end(self, statement: Statement) -> None:
        if self._start is not None:
            self.placed.append(PlacedStatement(self._start, self._size, statement.pointers or ()))
        self._taken += 1
        self._pieces, self._start = 0, None
        if "\n" not in self._held:
            self._held = ""
