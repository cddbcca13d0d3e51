"""Files that are text, but in a notation: JSON, notebooks, tables of values, Rich Text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from recallm_core.documents.encodings import decode
from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.kinds.pieces import Pieces
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import DocumentError

_DEEPEST = 100  # values within values
_NO_MORE = object()
_SEPARATORS = ",;\t|"
_LONGEST_HEAD = 60  # characters of the heading of a column
_LONGEST_TITLE = 300
_FIRST_ROWS = 20_000  # characters in which a first row of headings must end
_YEAR = re.compile(r"[12]\d{3}")


def read_json(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns the values of a JSON file, one a line, each after the way to it.

    ``{"offers": [{"name": "A"}]}`` reads ``offers[0].name: A``. Strings are decoded, so what is
    quoted is what the file says.
    """
    pieces = Pieces(limit)
    for path, value in _leaves(_parse_json(data)):
        shown = value if isinstance(value, str) else json.dumps(value)
        pieces.add(f"{path}: {shown}" if path else shown, path or "value")
    return ExtractedText(pieces.text(), None, pieces.source_map(origin))


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(decode(data))
    except RecursionError:
        raise DocumentError("its values are nested too deeply") from None
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"it is no JSON ({error})") from None


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields what isn't a list or an object, with the way to it."""
    waiting = [iter([("", value)])]  # lazily: a long key stands in the way to each of its values
    while waiting:
        path, value = next(waiting[-1], ("", _NO_MORE))
        if value is _NO_MORE:
            waiting.pop()
        elif not isinstance(value, dict | list):
            yield path, value
        elif len(waiting) > _DEEPEST:
            raise DocumentError(f"its values are nested more than {_DEEPEST} deep")
        else:
            waiting.append(_parts(path, value))


def _parts(path: str, value: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        return ((f"{path}.{key}" if path else key, part) for key, part in value.items())
    return ((f"{path}[{number}]", part) for number, part in enumerate(value))


def read_notebook(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns the cells of a notebook and the text that they printed."""
    notebook = _parse_json(data)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise DocumentError('a notebook without a list of "cells"; save it in format 4')
    pieces = Pieces(limit)
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict):
            continue
        pieces.add(_join_lines(cell.get("source")), f"cell {number}", gap="\n\n")
        outputs = cell.get("outputs")
        for output in outputs if isinstance(outputs, list) else ():
            pieces.add(_output_text(output), f"cell {number}, output", gap="\n\n")
    return ExtractedText(pieces.text(), None, pieces.source_map(origin))


def _output_text(output: Any) -> str:
    """The text among a cell's outputs; pictures and the like have none."""
    if not isinstance(output, dict):
        return ""
    shown = output.get("data")
    return _join_lines(
        output.get("text") or (shown.get("text/plain") if isinstance(shown, dict) else "")
    )


def _join_lines(lines: Any) -> str:
    if isinstance(lines, list):
        lines = "".join(line for line in lines if isinstance(line, str))
    return lines if isinstance(lines, str) else ""


def read_values(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns a table of values as it stands in the file; the place of each row is its number.

    The headings of its columns stand in its title, which is searched and shown with each row.
    """
    text = decode(data)
    if len(text) > limit:
        raise DocumentError(f"it has more than {limit:,} characters of text")
    starts, places = [0], ["row 1"]
    try:
        for number, place in enumerate(_row_starts(text), 1):
            if number > 1:
                starts.append(place)
                places.append(f"row {number}")
    except csv.Error as error:
        return ExtractedText(
            text, None, SourceMap(origin), (f"its rows can't be told apart: {error}",)
        )
    heads = _column_heads(text) if len(starts) > 1 else []
    title = f"{origin.rpartition('/')[2]}: {_join_headings(heads)}" if heads else None
    return ExtractedText(text, title, SourceMap(origin, tuple(starts), places=tuple(places)))


def _column_heads(text: str) -> list[str]:
    """The cells of the first row, where they are headings: different words for each column."""
    tries = [_first_rows(text, separator) for separator in _SEPARATORS]
    cells, _ = max(tries, key=_fit_as_columns)
    heads = [" ".join(cell.split()) for cell in cells]
    is_named = all(0 < len(head) <= _LONGEST_HEAD and not _is_value(head) for head in heads)
    return heads if len(set(heads)) == len(heads) > 1 and is_named else []


def _first_rows(text: str, separator: str) -> tuple[list[str], list[str]]:
    """The cells of the first two rows, if that parts them."""
    rows = csv.reader(io.StringIO(text[:_FIRST_ROWS], newline=""), delimiter=separator)
    try:
        return next(rows, []), next(rows, [])
    except csv.Error:
        return [], []


def _fit_as_columns(rows: tuple[list[str], list[str]]) -> tuple[bool, bool, int]:
    heads, values = map(len, rows)
    return heads > 1, heads == values, heads


def _is_value(cell: str) -> bool:
    """Whether a cell is a number, a date or an address; a year may head a column."""
    is_word = any(character.isalpha() for character in cell)
    return not (is_word or _YEAR.fullmatch(cell)) or "@" in cell or "://" in cell


def _join_headings(heads: list[str]) -> str:
    """Headings as a title has room for."""
    text = ", ".join(heads)
    if len(text) <= _LONGEST_TITLE:
        return text
    return text[: text.rindex(", ", 0, _LONGEST_TITLE)] + ", …"


def _row_starts(text: str) -> Iterator[int]:
    """Yields where each row begins; a quoted value may hold line breaks."""
    lines = io.StringIO(text, newline="")
    at = 0

    def count_characters() -> Iterator[str]:
        nonlocal at
        for line in lines:
            at += len(line)
            yield line

    start = 0
    for _ in csv.reader(count_characters()):
        if start < len(text):
            yield start
        start = at


def read_rich_text(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns the text of a Rich Text file.

    Raises:
        DocumentError: It is damaged, or striprtf isn't installed.
    """
    try:
        from striprtf.striprtf import rtf_to_text
    except ImportError:
        raise DocumentError(
            "a Rich Text file, which needs striprtf: pip install 'recallm-core[files]'"
        ) from None
    if len(data) > limit:
        raise DocumentError(f"larger than {limit:,} bytes")
    try:
        text: str = rtf_to_text(data.decode("latin-1"), errors="replace")
    except Exception as error:  # striprtf raises whatever a damaged file leads to
        raise DocumentError(f"the Rich Text is damaged ({error})") from None
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")
    return ExtractedText(text, None, SourceMap(origin))
