"""Bytes of text files are decoded exactly or refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.documents.document import Document
from recallm_core.documents.encodings import decode
from recallm_core.errors import DocumentError


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-16-le"]
)
def test_marked_encodings_are_decoded_without_the_mark(encoding: str) -> None:
    text = "Ünïcödé 日本 👩\r\n"
    data = text.encode(encoding)
    marks = {"utf-16-be": b"\xfe\xff", "utf-16-le": b"\xff\xfe"}
    assert decode(marks.get(encoding, b"") + data) == text


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00\xd8", b"\xff\xfea", b"a\xed\xa0\x80", b"\xef\xbb\xbf\xff"]
)
def test_broken_encodings_are_refused(data: bytes) -> None:
    with pytest.raises(DocumentError, match="not utf"):
        decode(data)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_exactly_or_refused(data: bytes) -> None:
    try:
        text = decode(data)
    except DocumentError:
        return
    Document(text)
    if not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x00\x00\xfe\xff")):
        assert text.encode() == data


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("iso-8859-1", "cp1252"), ("windows-1251", "cp1251"), ("Shift_JIS", "shift_jis")],
)
def test_the_charset_of_a_page_counts_where_it_is_not_utf8(charset: str, codec: str) -> None:
    text = {"cp1252": "“café”", "cp1251": "привет", "shift_jis": "日本語"}[codec]
    page = f'<meta charset="{charset}"><p>{text}'
    assert decode(page.encode(codec), is_html=True) == page
    assert decode(page.encode(), is_html=True) == page


@pytest.mark.parametrize(
    "charset",
    ["zlib", "utf-7", "nonsense", "idna", "undefined", "unicode_escape", "raw_unicode_escape"],
)
def test_a_charset_that_is_none_is_passed_over(charset: str) -> None:
    with pytest.raises(DocumentError, match="not utf-8"):
        decode(f"<meta charset={charset}>".encode() + b"\xe9", is_html=True)
