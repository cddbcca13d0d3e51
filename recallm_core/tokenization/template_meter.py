"""What a chat template may use: steps, time, and sizes, measured before anything is made."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateError
from jinja2.utils import Namespace

_MOST_STEPS = 2_000_000
_MOST_SECONDS = 20.0  # a hundred times what the longest conversation takes
_MOST_CHARACTERS = (
    4_000_000  # of one text, and of all that is written; longer prompts may have more
)
MOST_PARTS = 400_000  # of one nested value
_MOST_BITS = 4_096  # of a whole number
_MOST_WIDTH = 10_000  # of a number that says how wide something is to be
_SPREADING = ("translate", "maketrans", "expandtabs", "to_bytes")
_WIDE = re.compile(r"[0-9]{5}|\*")


class TooMuchError(TemplateError):
    """A template wants more than a conversation can need."""


class Meter:
    """What one rendering has used so far, and may use."""

    def __init__(self, input_size: int = 0) -> None:
        self.most = _MOST_CHARACTERS + 8 * input_size
        self._steps = 0
        self._written = 0
        self._end = time.monotonic() + _MOST_SECONDS

    def step(self) -> None:
        """Counts one turn of a loop, call or filter."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TooMuchError(f"it takes more than {_MOST_STEPS:,} steps")
        if time.monotonic() > self._end:
            raise TooMuchError(f"it takes longer than {_MOST_SECONDS:g} s")

    def fit(self, size: int) -> None:
        """Checks the size of a text, before it is made where that can be."""
        if size > self.most:
            raise TooMuchError(f"it makes a text of more than {self.most:,} characters")

    def write(self, text: str) -> str:
        """Counts what is written, macros and blocks too."""
        self._written += len(text) + 1
        self.fit(self._written)
        return text

    def size(self, *values: Any) -> int:
        """Returns the characters in some values and in all they hold, repeats counted."""
        pending, parts, total = list(values), 0, 0
        while pending:
            value = pending.pop()
            parts += 1
            if parts > MOST_PARTS:
                raise TooMuchError(f"it nests more than {MOST_PARTS:,} values")
            if isinstance(value, str | bytes):
                total += len(value)
            elif isinstance(value, Mapping):
                pending.extend(value)
                pending.extend(value.values())
            elif isinstance(value, list | tuple | set | frozenset):
                pending.extend(value)
            elif isinstance(value, Namespace):
                pending.append(value._Namespace__attrs)
            total += 4
        return total

    def measure(self, value: Any) -> Any:
        """Returns a value, or raises where it is too large."""
        if isinstance(value, str | bytes):
            self.fit(len(value))
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise TooMuchError(f"it makes a number of more than {_MOST_BITS:,} bits")
        elif isinstance(value, list | tuple | Mapping | set | frozenset | Namespace):
            self.fit(self.size(value))
        return value


running: ContextVar[Meter | None] = ContextVar("recallm_chat_template", default=None)


def current_meter() -> Meter:
    """Returns the meter of the rendering that runs in this context."""
    return running.get() or Meter()  # constants are worked out when a template is compiled


def check_filter(meter: Meter, name: str, operands: Sequence[Any], more: Mapping[str, Any]) -> None:
    """Measures what a filter would make of its operands.

    Raises:
        TooMuchError: It is too large.
    """
    if name in ("batch", "round", "truncate"):
        _check_widths([*operands[1:], *more.values()])
    if not operands:
        return
    if name == "replace":
        old, new = [*operands[1:3], more.get("old", ""), more.get("new", "")][:2]
        _check_replace(meter, str(operands[0]), str(old), str(new))
    elif name == "join":
        between = str(operands[1] if len(operands) > 1 else more.get("d", ""))
        count = len(operands[0]) if hasattr(operands[0], "__len__") else 0
        meter.fit(meter.size(operands[0]) + len(between) * count)
    elif name in ("indent", "tojson"):
        _check_indent(meter, name, operands, more)
    elif not isinstance(operands[0], str):
        meter.size(operands[0])


def _check_indent(
    meter: Meter, name: str, operands: Sequence[Any], more: Mapping[str, Any]
) -> None:
    """Each line, or each value, gets the same blanks before it."""
    at = 1 if name == "indent" else 2
    blanks = operands[at] if len(operands) > at else more.get("width", more.get("indent", 4))
    width = len(blanks) if isinstance(blanks, str) else blanks if isinstance(blanks, int) else 0
    size = meter.size(operands[0])
    lines = str(operands[0]).count("\n") + 1 if name == "indent" else size
    if width > 100:
        raise TooMuchError("it indents by more than 100 characters")
    meter.fit(size + width * lines)


def _check_replace(meter: Meter, text: str, old: str, new: str) -> None:
    meter.fit(len(text) + text.count(old) * len(new))


def _check_widths(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > _MOST_WIDTH:
            raise TooMuchError(f"it asks for a width of more than {_MOST_WIDTH:,}")


def check_operands(meter: Meter, sign: str, first: Any, second: Any) -> None:
    """Measures what an operator would make.

    Raises:
        TooMuchError: It is too large.
    """
    if sign == "**":
        _check_power(first, second)
    elif sign == "*":
        for long, times in ((first, second), (second, first)):
            if isinstance(long, str | bytes | list | tuple) and isinstance(times, int):
                meter.fit(max(1, meter.size(long)) * times)
    elif sign == "%" and isinstance(first, str | bytes):
        _check_format(meter, str(first), "%", (second,))
    elif sign == "+" and isinstance(first, str) and isinstance(second, str):
        meter.fit(len(first) + len(second))


def _check_power(base: Any, exponent: Any) -> None:
    small = isinstance(exponent, int | float) and abs(exponent) <= 64
    if not small or (isinstance(base, int) and base.bit_length() > 64):
        raise TooMuchError("it asks for a power of more than 64")


def _check_format(meter: Meter, form: str, mark: str, values: Sequence[Any]) -> None:
    """Formats with wide fields are refused; each field may be the largest value."""
    if _WIDE.search(form):
        raise TooMuchError(f"it asks for a width of more than {_MOST_WIDTH:,}")
    _check_widths(values)
    meter.fit(len(form) + form.count(mark) * meter.size(*values))


def method_name(called: Any) -> str:
    """Returns the name of a method of a text or number; empty for anything else."""
    bound = getattr(called, "__wrapped__", called)
    owner = getattr(bound, "__self__", None)
    return bound.__name__ if isinstance(owner, str | bytes | int | float) else ""


def check_method(meter: Meter, called: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Measures what a method of a text would make.

    Raises:
        TooMuchError: It is too large.
    """
    name = method_name(called)
    if not name:
        return
    owner = getattr(called, "__wrapped__", called).__self__
    values = [*args, *kwargs.values()]
    if name in _SPREADING:
        raise TooMuchError(f"it calls {name}, which no chat template needs")
    if name in ("format", "format_map"):
        _check_format(meter, str(owner), "{", values)
    elif name == "replace" and len(args) > 1:
        old, new = args[0], args[1]
        times = owner.count(old)
        meter.fit(len(owner) + times * len(new))
    elif name == "join":
        meter.fit(meter.size(*args) + len(owner) * (len(args[0]) if args else 0))
    else:
        _check_widths(values)
