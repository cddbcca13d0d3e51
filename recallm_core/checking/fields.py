"""Quotes in the fields of JSON, whole or cut off, with their places in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from recallm_core.checking.marks import in_marks
from recallm_core.checking.written import Claim, View, WrittenQuote

FIELDS = frozenset(
    """
    quote quotes quotation quotations quoted_text cited_text citation_text evidence evidences
    excerpt excerpts verbatim verbatim_quote exact_quote direct_quote snippet snippets
    supporting_text supporting_quote supporting_quotes source_text source_quote
    """.split()  # noqa: SIM905
)
_NUMBERS = frozenset(("source_number", "passage", "n", "number", "ref", "reference", "marker"))
_INDEXES = frozenset(("document_index", "doc_index", "source_index"))  # counted from 0
_NAMES = frozenset(
    """
    source source_id document document_id doc doc_id docid file filename file_name path url uri
    title document_title source_title id
    """.split()  # noqa: SIM905
)
_ABOVE = 4  # levels around a quote that may name its source
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u.{4}|.)", re.DOTALL)
_START = re.compile(r'\s*(?:\{\s*(?:"|\}|\Z)|\[\s*(?:[\{"]|\Z))')


@dataclass(slots=True)
class _Level:
    """An object or a list that is open; a list has the name of its field."""

    key: str
    parent: _Level | None
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Value:
    """A string of the JSON, under its field's name."""

    key: str
    view: View
    level: _Level


def looks_like_json(text: str, start: int, end: int) -> bool:
    """Whether a part of a text begins as an object or as a list of objects or strings."""
    return _START.match(text[start : min(end, start + 1_000)]) is not None


def in_fields(text: str, start: int, end: int) -> Iterator[WrittenQuote]:
    """Yields the quotes in a part of a text that is JSON, in order.

    A string is a quote where its field says so (``quote``, ``cited_text``, ``evidence`` ...), or
    the field of the list it stands in. Fields beside it say where it is from. Other strings are
    read as prose. Cut-off JSON gives what is complete.
    """
    for value in list(_values(text, start, end)):  # all of them first: a source may come later
        if value.key in FIELDS:
            size = len(value.view.text)
            quote = value.view.quote_in(0, size, "field", _claim(value.level))
            if quote is not None:
                yield quote
        else:
            yield from in_marks(value.view)


def escape_json(text: str) -> str:
    """Returns a text as the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _values(text: str, start: int, end: int) -> Iterator[_Value]:
    level = _Level("", None)
    key, waiting = "", ""
    for match in _TOKEN.finditer(text, start, end):
        token = match.group()
        if token in "{[":
            level = _Level(key or level.key, level)
            key = ""
        elif token in "}]":
            level = level.parent or level
        elif token == ":":
            key, waiting = waiting, ""
        elif token == ",":
            key = ""
        elif token[0] == '"':
            view = _unescape_json(text, match.start() + 1, match.end() - 1)
            waiting = "" if key else view.text.strip().lower()
            following = text[match.end() : match.end() + 40].lstrip()
            if following[:1] != ":":
                name = key or level.key
                level.facts.setdefault(name, view.text)
                yield _Value(name, view, level)
        else:
            level.facts.setdefault(key, token)


def _unescape_json(text: str, start: int, end: int) -> View:
    """The inside of a JSON string with its escapes undone."""
    pieces: list[str] = []
    places: list[int] = []
    at = start
    for match in _ESCAPE.finditer(text, start, end):
        character = _character(match.group())
        pieces += [text[at : match.start()], character]
        places += [*range(at, match.start()), *[match.start()] * len(character)]
        at = match.end()
    if not pieces:
        return View.plain(text, start, end)
    pieces.append(text[at:end])
    places += range(at, end + 1)
    return View("".join(pieces), places)


def _character(escape: str) -> str:
    """What an escape stands for; itself, where it stands for nothing that can be shown."""
    try:
        character = str(json.loads(f'"{escape}"'))
        character.encode("utf-8")
    except (ValueError, UnicodeEncodeError):
        return escape
    return character


def _claim(level: _Level | None) -> Claim | None:
    """What the fields around a quote say of its source; the nearest ones first."""
    for _ in range(_ABOVE):
        if level is None:
            break
        facts = level.facts
        numbers = [int(v) for k, v in facts.items() if k in _NUMBERS and _is_small(v)]
        numbers += [int(v) + 1 for k, v in facts.items() if k in _INDEXES and _is_small(v)]
        names = tuple(v.strip() for k, v in facts.items() if k in _NAMES and v.strip())
        if numbers or names:
            return Claim(tuple(numbers), names, loose=not numbers)
        level = level.parent
    return None


def _is_small(value: str) -> bool:
    return value.isdecimal() and len(value) < 4
