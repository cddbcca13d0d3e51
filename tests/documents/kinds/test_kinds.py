"""Office files, mails, books and the like: read with their places, or refused by name."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import random
import re
import zipfile
from email.message import EmailMessage
from itertools import pairwise
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import CorpusIndex, RecaLLM
from recallm_core.documents.document import Document
from recallm_core.documents.kinds import plain
from recallm_core.documents.kinds.registry import READERS, reader_for
from recallm_core.documents.loading import load_documents
from recallm_core.errors import DocumentError

TEXT = "The notice period is six weeks, Zoë."
MOST = 1_000_000


def zipped(members: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def saved(made: object) -> bytes:
    out = io.BytesIO()
    made.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = "Contract"
    document.add_heading("Notice", 1)
    document.add_paragraph(TEXT)
    document.add_paragraph("Not to be seen.").runs[0].font.hidden = True
    table = document.add_table(2, 2)
    for cell, shown in zip(table._cells, ["plan", "price", "Premium", "40 euros"], strict=True):
        cell.text = shown
    return saved(document)


def slides() -> bytes:
    deck = pptx.Presentation()
    for title, said in (("One", TEXT), ("Two", "Boats are paid for in October.")):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = said
    deck.slides[1].notes_slide.notes_text_frame.text = "Say it slowly."
    return saved(deck)


def workbook() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Fees"
    for row in (["plan", "price", "from"], ["Basic", 20, datetime.datetime(2024, 5, 1)],
                [None] * 3, ["Premium", 40.5, None]):  # fmt: skip
        sheet.append(row)
    book.create_sheet("Secret").append(["hidden"])
    book["Secret"].sheet_state = "hidden"
    return saved(book)


def mail() -> bytes:
    message = EmailMessage()
    message["From"], message["To"] = "a@example.org", "b@example.org"
    message["Subject"] = "Contract for Zoë"
    message.set_content(TEXT, cte="base64")
    message.add_alternative(f"<p>{TEXT} In HTML.</p>", subtype="html")
    message.add_attachment(b"\x00\x01", maintype="application", subtype="pdf", filename="offer.pdf")
    message.add_attachment("An attached note.", filename="note.txt")
    inner = EmailMessage()
    inner["Subject"] = "Inner"
    inner.set_content("An attached mail.")
    message.add_attachment(inner)
    return message.as_bytes()


def book() -> bytes:
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/a.opf"/></rootfiles></container>'
    )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata>'
        '<dc:title xmlns:dc="http://purl.org/dc/elements/1.1/">Boats</dc:title></metadata><manifest>'
        '<item id="b" href="two.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="a" href="o%20ne.xhtml" media-type="application/xhtml+xml"/>'
        '</manifest><spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
    )
    return zipped({
        "META-INF/container.xml": container,
        "OEBPS/a.opf": package,
        "OEBPS/two.xhtml": "<p>Second chapter.</p>",
        "OEBPS/o ne.xhtml": f"<p>{TEXT}</p>",
    })  # fmt: skip


def notebook() -> bytes:
    cells = [
        {"cell_type": "markdown", "source": ["# Fees\n", TEXT]},
        {"cell_type": "code", "source": "print(fee)", "outputs": [
            {"output_type": "stream", "text": ["240\n"]},
            {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}},
        ]},
    ]  # fmt: skip
    return json.dumps({"cells": cells, "nbformat": 4}).encode()


RICH = rb"{\rtf1\ansi\ansicpg1252 The notice \b period\b0  is six weeks, Zo\'eb.\par}"
OFFERS = json.dumps({"offers": [{"name": TEXT, "price": 40, "old": None}], "n": []}).encode()
VALUES = b'plan,price\nPremium,"40\neuros"\nBasic,20\n'

FILES = {
    "a.docx": word(),
    "a.pptx": slides(),
    "a.xlsx": workbook(),
    "a.eml": mail(),
    "a.epub": book(),
    "a.ipynb": notebook(),
    "a.rtf": RICH,
    "a.json": OFFERS,
    "a.csv": VALUES,
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    folder = tmp_path_factory.mktemp("kinds")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    named = load_documents([folder / name for name in FILES])
    walked = load_documents(folder)
    assert named.skipped == walked.skipped == ()
    assert {d.id: d.text for d in named} == {d.id: d.text for d in walked}
    return {document.id: document for document in named}


@pytest.mark.parametrize(
    ("name", "quote", "place"),
    [
        ("a.docx", TEXT, "paragraph 2"),
        ("a.docx", "Premium\t40 euros", "table 1, row 2"),
        ("a.pptx", TEXT, "slide 1"),
        ("a.pptx", "Boats are paid for in October.", "slide 2"),
        ("a.pptx", "Say it slowly.", "slide 2, notes"),
        ("a.xlsx", "plan: Basic\tprice: 20\tfrom: 2024-05-01", "sheet Fees, row 2"),
        ("a.xlsx", "plan: Premium\tprice: 40.5", "sheet Fees, row 4"),
        ("a.eml", "Subject: Contract for Zoë", "heads"),
        ("a.eml", TEXT, "part 1"),
        ("a.eml", "Attachment: offer.pdf (application/pdf, 2 bytes)", "part 2: offer.pdf"),
        ("a.eml", "An attached note.", "part 3: note.txt"),
        ("a.eml", "An attached mail.", "mail 4, part 1"),
        ("a.epub", TEXT, "OEBPS/o ne.xhtml"),
        ("a.epub", "Second chapter.", "OEBPS/two.xhtml"),
        ("a.ipynb", TEXT, "cell 1"),
        ("a.ipynb", "240", "cell 2, output"),
        ("a.rtf", TEXT, None),
        ("a.json", f"offers[0].name: {TEXT}", "offers[0].name"),
        ("a.json", "offers[0].price: 40", "offers[0].price"),
        ("a.csv", 'Premium,"40\neuros"', "row 2"),
        ("a.csv", "Basic,20", "row 3"),
    ],
)
def test_text_is_read_with_its_place(
    read: dict[str, Document], name: str, quote: str, place: str | None
) -> None:
    document = read[name]
    start = document.text.index(quote)
    assert document.place_at(start) == place
    assert document.place_at(start + len(quote) - 1) == place


def test_pages_titles_and_what_is_left_out(read: dict[str, Document]) -> None:
    slides = read["a.pptx"]
    assert [slides.page_at(slides.text.index(s)) for s in (TEXT, "Boats", "slowly")] == [1, 2, 2]
    assert [read[name].title for name in ("a.docx", "a.epub", "a.eml", "a.rtf")] == [
        "Contract", "Boats", "Contract for Zoë", "a.rtf",
    ]  # fmt: skip
    assert "Not to be seen" not in read["a.docx"].text
    assert "hidden" not in read["a.xlsx"].text
    assert "In HTML" not in read["a.eml"].text
    assert "iVBOR" not in read["a.ipynb"].text
    assert read["a.csv"].text == VALUES.decode()


def reason(tmp_path: Path, name: str, data: bytes) -> str:
    (tmp_path / name).write_bytes(data)
    loaded = load_documents(tmp_path / name)
    assert loaded.documents == ()
    (skipped,) = loaded.skipped
    return skipped.reason


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.xlsx", "a.epub", "a.rtf", "a.eml"])
def test_a_file_is_known_by_what_it_holds(tmp_path: Path, name: str) -> None:
    for other in ("plain.txt", "no ending"):
        (tmp_path / other).write_bytes(FILES[name])
    loaded = load_documents([tmp_path / "plain.txt", tmp_path / "no ending"])
    assert len(loaded.documents) == 2
    encoded = base64.b64encode(TEXT.encode())[:20].decode()
    for document in loaded:
        assert encoded not in document.text
        assert "six weeks" in document.text or "Premium" in document.text


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("a.doc", b"\xd0\xcf\x11\xe0" + bytes(99), "an old Word document, .* --convert-to docx"),
        ("a.xls", b"\xd0\xcf\x11\xe0" + bytes(99), "an old Excel workbook"),
        ("a.docx", b"\xd0\xcf\x11\xe0" + bytes(99), "encrypted"),
        ("a.odt", zipped({"content.xml": "<a/>"}), "an OpenDocument text, .* --convert-to docx"),
        ("a.zip", zipped({"a.txt": "x"}), "an archive"),
        ("a.txt", zipped({"a.txt": "x"}), "an archive"),
        ("a.png", b"\x89PNG" + bytes(range(256)), "a picture, .* tesseract"),
        ("a.docx", b"plain text", "no docx file"),
        ("a.docx", word()[:-200], "damaged"),
        ("a.xlsx", zipped({"xl/workbook.xml": "<a/>"}), "damaged"),
        ("a.rtf", b"plain text", "no Rich Text"),
        ("a.json", b"{", "no JSON"),
        ("a.json", b"[" * 100_000, "nested too deeply|no JSON"),
        ("a.json", b"[" * 500 + b"]" * 500, "nested"),
        ("a.ipynb", b"[]", "cells"),
        ("a.eml", b"just words", "heads"),
        ("a.docx", zipped({"word/document.xml": "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"}),
         "declares its own entities"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(tmp_path: Path, name: str, data: bytes, wanted: str) -> None:
    assert re.search(wanted, reason(tmp_path, name, data))


@pytest.mark.parametrize("part", ["word/document.xml", "xl/workbook.xml", "META-INF/container.xml"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, part: str) -> None:
    data = zipped({part: "<a/>", "bomb": bytes(30_000_000)})
    (tmp_path / "a.docx").write_bytes(data)
    loaded = load_documents(tmp_path / "a.docx", max_bytes=1_000_000)
    assert "unpacked it has 2 parts and 30,000,004 bytes" in loaded.skipped[0].reason


def test_too_much_text_is_refused() -> None:
    with pytest.raises(DocumentError, match="more than 10 characters"):
        READERS[".json"](OFFERS, "a", 10)


@pytest.mark.parametrize("name", sorted(FILES))
def test_broken_files_are_read_or_refused_but_never_crash(name: str) -> None:
    dice = random.Random(name)
    whole = FILES[name]
    for _ in range(40):
        broken = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        data = bytes(broken[: dice.randint(len(broken) // 2, len(broken))])
        try:
            reader = reader_for(data, Path(name).suffix)
            found = reader(data, name, MOST) if reader else None
        except DocumentError:
            continue
        if found is not None:
            Document(found.text, source_map=found.source_map)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(JSON)
def test_every_string_of_a_json_file_can_be_quoted(value: object) -> None:
    data = json.dumps(value).encode()
    found = plain.read_json(data, "a.json", MOST)
    document = Document(found.text, source_map=found.source_map)

    def strings(inner: object) -> list[str]:
        if isinstance(inner, str):
            return [inner]
        inners = inner if isinstance(inner, list) else ()
        inners = inner.values() if isinstance(inner, dict) else inners
        return [each for one in inners for each in strings(one)]

    assert all(each in document.text for each in strings(value) if each.strip())


@given(st.lists(st.lists(st.text(alphabet='ab,"\n é', max_size=5), min_size=2), min_size=1))
def test_every_row_of_a_table_has_its_number(rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    found = plain.read_values(out.getvalue().encode(), "a.csv", MOST)
    assert found.text == out.getvalue()
    assert found.source_map.places == tuple(f"row {n}" for n in range(1, len(rows) + 1))
    cuts = [*found.source_map.starts, len(found.text)]
    parts = [found.text[a:b] for a, b in pairwise(cuts)]
    assert [next(csv.reader(io.StringIO(part, newline=""))) for part in parts] == rows


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("plan,price\nBasic,20\n", "a.csv: plan, price"),
        ("plan;monthly, net\nBasic;20\n", "a.csv: plan, monthly, net"),
        ("plan\tprice\nBasic\t20\n", "a.csv: plan, price"),
        ('"plan\nname",price\nBasic,20\n', "a.csv: plan name, price"),
        ("country,2019,2020\nMalta,1,2\n", "a.csv: country, 2019, 2020"),
        ("Basic,20\nPremium,40\n", "a.csv"),
        ("a,a\nb,c\n", "a.csv"),
        ("plan,price\n", "a.csv"),
        ("plan,\nBasic,20\n", "a.csv"),
        ("anna@example.org,Anna\nb@example.org,Bo\n", "a.csv"),
        ("just text\nin lines\n", "a.csv"),
        (",".join(f"column {n:03d}" for n in range(99)) + "\n1\n", "…"),
    ],
)
def test_the_headings_of_a_table_stand_in_its_title(
    tmp_path: Path, content: str, title: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    (document,) = load_documents(tmp_path)
    assert document.text == content
    assert document.title
    assert len(document.title) < 320
    assert document.title == title or (title == "…" and document.title.endswith("024, …"))


def test_a_row_is_found_and_shown_by_the_headings_of_its_columns(tmp_path: Path) -> None:
    rows = "".join(f"Boat {n},{n}7,{n % 3}\n" for n in range(400))
    (tmp_path / "a.csv").write_text(f"vessel,draught,berth\n{rows}")
    (tmp_path / "b.csv").write_text(f"member,fee,year\n{rows.replace('Boat', 'Anna')}")
    loaded = load_documents(tmp_path)
    index = CorpusIndex.build(loaded)
    hits = index.search("draught of a vessel", 5)
    assert {hit.document_id for hit in hits} == {"a.csv"}
    llm = RecaLLM.load("recallm-mini")
    question = [{"role": "user", "content": "Which berth has Boat 350?"}]
    prompt = llm.prepare(question, index, max_new_tokens=50)[0]
    text = next(p.text for p in prompt.passages if "Boat 350," in p.text)
    assert "vessel" not in text
    assert "a.csv: vessel, draught, berth" in {p.title for p in prompt.passages if p.text == text}
    assert "vessel" in llm.tokenizer.decode(prompt.token_ids)


def test_a_citation_names_the_place(read: dict[str, Document]) -> None:
    answer = RecaLLM.load("recallm-mini").answer("How long is the notice period?", [read["a.eml"]])
    assert {citation.place for citation in answer.citations} == {"part 1"}
    assert f"{read['a.eml'].source_map.origin}, part 1" in answer.to_markdown()
    assert answer.to_dict()["citations"][0]["place"] == "part 1"


WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
SLIDE = (
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
)
WORDS = "<w:p><w:r><w:t>words</w:t></w:r></w:p>"
BODY = "<p:txBody><a:p><a:r><a:t>words</a:t></a:r></a:p></p:txBody>"
MAIL = b"Subject: Fees\nMIME-Version: 1.0\n%b\n\nwords"


def body(content: str) -> bytes:
    return zipped(
        {"word/document.xml": f"<w:document {WORD}><w:body>{content}</w:body></w:document>"}
    )


def deck(slide: str, times: int) -> bytes:
    listed = '<p:sldId r:id="r1"/>' * times
    return zipped({
        "ppt/presentation.xml": f"<p:presentation {SLIDE}>{listed}</p:presentation>",
        "ppt/_rels/presentation.xml.rels": '<R><Relationship Id="r1" Target="s.xml"/></R>',
        "ppt/s.xml": f"<p:sld {SLIDE}>{slide}</p:sld>",
    })  # fmt: skip


def with_sheet(old: str, new: str) -> bytes:
    """The workbook with something else in its first sheet."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(FILES["a.xlsx"])) as whole, zipfile.ZipFile(out, "w") as made:
        for name in whole.namelist():
            content = whole.read(name).decode()
            if name == "xl/worksheets/sheet1.xml":
                assert re.search(old, content)
                content = re.sub(old, new, content)
            made.writestr(name, content)
    return out.getvalue()


@pytest.mark.timeout(60)  # some of these took minutes, or for ever
@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("controls.docx", body("<w:sdt><w:sdtContent>" * 3000 + WORDS
                               + "</w:sdtContent></w:sdt>" * 3000), "words"),
        ("tables.docx", body(("<w:tbl><w:tr><w:tc>" + WORDS) * 400
                             + "</w:tc></w:tr></w:tbl>" * 400), " ".join(["words"] * 400)),
        ("slides.pptx", deck(BODY + "<a:x/>" * 30_000, 3000), "words"),
        ("bodies.pptx", deck("<p:txBody>" * 500 + "<a:p><a:r><a:t>words</a:t></a:r></a:p>"
                             + "</p:txBody>" * 500, 1), "words"),
        ("row.xlsx", with_sheet('<row r="4"', '<row r="999999999"'), "row 1,048,576, Excel's last"),
        ("size.xlsx", with_sheet('<dimension ref="[^"]*"', '<dimension ref="A1"'), "40.5"),
        (
            "wide.xlsx",
            with_sheet('<dimension ref="[^"]*"', '<dimension ref="A1:XFD1048576"'),
            "40.5",
        ),
        ("key.json", b'{"%b": [%b1]}' % (b"k" * 200_000, b"1," * 200_000), "characters of text"),
        ("from.eml", MAIL % (b"From: " + b"a <a@b.c>, " * 50_000), "From: a <a@b.c>, a"),
        ("subject.eml", MAIL.replace(b"Fees", b"=?utf-8?q?Fee?= " * 20_000) % b"To: a", "FeeFee"),
        ("type.eml", MAIL % (b"Content-Type: text/plain; " + b'a="' * 50_000), "words"),
        ("parts.eml", MAIL % (b"Content-Type: multipart/mixed; boundary=b\n"
                              + b"\n--b\n\nx" * 30_000), "more than 1,000 parts"),
    ],
)  # fmt: skip
def test_small_files_that_would_take_for_ever_don_t(
    tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(data)
    loaded = load_documents(tmp_path / name)
    shown = [d.text for d in loaded] + [skipped.reason for skipped in loaded.skipped]
    assert expected in shown[0]


def test_what_no_browser_shows_of_a_part_is_left_out_and_reported(tmp_path: Path) -> None:
    page = b"Content-Type: text/html\n\n<p>shown<div hidden>secret</div>"
    (tmp_path / "a.eml").write_bytes(b"Subject: Fees\nMIME-Version: 1.0\n" + page)
    loaded = load_documents(tmp_path)
    assert loaded.documents[0].text == "Subject: Fees\n\nshown"
    assert [note.text for note in loaded.notes] == [
        "part 1: 6 characters that no browser shows were left out"
    ]


def test_a_place_is_text_whatever_a_key_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"\\ud800": "The fee is due."}')
    (document,) = load_documents(tmp_path)
    assert document.place_at(0) == "?"
    CorpusIndex.build([document], path=tmp_path / "index")
