"""Every public method that an adapter inherits from its framework does something.

The walk is by introspection, so that a new version of a framework can't add a method that surfaces
bare: the test fails until it is implemented, refused with words that help, or listed here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import pytest

ADAPTERS = ("langchain_recallm", "llama_index_recallm")
FRAMEWORKS = (
    "langchain",
    "langchain_core",
    "llama_index",
    "llama_index_instrumentation",
    "workflows",
)

FINE = {
    "AgentMiddleware.wrap_tool_call": "a hook; agents call it only where it is overridden",
    "AgentMiddleware.awrap_tool_call": "a hook; agents call it only where it is overridden",
    "Runnable.stream_events": "refuses unknown versions, and says which it knows",
    "LLM.stream": "refuses output parsers while streaming, in words",
    "LLM.astream": "refuses output parsers while streaming, in words",
}


def modules(package: str) -> Iterator[ModuleType]:
    root = pytest.importorskip(package)
    for found in pkgutil.iter_modules(root.__path__, f"{package}."):
        yield importlib.import_module(found.name)


def adapters() -> dict[str, type]:
    """The classes of ours that have a framework's class among their bases.

    An abstract one that isn't public counts by the class of ours that finishes it.
    """
    classes = {
        f"{found.__module__}.{found.__name__}": found
        for package in ADAPTERS
        for module in modules(package)
        for found in vars(module).values()
        if inspect.isclass(found)
        and found.__module__ == module.__name__
        and any(base.__module__.split(".")[0] in FRAMEWORKS for base in found.__mro__)
    }
    public = {name for package in ADAPTERS for name in importlib.import_module(package).__all__}
    return {
        name: owner
        for name, owner in classes.items()
        if owner.__name__ in public or not is_finished_by(owner, classes.values())
    }


def is_finished_by(owner: type, others: Iterable[type]) -> bool:
    """Whether a class is abstract, and a subclass of it among others isn't."""
    return inspect.isabstract(owner) and any(
        issubclass(other, owner) and not inspect.isabstract(other) for other in others
    )


def inherited(owner: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class has from a framework."""
    for name in dir(owner):
        raw = inspect.getattr_static(owner, name)
        raw = raw.fget if isinstance(raw, property) else getattr(raw, "__func__", raw)
        function = inspect.unwrap(raw) if callable(raw) else None
        if not name.startswith("_") and inspect.isfunction(function):
            module = function.__module__.split(".")[0]
            if module in FRAMEWORKS:
                yield function.__qualname__, function


def refuses(function: Any) -> bool:
    """Whether ``NotImplementedError`` is raised anywhere in a function."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    names = [each.func if isinstance(each, ast.Call) else each for each in raised]
    return any(isinstance(each, ast.Name) and each.id == "NotImplementedError" for each in names)


def test_the_walk_finds_the_classes_that_people_use() -> None:
    names = {name.rpartition(".")[2] for name in adapters()}
    wanted = {"ChatRecaLLM", "RecallFAISS", "PackedContextRetriever", "RecallEmbeddings", "RecaLLM"}
    wanted |= {
        "GroundingMiddleware",
        "RecaLLMVectorStore",
        "RecaLLMSynthesizer",
        "RecaLLMEmbedding",
    }
    wanted |= {"PackingCompressor", "RecaLLMChatEngine", "RecaLLMQueryEngine", "RecaLLMWorkflow"}
    wanted |= {"CitedChatModel", "CitedLLM"}
    assert wanted <= names


def test_no_method_is_left_abstract() -> None:
    left = {
        name: sorted(missing)
        for name, owner in adapters().items()
        if (missing := getattr(owner, "__abstractmethods__", ()))
    }
    assert left == {}


def test_no_inherited_method_surfaces_bare() -> None:
    bare = {
        f"{owner.__name__}.{name.rpartition('.')[2]} (of {name.rpartition('.')[0]})"
        for owner in adapters().values()
        for name, function in inherited(owner)
        if name not in FINE and refuses(function)
    }
    assert bare == set(), "implement each, or raise an error that says what to use instead"


def test_the_exceptions_are_still_there() -> None:
    walked = {name for owner in adapters().values() for name, f in inherited(owner) if refuses(f)}
    assert walked == set(FINE)
