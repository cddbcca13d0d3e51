"""Which kind a file is of, by its first bytes and its name, and what reads it."""

from __future__ import annotations

import re
from collections.abc import Callable

from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.kinds.archives import Archive
from recallm_core.documents.kinds.books import read_book
from recallm_core.documents.kinds.mail import read_mail
from recallm_core.documents.kinds.office import read_slides, read_word, read_workbook
from recallm_core.documents.kinds.plain import read_json, read_notebook, read_rich_text, read_values
from recallm_core.errors import DocumentError

Reader = Callable[[bytes, str, int], ExtractedText]

READERS: dict[str, Reader] = {
    ".docx": read_word,
    ".docm": read_word,
    ".pptx": read_slides,
    ".pptm": read_slides,
    ".xlsx": read_workbook,
    ".xlsm": read_workbook,
    ".csv": read_values,
    ".tsv": read_values,
    ".eml": read_mail,
    ".mht": read_mail,
    ".mhtml": read_mail,
    ".epub": read_book,
    ".ipynb": read_notebook,
    ".rtf": read_rich_text,
    ".json": read_json,
}
"""What reads a file, by the ending of its name: called with its bytes, its path or URL, and the
most characters of text that it may have."""

_OFFICE = "soffice --headless --convert-to {to} FILE"
_REFUSED = {
    "an old Word document": ((".doc", ".dot"), _OFFICE.format(to="docx")),
    "an old Excel workbook": ((".xls", ".xlsb"), _OFFICE.format(to="xlsx")),
    "an old PowerPoint presentation": ((".ppt", ".pps"), _OFFICE.format(to="pptx")),
    "an OpenDocument text": ((".odt", ".fodt"), _OFFICE.format(to="docx")),
    "an OpenDocument table": ((".ods",), _OFFICE.format(to="xlsx")),
    "an OpenDocument presentation": ((".odp",), _OFFICE.format(to="pptx")),
    "an Outlook mail": ((".msg",), "msgconvert FILE, which writes .eml"),
    "a box of mails": ((".mbox", ".pst"), "git mailsplit -oFOLDER FILE, or readpst -e FILE"),
    "a Kindle book": ((".mobi", ".azw", ".azw3"), "ebook-convert FILE book.epub"),
    "a Pages, Numbers or Keynote file": (
        (".pages", ".numbers", ".key"), "File > Export To in the app that made it"
    ),
    "a DjVu scan": ((".djvu",), "djvutxt FILE text.txt"),
    "a PostScript file": ((".ps", ".eps"), "ps2pdf FILE"),
    "a picture": (
        (".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp", ".heic"),
        "tesseract FILE text",
    ),
    "an archive": (
        (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"),
        "unpacking it, and the folder in its place",
    ),
    "a sound or a film": (
        (".mp3", ".m4a", ".wav", ".ogg", ".flac", ".mp4", ".mkv", ".mov", ".webm"),
        "a transcript of it as text",
    ),
    "a database": ((".sqlite", ".db", ".parquet", ".feather"), "writing its rows to .csv"),
}  # fmt: skip
_REFUSED_BY_SUFFIX = {
    suffix: f"{kind}, which isn't read; try {remedy}"
    for kind, (suffixes, remedy) in _REFUSED.items()
    for suffix in suffixes
}
_PARTS = {
    "word/document.xml": read_word,
    "ppt/presentation.xml": read_slides,
    "xl/workbook.xml": read_workbook,
    "META-INF/container.xml": read_book,
}
_MAIL = re.compile(
    rb"(?=[!-9;-~]{1,76}:[ \t])(?:[!-9;-~]{1,76}:[^\n]*\n(?:[ \t][^\n]*\n)*){1,200}?"
    rb"(?:MIME-Version:[ \t]*1|Content-Transfer-Encoding:[ \t]*(?:base64|quoted-printable))",
    re.IGNORECASE,
)
_HEAD = 16_384


def reader_for(data: bytes, suffix: str) -> Reader | None:
    """Returns what reads a file that isn't plain text, HTML, PDF or JSON lines; None otherwise.

    What a file is counts, its name only where that leaves it open.

    Args:
        data: The file.
        suffix: The ending of its name, in lower case.

    Raises:
        DocumentError: It is of a kind that isn't read; the message says what turns it into one.
    """
    if data.startswith(b"PK\x03\x04"):
        return _zip_reader(data, suffix)
    if data.startswith(b"{\\rtf"):
        return read_rich_text
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        known = _REFUSED_BY_SUFFIX.get(suffix, _REFUSED_BY_SUFFIX[".doc"])
        if suffix in READERS:
            known = "encrypted, or an old Office file under another name; save a copy without that"
        raise DocumentError(known)
    if suffix in (".docx", ".docm", ".pptx", ".pptm", ".xlsx", ".xlsm", ".epub"):
        raise DocumentError(f"no {suffix[1:]} file: it isn't packed as they are")
    if suffix == ".rtf":
        raise DocumentError(r"no Rich Text: it doesn't begin with {\rtf")
    if suffix in READERS:
        return READERS[suffix]
    if suffix in _REFUSED_BY_SUFFIX and not _may_be_text(data):
        raise DocumentError(_REFUSED_BY_SUFFIX[suffix])
    return read_mail if _MAIL.match(data[:_HEAD]) else None


def _zip_reader(data: bytes, suffix: str) -> Reader:
    """What reads a zip file, by what is in it."""
    names = set(Archive(data, 1 << 40).names())
    for part, reader in _PARTS.items():
        if part in names:
            return reader
    raise DocumentError(_REFUSED_BY_SUFFIX.get(suffix, _REFUSED_BY_SUFFIX[".zip"]))


def _may_be_text(data: bytes) -> bool:
    """Whether a file under the name of another kind may be plain text."""
    head = data[:_HEAD]
    return b"\0" not in head and head.isascii() and not head.startswith(b"%!PS")
