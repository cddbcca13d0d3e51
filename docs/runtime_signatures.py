"""The signatures of methods that `takes` a request: what a caller gives, not what the body gets."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import griffe

_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: griffe.ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.VAR_POSITIONAL: griffe.ParameterKind.var_positional,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
    inspect.Parameter.VAR_KEYWORD: griffe.ParameterKind.var_keyword,
}


class RuntimeSignatures(griffe.Extension):
    """Replaces the parameters of such methods by those that they have when they run."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Takes the signature of a decorated method."""
        if not any(str(decorator.value).startswith("takes(") for decorator in func.decorators):
            return
        value: Any = importlib.import_module(func.module.path)
        for name in func.path.removeprefix(f"{func.module.path}.").split("."):
            value = getattr(value, name)
        parameters = inspect.signature(value).parameters.values()
        func.parameters = griffe.Parameters(*map(_parameter, parameters))


def _parameter(parameter: inspect.Parameter) -> griffe.Parameter:
    empty = inspect.Parameter.empty
    is_several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    default = None if parameter.default is empty else repr(parameter.default)
    if is_several:
        default = "{}" if parameter.kind is parameter.VAR_KEYWORD else "()"
    annotation = None if parameter.annotation is empty else str(parameter.annotation)
    return griffe.Parameter(
        parameter.name, annotation=annotation, kind=_KINDS[parameter.kind], default=default
    )
