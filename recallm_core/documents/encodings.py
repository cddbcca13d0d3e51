"""Which encoding the bytes of a text file are in; bytes that are no text are refused."""

from __future__ import annotations

import codecs
import re

from recallm_core.errors import DocumentError

_BOMS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}[\"']?([\w.:-]{1,40})", re.IGNORECASE
)
# Codecs of Python's that no page is written in: one reads escapes, one fails on everything.
_NO_CHARSETS = frozenset({"utf-7", "idna", "punycode", "undefined", "mbcs", "oem"}) | {
    "unicode-escape",
    "raw-unicode-escape",
}
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b\b"))


def decode(data: bytes, *, is_html: bool = False) -> str:
    """Decodes a text file: by its byte order mark, else UTF-8, else the charset of an HTML page.

    Raises:
        DocumentError: No encoding fits, or the bytes are no text.
    """
    encodings = [name for bom, name in _BOMS if data.startswith(bom)][:1]
    if not encodings:
        _refuse_binary(data)
        declared = _CHARSET.search(data[:4096]) if is_html else None
        encodings = _order("utf-8", declared[1].decode() if declared else None)
    first: UnicodeDecodeError | None = None
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            first = first or error
    byte = f"byte 0x{data[first.start]:02X} at {first.start:,}" if first else "nothing fits"
    raise DocumentError(
        f"not {' or '.join(encodings)} ({byte}); convert it, for instance with "
        "iconv -f WINDOWS-1252 -t UTF-8"
    )


def _refuse_binary(data: bytes) -> None:
    head = data[:65_536]
    odd = len(head) - len(head.translate(None, _CONTROLS))
    if odd * 20 > len(head) and odd > 3:
        raise DocumentError("a binary file, or text in an encoding without its byte order mark")


def _order(default: str, charset: str | None) -> list[str]:
    """Returns the encodings to try; a charset that looks like ASCII when encoded goes first."""
    try:
        info = codecs.lookup(charset or default)
    except LookupError:
        return [default]
    name = info.name.replace("_", "-")
    if not info._is_text_encoding or name in _NO_CHARSETS or name == default:
        return [default]
    name = "cp1252" if info.name in ("iso8859-1", "ascii") else info.name  # as browsers do
    return [name, default] if name.startswith(("iso2022", "hz")) else [default, name]
