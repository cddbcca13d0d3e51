"""Chat templates of checkpoints, rendered with bounds: they are programs that a stranger wrote.

Jinja's sandbox keeps a template from reaching anything but its data. What it may still do is go on
for ever, or ask for more memory than there is. So every loop, call and filter is counted against a
number of steps and a time, and whatever makes a text or a list longer is measured before it does.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

_MOST_SOURCE = 500_000  # characters of a template; the longest known has some 50,000
_MOST_STEPS = 2_000_000
_MOST_SECONDS = 20.0  # a hundred times what the longest conversation takes
_MOST_CHARACTERS = (
    4_000_000  # of one text, and of all that is written; longer prompts may have more
)
_MOST_PARTS = 400_000  # of one nested value
_MOST_BITS = 4_096  # of a whole number
_MOST_WIDTH = 10_000  # of a number that says how wide something is to be
_SPREADING = ("translate", "maketrans", "expandtabs", "to_bytes")
_WIDE = re.compile(r"[0-9]{5}|\*")

_FILTERS = (  # what chat templates use; each is measured
    *("abs", "attr", "batch", "capitalize", "count", "d", "default", "dictsort", "e", "escape"),
    *("first", "float", "groupby", "indent", "int", "items", "join", "last", "length", "list"),
    *("lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe"),
    *("select", "selectattr", "sort", "string", "striptags", "title", "trim", "truncate"),
    *("unique", "upper", "wordcount"),
)


class _TooMuchError(TemplateError):
    """A template wants more than a conversation can need."""


class _Meter:
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
            raise _TooMuchError(f"it takes more than {_MOST_STEPS:,} steps")
        if time.monotonic() > self._end:
            raise _TooMuchError(f"it takes longer than {_MOST_SECONDS:g} s")

    def fit(self, size: int) -> None:
        """Checks the size of a text, before it is made where that can be."""
        if size > self.most:
            raise _TooMuchError(f"it makes a text of more than {self.most:,} characters")

    def write(self, text: str) -> str:
        """Counts what is written, macros and blocks too."""
        self._written += len(text) + 1
        self.fit(self._written)
        return text

    def size(self, *values: Any) -> int:
        """The characters in some values, nested ones too, each as often as it stands there."""
        pending, parts, total = list(values), 0, 0
        while pending:
            value = pending.pop()
            parts += 1
            if parts > _MOST_PARTS:
                raise _TooMuchError(f"it nests more than {_MOST_PARTS:,} values")
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

    def held(self, value: Any) -> Any:
        """Returns a value that isn't too large."""
        if isinstance(value, str | bytes):
            self.fit(len(value))
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise _TooMuchError(f"it makes a number of more than {_MOST_BITS:,} bits")
        elif isinstance(value, list | tuple | Mapping | set | frozenset | Namespace):
            self.fit(self.size(value))
        return value


_meter: ContextVar[_Meter | None] = ContextVar("recallm_chat_template", default=None)


def _held(value: Any) -> Any:
    return _used().held(value)


def _used() -> _Meter:
    return _meter.get() or _Meter()  # constants are worked out when a template is compiled


def render(template: str, messages: Sequence[Mapping[str, Any]], **more: Any) -> str:
    """Returns a conversation as a chat template writes it.

    Args:
        template: The template's source.
        messages: What ``messages`` is in it.
        more: Further variables.

    Raises:
        jinja2.TemplateError: It is no template, refuses the conversation, or wants too much.
    """
    shown = [{key: value for key, value in m.items() if value is not None} for m in messages]
    meter = _Meter(_Meter().size(shown, more) if len(shown) < _MOST_PARTS else 0)
    token = _meter.set(meter)
    try:
        return str(_compiled(template).render(messages=shown, **more))
    finally:
        _meter.reset(token)


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    if len(source) > _MOST_SOURCE:
        raise _TooMuchError(f"it has more than {_MOST_SOURCE:,} characters")
    return _Environment().from_string(source)


class _Generation(Extension):
    """What stands in ``{% generation %}`` is written like anything else."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja types it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with what transformers adds for chat templates, all of it measured."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            finalize=_written,
        )
        measured = {name: _measured(name, self.filters[name]) for name in _FILTERS}
        measured |= {"tojson": _measured("tojson", _tojson)}
        measured |= {
            "~loop": _counted,
            "~join": _concatenated,
            "~held": _held,
        }
        self.filters = measured
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]
        self.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now().strftime(str(form)[:100]),
            "namespace": _Names,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed: nodes.Template = _Marking().visit(super()._parse(source, name, filename))
        return parsed

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """One of the operators that can make something long."""
        meter = _used()
        meter.step()
        _check_operands(meter, operator, left, right)
        return meter.held(super().call_binop(context, operator, left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A method, macro or function."""
        meter = _used()
        meter.step()
        if args and _method(called) == "join":
            args = (_listed(args[0]), *args[1:])
        _check_method(meter, called, args, kwargs)
        return meter.held(super().call(context, called, *args, **kwargs))


class _Names(Namespace):
    """Jinja's namespace without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        values = dict(*args, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise TemplateError(f"a namespace can't hold {name!r}: it begins with an underscore")


class _Marking(NodeTransformer):
    """Puts measuring filters where a template loops, joins, lists and writes."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  (Jinja's name)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "~loop")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        together = nodes.Tuple(node.nodes, "load", lineno=node.lineno)
        return _filtered(together, "~join")

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return _filtered(self.generic_visit(node), "~held")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return _filtered(self.generic_visit(node), "~held")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return node if node.ctx != "load" else _filtered(node, "~held")

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = _filtered(node.filter, "~held", node.lineno)
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        return nodes.Const(node.data, lineno=node.lineno)


def _filtered(node: Any, name: str, line: int | None = None) -> nodes.Filter:
    lineno = node.lineno if line is None else line
    return nodes.Filter(node, name, [], [], None, None, lineno=lineno)


@pass_context
def _written(_: Context, value: Any) -> str:
    """What is written, measured before it becomes a text."""
    meter = _used()
    if not isinstance(value, str):
        meter.fit(meter.size(value))
    return meter.write(str(value))


class _Sized:
    """A collection whose elements are counted when a loop takes them."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return _ticking(self._values)


def _ticking(values: Iterable[Any]) -> Iterator[Any]:
    meter = _used()
    for value in values:
        meter.step()
        yield value


def _counted(values: Any) -> Any:
    return _Sized(values) if hasattr(values, "__len__") else _ticking(values)


def _listed(values: Any) -> Any:
    """A generator's elements, counted; anything else as it is."""
    return list(_ticking(values)) if isinstance(values, Iterator) else values


def _concatenated(values: Sequence[Any]) -> str:
    meter = _used()
    meter.step()
    meter.fit(meter.size(*values))
    return "".join(map(str, values))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: Jinja's own escapes what is special in HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: object) -> None:
    raise TemplateError(str(message)[:2000])


def _measured(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is counted, and whose result is measured."""

    @wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        meter = _used()
        meter.step()
        arguments = args[1:] if hasattr(function, "jinja_pass_arg") else args
        operands = [_listed(value) for value in arguments]
        _check_filter(meter, name, operands, kwargs)
        return meter.held(function(*args[: len(args) - len(arguments)], *operands, **kwargs))

    return measured


def _check_filter(
    meter: _Meter, name: str, operands: Sequence[Any], more: Mapping[str, Any]
) -> None:
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
    meter: _Meter, name: str, operands: Sequence[Any], more: Mapping[str, Any]
) -> None:
    """Each line, or each value, gets the same blanks before it."""
    at = 1 if name == "indent" else 2
    blanks = operands[at] if len(operands) > at else more.get("width", more.get("indent", 4))
    width = len(blanks) if isinstance(blanks, str) else blanks if isinstance(blanks, int) else 0
    size = meter.size(operands[0])
    lines = str(operands[0]).count("\n") + 1 if name == "indent" else size
    if width > 100:
        raise _TooMuchError("it indents by more than 100 characters")
    meter.fit(size + width * lines)


def _check_replace(meter: _Meter, text: str, old: str, new: str) -> None:
    meter.fit(len(text) + text.count(old) * len(new))


def _check_widths(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > _MOST_WIDTH:
            raise _TooMuchError(f"it asks for a width of more than {_MOST_WIDTH:,}")


def _check_operands(meter: _Meter, sign: str, first: Any, second: Any) -> None:
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
        raise _TooMuchError("it asks for a power of more than 64")


def _check_format(meter: _Meter, form: str, mark: str, values: Sequence[Any]) -> None:
    """Formats with wide fields are refused; each field may be the largest value."""
    if _WIDE.search(form):
        raise _TooMuchError(f"it asks for a width of more than {_MOST_WIDTH:,}")
    _check_widths(values)
    meter.fit(len(form) + form.count(mark) * meter.size(*values))


def _method(called: Any) -> str:
    """The name of a method of a text or number; empty for anything else."""
    bound = getattr(called, "__wrapped__", called)
    owner = getattr(bound, "__self__", None)
    return bound.__name__ if isinstance(owner, str | bytes | int | float) else ""


def _check_method(
    meter: _Meter, called: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    name = _method(called)
    if not name:
        return
    owner = getattr(called, "__wrapped__", called).__self__
    values = [*args, *kwargs.values()]
    if name in _SPREADING:
        raise _TooMuchError(f"it calls {name}, which no chat template needs")
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
