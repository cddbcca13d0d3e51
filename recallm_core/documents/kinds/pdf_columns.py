"""The text of a PDF page in the order in which it is read: column by column, by geometry.

A PDF holds text in any order. PDFium gives it line by line as stored; where two columns are stored
row by row, its lines run across the gutter. Only such pages are put in order anew: others stay
exactly as PDFium gives them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

Edges = tuple[float, float, float, float]  # left, bottom, right, top

_GUTTER = 9.0  # points, at least
_MIDDLE = (0.15, 0.85)  # of the text's width: where a gutter may be
_LEAST_LINES = 3  # in each column
_MOST_ACROSS = 0.25  # of the lines may lie across the gutter: titles, footers
_PROSE_CHARACTERS = 20  # in a line of a column; cells of tables have less
_PROSE_FILL = 0.6  # of the column's width that half of its lines fill
_MOST_BOXES = 2_000  # of a page; more is a drawing
_MOST_EDGES = 40  # places that are looked at for a gutter
_DEEPEST = 3  # gutters within columns


@dataclass(frozen=True, slots=True)
class _Box:
    """Some characters of one line: where they stand, and which they are."""

    left: float
    bottom: float
    right: float
    top: float
    text: str

    @property
    def middle(self) -> float:
        """Its height on the page."""
        return (self.bottom + self.top) / 2


def page_text(text_page: Any) -> tuple[str, bool]:
    """Returns the text of a page, and whether its order is doubtful.

    Args:
        text_page: PDFium's.
    """
    stored = text_page.get_text_range()
    count = text_page.count_rects()
    if not 2 * _LEAST_LINES <= count <= _MOST_BOXES:
        return stored, False
    if _gutter([_box(text_page.get_rect(number)) for number in range(count)]) is None:
        return stored, False
    boxes = _boxes(text_page)
    gutter = _gutter(boxes)
    if gutter is None or not _is_interleaved(boxes, gutter):
        return stored, False
    if not _is_prose(boxes, gutter):
        return stored, _may_be_prose(boxes, gutter)
    return "\n".join(box.text for box in _in_order(boxes, _DEEPEST)), False


def _box(edges: Edges, text: str = "") -> _Box:
    return _Box(*edges, text)


def _boxes(text_page: Any) -> list[_Box]:
    """The lines of a page as stored, cut where there is a wide gap."""
    from pypdfium2 import raw

    boxes: list[_Box] = []
    units: list[int] = []
    edges: list[Edges] = []

    def end_box() -> None:
        text = b"".join(unit.to_bytes(2, "little") for unit in units)
        shown = text.decode("utf-16-le", "replace").strip()
        if shown and edges:
            lefts, bottoms, rights, tops = zip(*edges, strict=True)
            boxes.append(_box((min(lefts), min(bottoms), max(rights), max(tops)), shown))
        units.clear()
        edges.clear()

    for number in range(text_page.count_chars()):
        code = raw.FPDFText_GetUnicode(text_page, number)
        if code in (10, 13):
            end_box()
            continue
        if code and code != 32 and code < 0x10000:
            box = text_page.get_charbox(number)
            if edges and _is_apart(edges[-1], box):
                end_box()
            edges.append(box)
        if code:
            units.extend(_utf16(0x2D if code in (0xFFFE, 2) else code))
    end_box()
    return boxes


def _utf16(code: int) -> Sequence[int]:
    if code < 0x10000:
        return (code,)
    return (0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code & 0x3FF))


def _is_apart(before: Edges, box: Edges) -> bool:
    """Whether a character isn't on the line of the one before, or far from it."""
    is_other_line = box[1] > before[3] or box[3] < before[1]
    return is_other_line or box[0] - before[2] > _GUTTER or box[2] < before[0] - _GUTTER


def _gutter(boxes: Sequence[_Box]) -> float | None:
    """The right edge of the gutter that divides some lines, if a plain one does."""
    if len(boxes) < 2 * _LEAST_LINES:
        return None
    x0, x1 = min(box.left for box in boxes), max(box.right for box in boxes)
    low, high = (x0 + part * (x1 - x0) for part in _MIDDLE)
    begins = Counter(round(box.left) for box in boxes if low <= box.left <= high)
    best: tuple[int, int] | None = None
    gutter: float | None = None
    for edge, times in begins.most_common(_MOST_EDGES):
        times += begins[edge - 1] + begins[edge + 1]
        across = sum(_is_across(box, edge) for box in boxes)
        before = sum(box.right <= edge - _GUTTER + 0.5 for box in boxes)
        is_plain = min(times, before) >= _LEAST_LINES and across <= _MOST_ACROSS * len(boxes)
        if is_plain and (best is None or (-across, times) > best):
            best, gutter = (-across, times), edge
    return gutter


def _is_across(box: _Box, gutter: float) -> bool:
    return box.left < gutter - 1 and box.right > gutter - _GUTTER + 0.5


def _is_right(box: _Box, gutter: float) -> bool:
    return box.left >= gutter - 1


def _is_interleaved(boxes: Sequence[_Box], gutter: float) -> bool:
    """Whether the stored order goes from column to column more than once for each stretch."""
    sides = [_is_right(box, gutter) for box in boxes if not _is_across(box, gutter)]
    back = sum(a and not b for a, b in pairwise(sides))
    return back > 1 + sum(_is_across(box, gutter) for box in boxes)


def _columns(boxes: Sequence[_Box], gutter: float) -> tuple[list[_Box], list[_Box]]:
    rest = [box for box in boxes if not _is_across(box, gutter)]
    right = [box for box in rest if _is_right(box, gutter)]
    return [box for box in rest if not _is_right(box, gutter)], right


def _is_prose(boxes: Sequence[_Box], gutter: float) -> bool:
    """Whether all columns hold lines of prose and no cells."""
    return all(_is_column_of_prose(column) for column in _columns(boxes, gutter))


def _is_column_of_prose(column: Sequence[_Box]) -> bool:
    if not column:
        return False
    inner = _gutter(column)
    if inner is not None:
        return _is_prose(column, inner)
    widths = [box.right - box.left for box in column]
    width = max(box.right for box in column) - min(box.left for box in column)
    has_words = median(len(box.text) for box in column) >= _PROSE_CHARACTERS
    return has_words and median(widths) >= _PROSE_FILL * width


def _may_be_prose(boxes: Sequence[_Box], gutter: float) -> bool:
    """Whether both columns hold words enough to be read by themselves."""
    return all(
        median(box.text.count(" ") for box in column) >= 2 for column in _columns(boxes, gutter)
    )


def _in_order(boxes: Sequence[_Box], depth: int) -> list[_Box]:
    """The lines as they are read: stretches between lines across the gutter, left, then right."""
    gutter = _gutter(boxes) if depth else None
    if gutter is None or not _is_interleaved(boxes, gutter) or not _is_prose(boxes, gutter):
        return list(boxes)
    across = sorted((b for b in boxes if _is_across(b, gutter)), key=lambda box: -box.middle)
    rest = sorted((b for b in boxes if not _is_across(b, gutter)), key=lambda box: -box.middle)
    ordered: list[_Box] = []
    at = 0
    for divider in [*across, None]:
        stretch = []
        while at < len(rest) and (divider is None or rest[at].middle > divider.middle):
            stretch.append(rest[at])
            at += 1
        for column in _columns(stretch, gutter):
            ordered += _in_order(column, depth - 1)
        if divider is not None:
            ordered.append(divider)
    return ordered
