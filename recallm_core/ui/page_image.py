"""A page of a PDF as a picture, with where a quote stands on it; made in a process with limits."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recallm_core.documents.limited_process import child_environment
from recallm_core.errors import DocumentError

if TYPE_CHECKING:
    import numpy as np

_WIDTH = 1_100  # pixels of a page
_MOST_PIXELS = 12_000_000
_SECONDS = 30.0
_SPARE_BYTES = 512 << 20
_CHILD = "from recallm_core.ui.page_image import child; child()"
_HEAD = struct.Struct("!II")

Box = tuple[float, float, float, float]
"""Left, top, width and height, as parts of the page's width and height."""


@dataclass(frozen=True, slots=True)
class PageImage:
    """One page.

    Attributes:
        png: The picture.
        boxes: Where the quote stands on it.
        pages: How many pages the file has.
    """

    png: bytes
    boxes: tuple[Box, ...]
    pages: int


def page_image(data: bytes, page: int, quote: str = "", near: int = 0) -> PageImage:
    """Returns a page of a PDF file.

    Args:
        data: The file.
        page: 1-based.
        quote: Text to find on it; lines are found one by one.
        near: Where about in the page's text it begins, if it stands there more than once.

    Raises:
        DocumentError: The file has no such page, or it can't be drawn within limits.
    """
    request = json.dumps({"page": page, "quote": quote, "near": near}).encode()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD],
            input=_HEAD.pack(len(request), len(data)) + request + data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DocumentError("the page can't be drawn; its text is shown instead") from error
    return _answer(done.stdout)


def _answer(output: bytes) -> PageImage:
    try:
        size, _ = _HEAD.unpack_from(output)
        reply: dict[str, Any] = json.loads(output[_HEAD.size : _HEAD.size + size])
    except (struct.error, ValueError) as error:
        raise DocumentError("the page can't be drawn; its text is shown instead") from error
    if "error" in reply:
        raise DocumentError(str(reply["error"]))
    boxes = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in reply["boxes"])
    return PageImage(output[_HEAD.size + size :], boxes, int(reply["pages"]))


# ------------------------------------------------------------------------------------ in the child


def child() -> None:
    """Reads one request from the standard input and answers it."""
    from recallm_core.documents.pdf_child import limit_memory

    size, length = _HEAD.unpack(sys.stdin.buffer.read(_HEAD.size))
    request = json.loads(sys.stdin.buffer.read(size))
    data = sys.stdin.buffer.read(length)
    import pypdfium2

    limit_memory(_SPARE_BYTES + 4 * length)
    png = b""
    try:
        reply, png = _draw(pypdfium2, data, request["page"], request["quote"], request["near"])
    except (pypdfium2.PdfiumError, IndexError, MemoryError) as error:
        reply = {"error": f"the page can't be drawn ({error or 'too large'})"}
    head = json.dumps(reply).encode()
    sys.stdout.buffer.write(_HEAD.pack(len(head), len(png)) + head + png)


def _draw(
    pdfium: Any, data: bytes, number: int, quote: str, near: int
) -> tuple[dict[str, Any], bytes]:
    document = pdfium.PdfDocument(data)
    if not 1 <= number <= len(document):
        return {"error": f"the file has {len(document)} pages, not {number}"}, b""
    page = document[number - 1]
    width, height = page.get_size()
    scale = min(_WIDTH / width, (_MOST_PIXELS / (width * height)) ** 0.5)
    pixels = page.render(scale=scale, rev_byteorder=True).to_numpy()
    text_page = page.get_textpage()
    boxes = [_part(edges, width, height) for edges in _quote_rectangles(text_page, quote, near)]
    return {"boxes": boxes, "pages": len(document)}, encode_png(pixels)


def _part(edges: tuple[float, ...], width: float, height: float) -> Box:
    x0, bottom, x1, top = edges
    return (x0 / width, 1 - top / height, (x1 - x0) / width, (top - bottom) / height)


def _quote_rectangles(text_page: Any, quote: str, near: int) -> Iterator[tuple[float, ...]]:
    """The rectangles of a quote, line by line: each line stands where it follows the one before."""
    for line in quote.splitlines():
        for index, count in _places(text_page, line.strip(), near):
            yield from (
                text_page.get_rect(number)
                for number in range(text_page.count_rects(index, count))
                if number < 50
            )
            near = index + count


def _places(text_page: Any, line: str, near: int) -> list[tuple[int, int]]:
    """Where a line stands; the parts of a word that the page divides with a hyphen, one by one."""
    if not line:
        return []
    whole = _nearest(text_page, line, near)
    if whole is not None:
        return [whole]
    parts = (part.strip() for part in line.split("-"))
    places = (_nearest(text_page, part, near) for part in parts if len(part) > 3)
    return [place for place in places if place is not None]


def _nearest(text_page: Any, text: str, near: int) -> tuple[int, int] | None:
    search = text_page.search(text, match_case=True)
    places: list[tuple[int, int]] = []
    while len(places) < 200 and (place := search.get_next()) is not None:
        places.append(place)
    search.close()
    return min(places, key=lambda place: abs(place[0] - near), default=None)


def encode_png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Returns a picture as PNG.

    Args:
        pixels: ``[height, width, channels]``, uint8; grey, RGB, or RGBX, whose fourth is left out.
    """
    colours = 0 if pixels.shape[2] == 1 else 2
    shown = pixels[:, :, : 1 if colours == 0 else 3]
    height, width = shown.shape[:2]
    rows = b"".join(b"\x00" + row.tobytes() for row in shown)
    header = struct.pack("!IIBBBBB", width, height, 8, colours, 0, 0, 0)
    chunks = (("IHDR", header), ("IDAT", zlib.compress(rows, 6)), ("IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name.encode(), body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + name + body + struct.pack("!I", zlib.crc32(name + body))
