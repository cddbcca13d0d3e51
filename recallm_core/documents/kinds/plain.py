"""Files that are text, but in a notation: JSON, notebooks, tables of values, Rich Text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from recallm_core.documents.encodings import decode
from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.kinds.pieces import Pieces
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import DocumentError

_DEEPEST = 100  # values within values
_NO_MORE = object()


def read_json(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns the values of a JSON file, one a line, each after the way to it.

    ``{"offers": [{"name": "A"}]}`` reads ``offers[0].name: A``. Strings are decoded, so what is
    quoted is what the file says.
    """
    pieces = Pieces(limit)
    for path, value in _leaves(_parsed(data)):
        shown = value if isinstance(value, str) else json.dumps(value)
        pieces.add(f"{path}: {shown}" if path else shown, path or "value")
    return ExtractedText(pieces.text(), None, pieces.source_map(origin))


def _parsed(data: bytes) -> Any:
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
    notebook = _parsed(data)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise DocumentError('a notebook without a list of "cells"; save it in format 4')
    pieces = Pieces(limit)
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict):
            continue
        pieces.add(_joined(cell.get("source")), f"cell {number}", gap="\n\n")
        outputs = cell.get("outputs")
        for output in outputs if isinstance(outputs, list) else ():
            pieces.add(_printed(output), f"cell {number}, output", gap="\n\n")
    return ExtractedText(pieces.text(), None, pieces.source_map(origin))


def _printed(output: Any) -> str:
    """The text among a cell's outputs; pictures and the like have none."""
    if not isinstance(output, dict):
        return ""
    shown = output.get("data")
    return _joined(
        output.get("text") or (shown.get("text/plain") if isinstance(shown, dict) else "")
    )


def _joined(lines: Any) -> str:
    if isinstance(lines, list):
        lines = "".join(line for line in lines if isinstance(line, str))
    return lines if isinstance(lines, str) else ""


def read_values(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns a table of values as it stands in the file; the place of each row is its number."""
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
    return ExtractedText(text, None, SourceMap(origin, tuple(starts), places=tuple(places)))


def _row_starts(text: str) -> Iterator[int]:
    """Yields where each row begins; a quoted value may hold line breaks."""
    lines = io.StringIO(text, newline="")
    at = 0

    def counted() -> Iterator[str]:
        nonlocal at
        for line in lines:
            at += len(line)
            yield line

    start = 0
    for _ in csv.reader(counted()):
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
