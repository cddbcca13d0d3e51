"""Conversations: checked, and rendered by a chat template that sees no untrusted text.

Placeholders stand for all texts that aren't our own wording. So nothing in them can act on the
template, and a template can't trim, change or hide them: each has to come out once.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from recallm_core.documents.document import Passage, check_text
from recallm_core.documents.plain_json import check_json
from recallm_core.errors import TokenizerError
from recallm_core.tokenization.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant", "tool")
_MARK = "RECALLMFIELD"
_FIELD = re.compile(_MARK + r"([0-9]{1,9})Z")
_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
# Of JSON Schema's own words those that templates look for; what they don't know is a label, too.
_SCHEMAS = (  # their values are schemas, or lists of them
    *("items", "prefixItems", "additionalProperties", "allOf", "anyOf", "oneOf", "not"),
    *("if", "then", "else", "contains", "propertyNames"),
)
_NAMED = ("properties", "patternProperties", "$defs", "definitions")  # schemas, by chosen names
_DATA = (
    *("title", "default", "examples", "enum", "const", "format", "pattern", "required"),
    *("nullable", "$ref", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
)

Turn = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """Untrusted text that a placeholder stands for.

    Attributes:
        text: The text.
        passage: Its number, where it is a passage that may be quoted.
        varies: Whether it is a message, so that another question has another text here.
        label: Whether a template may leave it out, or say it more than once.
    """

    text: str
    passage: int | None = None
    varies: bool = False
    label: bool = False


@dataclass(slots=True)
class Fields:
    """Hands out placeholders, and puts the texts back into what a template made of them.

    Attributes:
        passages: What may be quoted, in the order in which it was put.
    """

    passages: list[Passage] = field(default_factory=list)
    _fields: list[Field] = field(default_factory=list)
    _labels: dict[str, str] = field(default_factory=dict)

    def put(self, text: str, *, varies: bool = False) -> str:
        """Returns a placeholder for a text."""
        return self._add(Field(text, None, varies))

    def put_passage(self, passage: Passage, *, varies: bool = False) -> str:
        """Returns a placeholder for the text of a passage."""
        self.passages.append(passage)
        return self._add(Field(passage.text, len(self.passages) - 1, varies))

    def put_label(self, text: str) -> str:
        """Returns a placeholder for a name or the like, the same one each time.

        So a template can look it up, and may say it as often as it likes.
        """
        if text not in self._labels:
            self._labels[text] = self._add(Field(text, None, True, label=True))
        return self._labels[text]

    def _add(self, new: Field) -> str:
        self._fields.append(new)
        return f"{_MARK}{len(self._fields) - 1}Z"

    def split(self, rendered: str) -> list[str | Field]:
        """Returns the wording and the fields of a rendered template, in order.

        Labels that are empty leave no seam: the wording around them is one piece.

        Raises:
            TokenizerError: The template dropped, repeated or reordered something.
        """
        pieces = _FIELD.split(rendered)
        order = [int(n) for n in pieces[1::2]]
        if not self._complete(order) or any(_MARK in part.upper() for part in pieces[::2]):
            raise TokenizerError(
                "the chat template doesn't render every message exactly once; give the model a "
                "template that does (tokenizer.chat_template)"
            )
        passages = [n for n in order if self._fields[n].passage is not None]
        if passages != sorted(passages):
            raise TokenizerError(
                "the chat template changes the order of the messages; give the model a template "
                "that doesn't (tokenizer.chat_template)"
            )
        out: list[str | Field] = [pieces[0]]
        for number, wording in zip(order, pieces[2::2], strict=True):
            piece_field = self._fields[number]
            if piece_field.text or piece_field.varies or piece_field.passage is not None:
                out.extend([piece_field, wording])
            else:
                out[-1] = f"{out[-1]}{wording}"
        return [piece for piece in out if piece != ""]

    def _complete(self, order: Sequence[int]) -> bool:
        """Whether these are all the fields, each once; labels any number of times."""
        counts = Counter(order)
        known = counts.keys() <= set(range(len(self._fields)))
        return known and all(counts[n] == 1 for n, f in enumerate(self._fields) if not f.label)


def checked_messages(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Returns the messages, validated; neighbours of one role are merged, as templates want it.

    Raises:
        ValueError: They aren't a conversation that ends with a question.
        DocumentError: A content has a lone surrogate.
    """
    out: list[Turn] = []
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        calls = _checked_calls(message.get("tool_calls"), number)
        content = "" if content is None and calls else content
        if role not in ROLES or not isinstance(content, str):
            raise ValueError(
                f"message {number} must have a role of {ROLES} and a string content, got role "
                f"{role!r} and {type(content).__name__} content"
            )
        check_text(content, f"message {number}")
        if out and role == out[-1]["role"] and role != "tool" and not calls:
            out[-1]["content"] += "\n\n" + content
        else:
            turn = {"role": str(role), "content": content}
            out.append(turn | {"tool_calls": calls} if calls else turn)
    if not any(m["role"] == "user" for m in out) or out[-1]["role"] not in ("user", "tool"):
        raise ValueError(
            "a conversation needs a user message and must end with one (or with a tool's), got "
            f"roles {[m['role'] for m in out]}"
        )
    return out


def _checked_calls(calls: Any, number: int) -> list[dict[str, Any]]:
    """Earlier tool calls in the form that templates expect.

    Raises:
        ValueError: One has no name, or its arguments are neither an object nor the JSON of one.
        DocumentError: A text in it has a lone surrogate.
    """
    out = []
    if not isinstance(calls or (), list | tuple):
        raise ValueError(f"message {number}: tool_calls must be a list, got {type(calls).__name__}")
    for call in calls or ():
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        if not isinstance(function, Mapping):
            function = {}
        name, arguments = function.get("name"), function.get("arguments", function.get("args"))
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                arguments = None
        if not isinstance(name, str) or not isinstance(arguments, Mapping):
            raise ValueError(
                f"message {number}: a tool call needs a name and arguments (an object), got "
                f"{type(name).__name__} name and {type(arguments).__name__} arguments"
            )
        check_text(name, f"the name of a tool call in message {number}")
        check_json(arguments, f"the arguments of a tool call in message {number}")
        out.append({"type": "function", "function": {"name": name, "arguments": dict(arguments)}})
    return out


def call_with_placeholders(function: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """An earlier call whose texts, keys among them, are placeholders.

    Args:
        function: Its ``name`` and ``arguments``.
        fields: Hands out the placeholders.
    """
    return {
        "name": fields.put(_json_escape(function["name"]), varies=True),
        "arguments": _with_placeholders(function["arguments"], fields),
    }


def _with_placeholders(value: Any, fields: Fields) -> Any:
    """A JSON value whose strings, keys among them, are placeholders for their escaped texts."""
    if isinstance(value, str):
        return fields.put(_json_escape(value), varies=True)
    if isinstance(value, Mapping):
        return {
            fields.put(_json_escape(key), varies=True): _with_placeholders(inner, fields)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_with_placeholders(inner, fields) for inner in value]
    return value


def tool_with_placeholders(function: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """A tool whose texts are placeholders; only what JSON Schema itself calls so stays.

    Templates look into schemas, so the types stay, and a name has one placeholder wherever it
    stands. They may leave things out, but not the tool's name, nor a description.

    Args:
        function: Its ``name``, ``description`` and ``parameters``.
        fields: Hands out the placeholders.
    """
    return {
        "name": fields.put(_json_escape(function["name"]), varies=True),
        "description": fields.put(_json_escape(function["description"]), varies=True),
        "parameters": _schema(function["parameters"], fields),
    }


def _schema(schema: Any, fields: Fields) -> Any:
    if isinstance(schema, (list, tuple)):
        return [_schema(entry, fields) for entry in schema]
    if not isinstance(schema, Mapping):
        return _labels(schema, fields)
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _SCHEMAS:
            out[key] = _schema(value, fields)
        elif key in _NAMED and isinstance(value, Mapping):
            out[key] = {_label(k, fields): _schema(v, fields) for k, v in value.items()}
        elif key == "description" and isinstance(value, str):
            out[key] = fields.put(_json_escape(value), varies=True)
        elif key == "type" and _known_types(value):
            out[key] = value
        else:
            known = key in (*_DATA, *_NAMED, "description", "type")
            out[key if known else _label(key, fields)] = _labels(value, fields)
    return out


def _known_types(value: Any) -> bool:
    types = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(name, str) and name in _TYPES for name in types)


def _labels(value: Any, fields: Fields) -> Any:
    """Data in a schema, all of whose texts are labels."""
    if isinstance(value, str):
        return _label(value, fields)
    if isinstance(value, Mapping):
        return {_label(key, fields): _labels(inner, fields) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_labels(inner, fields) for inner in value]
    return value


def _label(text: str, fields: Fields) -> str:
    return fields.put_label(_json_escape(text))


def _json_escape(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def render(
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    fields: Fields,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Renders a conversation whose contents are wording and placeholders.

    A template that refuses or drops a system turn gets it inside the first user turn; one that
    wants the user to begin gets an empty user turn before a greeting.

    Raises:
        TokenizerError: The template refuses the conversation, or doesn't render all of it.
    """
    try:
        return _render_turns(tokenizer, turns, fields, tools)
    except TokenizerError:
        forms = _other_forms(turns)
        if not forms:
            raise
    for form in forms[:-1]:
        with suppress(TokenizerError):
            return _render_turns(tokenizer, form, fields, tools)
    return _render_turns(tokenizer, forms[-1], fields, tools)


def _other_forms(turns: Sequence[Turn]) -> list[Sequence[Turn]]:
    """The same conversation for templates that don't take every sequence of roles."""
    forms: list[Sequence[Turn]] = []
    if any(turn["role"] == "system" for turn in turns):
        turns = _system_in_user_turn(turns)
        forms.append(turns)
    if turns[0]["role"] != "user":
        forms.append([{"role": "user", "content": ""}, *turns])
    return forms


def _render_turns(
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    fields: Fields,
    tools: Sequence[Mapping[str, Any]],
) -> str:
    options = {"tools": list(tools)} if tools else {}
    try:
        text = tokenizer.render_chat(turns, **options)
    except Exception as error:  # templates raise whatever Jinja lets them
        raise TokenizerError(
            f"the chat template refuses the conversation with roles {[t['role'] for t in turns]}: "
            f"{error}"
        ) from error
    fields.split(text)
    return text


def _system_in_user_turn(turns: Sequence[Turn]) -> list[Turn]:
    wording = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [dict(turn) for turn in turns if turn["role"] != "system"]
    first = next(turn for turn in rest if turn["role"] == "user")
    first["content"] = f"{wording}\n\n{first['content']}"
    return _alternating(rest)


def _alternating(turns: Sequence[Turn]) -> list[Turn]:
    """Turns of the user that a system turn stood between become one."""
    out: list[Turn] = []
    for turn in turns:
        if out and turn["role"] == out[-1]["role"] == "user":
            out[-1]["content"] += f"\n\n{turn['content']}"
        else:
            out.append(dict(turn))
    return out
