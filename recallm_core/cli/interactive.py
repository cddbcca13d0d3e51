"""``recallm ask --interactive``: question after question, each with those before it in mind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recallm_core.errors import RecallmError

if TYPE_CHECKING:
    from recallm_core.answering.context import Message
    from recallm_core.answers.answer import Answer

_PROMPT = "? "
_HELP = "Ask, an empty line or Ctrl-D ends; /new forgets what was said so far."
_NEW = "/new"
_MOST_TURNS = 6  # questions with their answers that a new one is asked after


def question(text: str) -> Message:
    """Returns a user's message."""
    return {"role": "user", "content": text}


def converse(first: str | None, answer: Callable[[list[Message]], Answer]) -> int:
    """Answers what is typed until the input ends, and returns the exit code.

    What fails is told, and the next question may be asked; Ctrl-C stops the answer alone.

    Args:
        first: A question to begin with, if any.
        answer: Answers the last message of a conversation and shows it.
    """
    before: list[Message] = []
    for text in _questions(first):
        if text == _NEW:
            before.clear()
            continue
        try:
            reply = answer([*before, question(text)])
        except RecallmError as error:
            _note(f"error: {error}")
            continue
        except KeyboardInterrupt:
            _note("stopped")
            continue
        before += [question(text), {"role": "assistant", "content": reply.text}]
        del before[: -2 * _MOST_TURNS]
    return 0


def _questions(first: str | None) -> Iterator[str]:
    if first is not None and first.strip():
        yield first
    is_typed = sys.stdin.isatty()
    if is_typed:
        _note(_HELP)
    while True:
        try:
            text = input(_PROMPT if is_typed else "")
        except EOFError:
            return
        if text.strip():
            yield text.strip()
        elif is_typed:
            return


def _note(text: str) -> None:
    from recallm_core.rendering.visible import one_line

    print(one_line(text), file=sys.stderr)
