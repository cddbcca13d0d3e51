"""Chat templates of checkpoints, rendered with bounds: they are programs of untrusted origin.

Jinja's sandbox keeps a template from reaching anything but its data. What it may still do is go on
for ever, or ask for more memory than there is. So every loop, call and filter is counted against a
number of steps and a time, and whatever makes a text or a list longer is measured before it does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from recallm_core.tokenization.template_meter import (
    MOST_PARTS,
    Meter,
    TooMuchError,
    check_filter,
    check_method,
    check_operands,
    current_meter,
    method_name,
    running,
)

_MOST_SOURCE = 500_000  # characters of a template; the longest known has some 50,000

_FILTERS = (  # what chat templates use; each is measured
    *("abs", "attr", "batch", "capitalize", "count", "d", "default", "dictsort", "e", "escape"),
    *("first", "float", "groupby", "indent", "int", "items", "join", "last", "length", "list"),
    *("lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe"),
    *("select", "selectattr", "sort", "string", "striptags", "title", "trim", "truncate"),
    *("unique", "upper", "wordcount"),
)


def _measure(value: Any) -> Any:
    return current_meter().measure(value)


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
    meter = Meter(Meter().size(shown, more) if len(shown) < MOST_PARTS else 0)
    token = running.set(meter)
    try:
        return str(_compile(template).render(messages=shown, **more))
    finally:
        running.reset(token)


@lru_cache(maxsize=16)
def _compile(source: str) -> Any:
    if len(source) > _MOST_SOURCE:
        raise TooMuchError(f"it has more than {_MOST_SOURCE:,} characters")
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
            finalize=_write,
        )
        measured = {name: _measuring(name, self.filters[name]) for name in _FILTERS}
        measured |= {"tojson": _measuring("tojson", _tojson)}
        measured |= {
            "~loop": _count,
            "~join": _concatenate,
            "~held": _measure,
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
        """Measures an operator that can make something long, then applies it."""
        meter = current_meter()
        meter.step()
        check_operands(meter, operator, left, right)
        return meter.measure(super().call_binop(context, operator, left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Counts and measures the call of a method, macro or function, then makes it."""
        meter = current_meter()
        meter.step()
        if args and method_name(called) == "join":
            args = (_list(args[0]), *args[1:])
        check_method(meter, called, args, kwargs)
        return meter.measure(super().call(context, called, *args, **kwargs))


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
        node.iter = _filter(node.iter, "~loop")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        together = nodes.Tuple(node.nodes, "load", lineno=node.lineno)
        return _filter(together, "~join")

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return _filter(self.generic_visit(node), "~held")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return _filter(self.generic_visit(node), "~held")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return node if node.ctx != "load" else _filter(node, "~held")

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = _filter(node.filter, "~held", node.lineno)
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        return nodes.Const(node.data, lineno=node.lineno)


def _filter(node: Any, name: str, line: int | None = None) -> nodes.Filter:
    lineno = node.lineno if line is None else line
    return nodes.Filter(node, name, [], [], None, None, lineno=lineno)


@pass_context
def _write(_: Context, value: Any) -> str:
    """What is written, measured before it becomes a text."""
    meter = current_meter()
    if not isinstance(value, str):
        meter.fit(meter.size(value))
    return meter.write(str(value))


class _CountedCollection:
    """A collection whose elements are counted when a loop takes them."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return _tick(self._values)


def _tick(values: Iterable[Any]) -> Iterator[Any]:
    meter = current_meter()
    for value in values:
        meter.step()
        yield value


def _count(values: Any) -> Any:
    return _CountedCollection(values) if hasattr(values, "__len__") else _tick(values)


def _list(values: Any) -> Any:
    """A generator's elements, counted; anything else as it is."""
    return list(_tick(values)) if isinstance(values, Iterator) else values


def _concatenate(values: Sequence[Any]) -> str:
    meter = current_meter()
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


def _measuring(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is counted, and whose result is measured."""

    @wraps(function)
    def apply_filter(*args: Any, **kwargs: Any) -> Any:
        meter = current_meter()
        meter.step()
        arguments = args[1:] if hasattr(function, "jinja_pass_arg") else args
        operands = [_list(value) for value in arguments]
        check_filter(meter, name, operands, kwargs)
        return meter.measure(function(*args[: len(args) - len(arguments)], *operands, **kwargs))

    return apply_filter
