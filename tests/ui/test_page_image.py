from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from recallm_core.documents.pdf import extract_pdf
from recallm_core.errors import DocumentError
from recallm_core.ui.page_image import encode_png, page_image

Pdf = Callable[..., bytes]
LINES = ["The fee is 5 euro.", "It is due in May.", "The fee is 5 euro.", "No more is asked."]
PAGE = "\n".join(LINES)


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack("!II", png[16:24])
    return width, height


def test_a_page_and_where_the_quote_stands_on_it(pdf: Pdf) -> None:
    data = pdf(["Another page.", PAGE])
    text = extract_pdf(data, "a.pdf").text
    page = text.index("\f") + 1
    start = text.index("The fee", text.index("due"))
    drawn = page_image(data, 2, text[start:].rstrip(), start - page)
    width, height = size(drawn.png)
    assert abs(width / height - 612 / 792) < 0.01
    assert drawn.pages == 2
    tops = [top * 792 for _, top, _, _ in drawn.boxes]
    assert len(tops) == 2
    assert tops == sorted(tops)
    # baselines of the third and the fourth line lie 40 and 60 points under the first's
    assert all(abs(top + 9 - (792 - 700 + 20 * n)) < 6 for n, top in zip((2, 3), tops, strict=True))
    for left, top, wide, high in drawn.boxes:
        assert 0 <= left < left + wide <= 1
        assert 0 <= top < top + high <= 1


def test_the_first_of_two_equal_lines_is_told_from_the_second(pdf: Pdf) -> None:
    data = pdf([PAGE])
    text = extract_pdf(data, "a.pdf").text
    (first,) = page_image(data, 1, "The fee is 5 euro.", 0).boxes
    (second,) = page_image(data, 1, "The fee is 5 euro.", text.rindex("The fee")).boxes
    assert second[1] - first[1] == pytest.approx(40 / 792, abs=0.001)


def test_what_isnt_on_the_page_is_marked_nowhere(pdf: Pdf) -> None:
    assert page_image(pdf([PAGE]), 1, "Not here", 0).boxes == ()
    assert page_image(pdf([PAGE]), 1).boxes == ()


@pytest.mark.parametrize("page", [0, 2, -1, 10**9])
def test_a_page_that_isnt_there(pdf: Pdf, page: int) -> None:
    with pytest.raises(DocumentError, match="has 1 pages"):
        page_image(pdf([PAGE]), page)


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4", b"\x00" * 1000, None])
def test_files_that_cant_be_drawn(pdf: Pdf, data: bytes | None) -> None:
    data = pdf([PAGE])[:300] if data is None else data
    with pytest.raises(DocumentError, match=r"can't be drawn|has 0 pages"):
        page_image(data, 1)


def test_a_picture_is_what_was_drawn() -> None:
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    png = encode_png(pixels)
    start = png.index(b"IDAT")
    (length,) = struct.unpack("!I", png[start - 4 : start])
    rows = zlib.decompress(png[start + 4 : start + 4 + length])
    decoded = np.frombuffer(rows, np.uint8).reshape(2, 10)
    assert (decoded[:, 0] == 0).all()
    assert (decoded[:, 1:].reshape(2, 3, 3) == pixels[:, :, :3]).all()
