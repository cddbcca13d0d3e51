"""Grammar-constrained output: JSON by a schema, and tool calls; the engine is llguidance.

A grammar and recall never hold in the same step: quotes are recalled while the model thinks, and
the grammar rules what comes after.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recallm_core.documents.document import check_text
from recallm_core.documents.plain_json import check_json
from recallm_core.errors import ConstraintError
from recallm_core.inputs.arguments import shown
from recallm_core.inputs.extras import needs
from recallm_core.locks import ForkSafeLock
from recallm_core.tokenization.tokenizer import Tokenizer

Ints = NDArray[np.int64]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}
_NOTHING: Ints = np.empty(0, dtype=np.int64)
_COMPILED = 64  # grammars that an engine keeps; one takes a millisecond to a second to compile


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that the model may call.

    Attributes:
        name: How it is called.
        description: What it is good for.
        parameters: JSON schema of its arguments, an object.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None

    def to_function(self) -> dict[str, Any]:
        """Returns the tool in the form that chat templates expect."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters or NO_PARAMETERS),
            },
        }


@dataclass(frozen=True, slots=True)
class OutputRules:
    """What the answer has to look like, beyond words.

    Attributes:
        tools: What the model may call.
        choice: ``auto``, ``required``, ``none``, or the name of the tool that must be called.
        schema: JSON schema of the whole answer; excludes tools.
        parallel: Whether more than one call may be made at once.
    """

    tools: tuple[ToolSpec, ...] = ()
    choice: str = "auto"
    schema: Any = None
    parallel: bool = True

    def __post_init__(self) -> None:
        if self.tools and self.schema is not None:
            raise ValueError(
                "tools and a response schema can't be combined in one call; ask for the structured "
                "answer once the tools have been called"
            )
        names = [tool.name for tool in self.tools]
        if self.choice not in ("auto", "required", "none", *names):
            raise ValueError(
                f"tool_choice must be auto, required, none or one of {names}, got {self.choice!r}"
            )
        if self.choice == "required" and not names:
            raise ValueError("tool_choice 'required' needs tools")

    @property
    def offered_tools(self) -> tuple[ToolSpec, ...]:
        """The tools that may be called under the choice."""
        if self.choice == "none":
            return ()
        named = tuple(tool for tool in self.tools if tool.name == self.choice)
        return named or self.tools

    @property
    def words_only(self) -> bool:
        """Whether only words can come: no tool may be called, and no schema asks for JSON."""
        return self.schema is None and not self.offered_tools

    @property
    def requires_call(self) -> bool:
        """Whether a tool must be called."""
        return self.choice not in ("auto", "none")


def tool_spec(tool: Any) -> ToolSpec:
    """Reads a tool in the OpenAI form (``{"type": "function", "function": {...}}``) or bare.

    Raises:
        ValueError: It has no name, or its parameters aren't an object schema in plain JSON.
        DocumentError: A text in it has a lone surrogate.
    """
    if not isinstance(tool, ToolSpec):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not function.get("name"):
            raise ValueError(_NO_TOOL.format(shown(tool)))
        parameters = function.get("parameters") or NO_PARAMETERS
        return _checked_tool(
            ToolSpec(function["name"], function.get("description") or "", parameters)
        )
    return _checked_tool(tool)


_NO_TOOL = (
    'a tool must look like {{"type": "function", "function": {{"name": ..., "parameters": '
    "{{JSON schema}}}}}}, got {}"
)


def _checked_tool(tool: ToolSpec) -> ToolSpec:
    if not isinstance(tool.name, str) or not _NAME.fullmatch(tool.name):
        raise ValueError(
            f"a tool's name must be 1 to 64 letters, digits, '_', '-' or '.', got "
            f"{shown(tool.name)}"
        )
    check_text(tool.description, f"the description of tool {tool.name!r}")
    parameters = NO_PARAMETERS if tool.parameters is None else tool.parameters
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise ValueError(
            f"the parameters of tool {tool.name!r} must be a JSON schema of type object, "
            f"got {shown(parameters)}"
        )
    check_json(parameters, f"the parameters of tool {tool.name!r}")
    return tool


def schema_grammar(schema: Any) -> str:
    """Returns the grammar of JSON that fits a schema; ``True`` or ``{}`` is any JSON.

    Raises:
        ValueError: The schema can't be enforced (the message says what in it).
    """
    _llguidance()
    check_json(schema, "the response schema")
    if schema is True or schema == {}:
        schema = {"type": ["object", "array", "string", "number", "boolean", "null"]}
    return _grammar_from_lark("start: json\njson: %json " + _inline(schema), "the response schema")


def calls_grammar(tools: Sequence[ToolSpec]) -> str:
    """Returns the grammar of what stands between the marks of one tool call.

    A line ``{"name": "...", "arguments": {...}}`` with the arguments of the tool that is named.

    Raises:
        ValueError: There is no tool, two share a name, or a schema can't be enforced.
    """
    if not tools:
        raise ValueError("no tools were given")
    names = [tool.name for tool in tools]
    if len(set(names)) != len(names):
        raise ValueError(f"tool names must be unique, got {names}")
    lines = ["start: " + " | ".join(f"call{n}" for n in range(len(tools)))]
    for number, tool in enumerate(tools):
        head = json.dumps('\n{"name": ' + json.dumps(tool.name) + ', "arguments": ')
        lines.append(f'call{number}: {head} args{number} "}}\\n"')
        lines.append(f"args{number}: %json {_inline(dict(tool.parameters or NO_PARAMETERS))}")
    return _grammar_from_lark("\n".join(lines), "the tools' parameters")


def _inline(schema: Any) -> str:
    """A schema as the body of ``%json``: what ``json.dumps`` would write, no other white space."""
    if isinstance(schema, Mapping):
        layout = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
        schema = {**_close_objects(schema), "x-guidance": layout}
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a JSON schema must be plain JSON: {error}") from error


def _close_objects(schema: Any) -> Any:
    """Objects that list their properties get no others, unless the schema says so."""
    if isinstance(schema, Mapping):
        closed = {key: _close_objects(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), Mapping) and schema.get("type") == "object":
            closed.setdefault("additionalProperties", False)
        return closed
    return (
        [_close_objects(value) for value in schema] if isinstance(schema, (list, tuple)) else schema
    )


@lru_cache(maxsize=64)  # a question builds its prompt twice: once to see what room is left
def _grammar_from_lark(lark: str, what: str) -> str:
    engine = _llguidance()
    grammar: str = engine.LLMatcher.grammar_from_lark(lark)
    problem = engine.LLMatcher.validate_grammar(grammar)
    if problem and not problem.startswith("WARNING"):
        raise ValueError(f"{what} can't be enforced: {problem.strip()[:500]}")
    return grammar


def _llguidance() -> Any:
    with needs("local", "a tool or a response schema"):
        import llguidance
    return llguidance


class GrammarEngine:
    """A tokenizer's vocabulary, prepared for grammars once.

    Args:
        tokenizer: The model's tokenizer; its tokens must be known as bytes.
        vocab_size: Width of the logits.

    Raises:
        ConstraintError: The tokenizer is lossy, or has no end-of-sequence token.
    """

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int) -> None:
        engine = _llguidance()
        if not tokenizer.eos_ids:
            raise ConstraintError("grammars need a tokenizer with an end-of-sequence token")
        tokens = [tokenizer.token_bytes(i) or b"" for i in range(tokenizer.vocab_size)]
        if not any(tokens):
            raise ConstraintError(
                "grammars need a tokenizer whose tokens are known as bytes (byte-level BPE or "
                "SentencePiece with byte fallback)"
            )
        self.vocab_size = vocab_size
        self.eos = frozenset(tokenizer.eos_ids)
        vocabulary = _Vocabulary(tokenizer, tokens)
        wrapper = engine.TokenizerWrapper(vocabulary)
        self._tokenizer = engine.LLTokenizer(wrapper, n_vocab=max(vocab_size, len(tokens)))
        self._compiled: dict[str, Future[Any]] = {}
        self._process = os.getpid()
        self._lock = ForkSafeLock()

    def for_model(self, eos: Iterable[int], *, vocab_size: int) -> GrammarEngine:
        """Returns an engine for other ends and another width, over the same prepared vocabulary.

        Args:
            eos: Ids that no grammar may use as text, beside those of the tokenizer.
            vocab_size: Width of the logits.
        """
        other = copy(self)
        other.eos = self.eos | frozenset(eos)
        other.vocab_size = vocab_size
        return other

    def matcher(self, grammar: str) -> GrammarMatcher:
        """Returns a fresh cursor at the beginning of a grammar, which is compiled once.

        Raises:
            ConstraintError: The grammar is broken or beyond the engine's limits.
        """
        compiled = self._compile(grammar)
        if compiled.is_error():
            raise ConstraintError(f"the grammar can't be used: {compiled.get_error()[:500]}")
        return GrammarMatcher(self, compiled.deep_copy())

    def _compile(self, grammar: str) -> Any:
        """The compiled grammar, which nobody moves; threads that want the same one share it."""
        fresh: Future[Any] = Future()
        with self._lock:
            if os.getpid() != self._process:  # what others compile in the parent never comes here
                self._compiled, self._process = {}, os.getpid()
            future = self._compiled.pop(grammar, fresh)
            self._compiled[grammar] = future  # the last used stands last
            while len(self._compiled) > _COMPILED:
                del self._compiled[next(iter(self._compiled))]
        if future is fresh:
            try:
                fresh.set_result(_llguidance().LLMatcher(self._tokenizer, grammar, log_level=0))
            except BaseException as error:  # others wait for it
                with self._lock:
                    self._compiled.pop(grammar, None)
                fresh.set_exception(error)
        return future.result()


class _Vocabulary:
    """A tokenizer as llguidance wants to see it."""

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos_ids[0]
        self.bos_token_id = None
        controls = tokenizer.control_ids | set(tokenizer.eos_ids)
        names = {i: f"<control-{i}>".encode() for i in controls}
        self.tokens = [names.get(i, token) for i, token in enumerate(tokens)]
        self.special_token_ids = sorted(controls)

    def __call__(self, text: bytes | str) -> list[int]:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        ids: list[int] = self._tokenizer.encode_plain(plain).ids.tolist()
        return ids


class GrammarMatcher:
    """A cursor through a grammar; never ends up where nothing can follow."""

    def __init__(self, engine: GrammarEngine, matcher: Any) -> None:
        self._engine = engine
        self._matcher = matcher
        self._lock = threading.Lock()

    def allowed_tokens(self) -> Ints:
        """Returns the ids that may come next, sorted; no end-of-sequence, which ``accepts`` tells.

        Empty means that the text is complete.
        """
        with self._lock:
            if self._matcher.is_stopped():
                return _NOTHING
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        flags = np.unpackbits(bits, bitorder="little", count=self._engine.vocab_size)
        flags[[i for i in self._engine.eos if i < len(flags)]] = 0
        return np.flatnonzero(flags)

    @property
    def accepts(self) -> bool:
        """Whether the text so far is complete."""
        with self._lock:
            return bool(self._matcher.is_accepting())

    def consume_token(self, token: int) -> None:
        """Moves on by one token.

        Raises:
            ConstraintError: The grammar doesn't allow it here.
        """
        with self._lock:
            if self._matcher.validate_tokens([token]) != 1:
                raise ConstraintError(f"token {token} doesn't continue the grammar")
            self._matcher.consume_token(token)

    def copy(self) -> GrammarMatcher:
        """Returns an independent cursor at the same place."""
        with self._lock:
            return GrammarMatcher(self._engine, self._matcher.deep_copy())

    def after(self, token: int) -> GrammarMatcher:
        """Returns a cursor one token further; this one stays where it is.

        Raises:
            ConstraintError: The grammar doesn't allow the token here.
        """
        following = self.copy()
        following.consume_token(token)
        return following
