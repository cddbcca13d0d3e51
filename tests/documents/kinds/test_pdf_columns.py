from __future__ import annotations

import textwrap

import pypdfium2
import pytest

from recallm_core.documents.pdf import extract_pdf

LEFT = (
    "The annual membership fee of the sailing club is two hundred and forty euros, and it is "
    "collected by direct debit in the first week of March. Boats are paid for in October."
)
RIGHT = (
    "Damage to club boats is reported to the equipment warden, Petra Lindqvist, within twenty "
    "hours. The summer regatta takes place in July. Spectators are welcome at the pier."
)
TITLE = "Rules of the sailing club, as the members voted for them in the year 2024, second edition"


def pdf(lines: list[tuple[int, int, str]]) -> bytes:
    """A page of lines at places, stored in the order given."""
    drawn = b"BT /F1 10 Tf\n"
    for x, y, text in lines:
        shown = text.encode("cp1252").replace(b"(", rb"\(").replace(b")", rb"\)")
        drawn += b"1 0 0 1 %d %d Tm (%s) Tj\n" % (x, y, shown)
    drawn += b"ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [5 0 R] >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 3 0 R >> >> >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + end


def rows(columns: list[list[str]], xs: list[int], top: int = 700) -> list[tuple[int, int, str]]:
    """Columns stored row by row."""
    most = max(map(len, columns))
    return [
        (x, top - 14 * n, column[n])
        for n in range(most)
        for x, column in zip(xs, columns, strict=True)
        if n < len(column)
    ]


def as_stored(data: bytes) -> str:
    page = pypdfium2.PdfDocument(data)[0].get_textpage()
    text: str = page.get_text_range()
    return text.replace("\r\n", "\n").replace("\ufffe", "-")


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("widths", [(44, 44), (40, 30), (30, 44)])
def test_columns_stored_row_by_row_are_read_one_after_the_other(widths: tuple[int, int]) -> None:
    columns = [textwrap.wrap(LEFT, widths[0]), textwrap.wrap(RIGHT, widths[1])]
    found = extract_pdf(pdf(rows(columns, [50, 330])), "a.pdf")
    assert flat(found.text) == f"{LEFT} {RIGHT}"
    assert found.notes == ()


def test_three_columns_and_a_title_across_them() -> None:
    columns = [textwrap.wrap(text, 28) for text in (LEFT, RIGHT, LEFT)]
    lines = [(50, 730, TITLE), *rows(columns, [40, 230, 420])]
    assert flat(extract_pdf(pdf(lines), "a.pdf").text) == f"{TITLE} {LEFT} {RIGHT} {LEFT}"


def test_columns_above_and_below_a_line_across_them_stay_apart() -> None:
    above = rows([textwrap.wrap(LEFT, 40), textwrap.wrap(RIGHT, 40)], [50, 330], 700)
    below = rows([textwrap.wrap(RIGHT, 40), textwrap.wrap(LEFT, 40)], [50, 330], 500)
    found = extract_pdf(pdf([*above, (50, 560, TITLE), *below]), "a.pdf").text
    assert flat(found) == f"{LEFT} {RIGHT} {TITLE} {RIGHT} {LEFT}"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(rows([textwrap.wrap(f"{LEFT} {RIGHT}", 90)], [50]), id="one column"),
        pytest.param(
            rows([textwrap.wrap(LEFT, 40)], [50]) + rows([textwrap.wrap(RIGHT, 40)], [330]),
            id="two columns in order",
        ),
        pytest.param(
            rows([["Basic", "Premium", "Family", "Guest"], ["20", "40", "60", "5"]], [50, 330]),
            id="table",
        ),
        pytest.param(
            rows([[f"{n}." for n in range(1, 9)], textwrap.wrap(LEFT, 30)], [50, 70]),
            id="numbered lines",
        ),
    ],
)
def test_other_pages_stay_exactly_as_they_were(lines: list[tuple[int, int, str]]) -> None:
    data = pdf(lines)
    found = extract_pdf(data, "a.pdf")
    assert found.text == as_stored(data)
    assert found.notes == ()


def test_a_page_says_that_its_order_is_doubtful() -> None:
    cells = ["paid by the club", "paid by its own members", "paid for in advance", "not to be paid"]
    found = extract_pdf(pdf(rows([cells, cells[::-1]], [50, 330])), "a.pdf")
    assert found.notes == (
        "page 1: its text stands in columns or a table, and its order is doubtful",
    )
