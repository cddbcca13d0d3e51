"""Word documents, PowerPoint presentations and Excel workbooks."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree.ElementTree import Element

from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.kinds.archives import Archive, nearest
from recallm_core.documents.kinds.pieces import Pieces
from recallm_core.errors import DocumentError

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_SLIDES = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_REFERENCE = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011", "softHyphen": "\xad"}
_UNSEEN = frozenset({"del", "moveFrom", "instrText", "delText", "Fallback", "pPr", "sectPr"})
_MOST_COLUMNS = 1_000
_MOST_ROWS = 1_048_576


def read_word(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns the text of a Word document: paragraphs, tables by row, then the notes.

    Text that was deleted or is marked as hidden is left out.
    """
    archive = Archive(data, limit)
    pieces = Pieces(limit)
    body = archive.xml("word/document.xml").find(f"{_WORD}body")
    counters = {"paragraph": 0, "table": 0}
    for block in _blocks(body) if body is not None else ():
        _add_block(block, pieces, counters)
    for notes in ("footnotes", "endnotes"):
        name = f"word/{notes}.xml"
        for number, note in enumerate(archive.xml(name) if name in archive else ()):
            pieces.add(_words(note), f"{notes[:-1]} {number}")
    return ExtractedText(pieces.text(), _title(archive), pieces.source_map(origin))


def _blocks(body: Element) -> Iterator[Element]:
    """Yields what stands in a body, and in the place of a content control what it holds."""
    waiting = list(reversed(body))
    while waiting:
        block = waiting.pop()
        if block.tag == f"{_WORD}sdt":
            waiting += reversed(block.findall(f"{_WORD}sdtContent/*"))
        else:
            yield block


def _add_block(block: Element, pieces: Pieces, counters: dict[str, int]) -> None:
    """Adds a paragraph or a table; a table in a cell is part of the cell."""
    if block.tag == f"{_WORD}p":
        counters["paragraph"] += 1
        pieces.add(_words(block), f"paragraph {counters['paragraph']}", gap="\n\n")
    elif block.tag == f"{_WORD}tbl":
        counters["table"] += 1
        for number, row in enumerate(nearest(block, f"{_WORD}tr"), 1):
            cells = [" ".join(_words(cell).split()) for cell in nearest(row, f"{_WORD}tc")]
            gap = "\n" if number > 1 else "\n\n"
            pieces.add("\t".join(cells), f"table {counters['table']}, row {number}", gap=gap)


def _words(element: Element) -> str:
    """The text of an element, paragraphs on lines of their own."""
    pieces: list[str] = []
    waiting: list[Element | str] = [element]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            pieces.append(node)
            continue
        name = node.tag.rpartition("}")[2]
        if name in _UNSEEN or (name == "r" and _is_hidden(node)):
            continue
        if name == "t":
            pieces.append(node.text or "")
        elif name in _SIGNS:
            pieces.append(_SIGNS[name])
        else:
            waiting += ["\n"] if name == "p" and node is not element else []
            waiting += reversed(node)
    return "".join(pieces).strip("\n")


def _is_hidden(run: Element) -> bool:
    mark = run.find(f"{_WORD}rPr/{_WORD}vanish")
    return mark is not None and mark.get(f"{_WORD}val", "true") not in ("false", "0", "off")


def _title(archive: Archive) -> str | None:
    """The title among the properties of an Office file."""
    if "docProps/core.xml" not in archive:
        return None
    title = archive.xml("docProps/core.xml").find("{http://purl.org/dc/elements/1.1/}title")
    return " ".join((title.text or "").split()) or None if title is not None else None


def read_slides(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns the text of a presentation, slide by slide, with the speaker's notes."""
    archive = Archive(data, limit)
    pieces = Pieces(limit)
    read = set[str]()
    for number, name in enumerate(dict.fromkeys(_slides(archive)), 1):
        _add_slide(archive, name, pieces, number)
        for other in archive.relations(name).values():
            if "/notesSlides/" in f"/{other}" and other in archive and other not in read:
                read.add(other)
                pieces.add(_paragraphs(archive.xml(other)), f"slide {number}, notes", page=number)
    return ExtractedText(pieces.text(), _title(archive), pieces.source_map(origin, has_pages=True))


def _slides(archive: Archive) -> Iterator[str]:
    """The names of the slides in the order of the presentation."""
    main = "ppt/presentation.xml"
    related = archive.relations(main)
    for slide in archive.xml(main).iter(f"{_SLIDES}sldId"):
        name = related.get(slide.get(_REFERENCE, ""), "")
        if name in archive:
            yield name


def _add_slide(archive: Archive, name: str, pieces: Pieces, number: int) -> None:
    gap = "\n\n"
    waiting = [archive.xml(name)]
    while waiting:
        shape = waiting.pop()
        if shape.tag == f"{_SLIDES}txBody":
            words = _paragraphs(shape)
        elif shape.tag == f"{_DRAWING}tr":
            cells = nearest(shape, f"{_DRAWING}tc")
            words = "\t".join(" ".join(_paragraphs(cell).split()) for cell in cells)
        else:
            waiting += reversed(shape)
            continue
        pieces.add(words, f"slide {number}", page=number, gap=gap)
        gap = "\n"


def _paragraphs(element: Element) -> str:
    return "\n".join(_words(paragraph) for paragraph in nearest(element, f"{_DRAWING}p")).strip(
        "\n"
    )


def read_workbook(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns the cells of a workbook, a row a line, each value after the heading of its column.

    The first row of a sheet with more than one value is taken for its headings if all are text.
    Values are as they were last computed; dates are ISO's.

    Raises:
        DocumentError: It is damaged, or openpyxl isn't installed.
    """
    openpyxl = _openpyxl()
    archive = Archive(data, limit)
    for name in archive.names():
        if name.endswith((".xml", ".rels")) and b"<!" in archive.read(name)[:2_000]:
            raise DocumentError(f"{name} declares its own entities")
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        pieces = Pieces(limit)
        for sheet in book.worksheets:
            if sheet.sheet_state == "visible":
                sheet.reset_dimensions()  # what the file says of its size is often wrong
                _add_sheet(sheet.title, sheet.iter_rows(values_only=True), pieces)
        title = book.properties.title or None
    except DocumentError:
        raise
    except Exception as error:  # openpyxl raises whatever a damaged file leads to
        raise DocumentError(f"the workbook is damaged ({error})") from None
    return ExtractedText(pieces.text(), title, pieces.source_map(origin))


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ImportError:
        raise DocumentError(
            "an Excel workbook, which needs openpyxl: pip install 'recallm-core[files]'"
        ) from None
    return openpyxl


def _add_sheet(title: str, rows: Iterable[tuple[Any, ...]], pieces: Pieces) -> None:
    heads: list[str] | None = None
    gap = "\n\n"
    for number, row in enumerate(rows, 1):
        if number > _MOST_ROWS:
            raise DocumentError(f"sheet {title} has a row after row {_MOST_ROWS:,}, Excel's last")
        values = [_cell_text(value) for value in row[:_MOST_COLUMNS]]
        if sum(map(bool, values)) == 0:
            continue
        place = f"sheet {title}, row {number}"
        if heads is None and sum(map(bool, values)) > 1:
            is_text = all(isinstance(value, str) for value in row if value is not None)
            heads = values if is_text else []
            pieces.add("\t".join(values).strip("\t"), place, gap=gap)
        else:
            pieces.add(_with_heads(values, heads or []), place, gap=gap)
        gap = "\n"


def _with_heads(values: list[str], heads: list[str]) -> str:
    """A row's values after the headings of their columns."""
    named = [*heads, *[""] * max(0, len(values) - len(heads))]
    pairs = zip(named, values, strict=False)
    return "\t".join(f"{head}: {value}" if head else value for head, value in pairs if value)


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return " ".join(str(value).split())
