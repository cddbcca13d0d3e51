"""Electronic books (EPUB), chapter by chapter."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from recallm_core.documents.encodings import decode
from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.html_page import extract_html
from recallm_core.documents.kinds.archives import Archive
from recallm_core.documents.kinds.pieces import Pieces
from recallm_core.errors import DocumentError

_OPF = "{http://www.idpf.org/2007/opf}"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_CONTAINER = "META-INF/container.xml"
_ROOTFILE = "{urn:oasis:names:tc:opendocument:xmlns:container}rootfile"


def read_book(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns the text of a book in reading order; each chapter's place is its file's name."""
    archive = Archive(data, limit)
    if "META-INF/encryption.xml" in archive and "META-INF/rights.xml" in archive:
        raise DocumentError("the book is encrypted")
    root = archive.xml(_CONTAINER).find(f".//{_ROOTFILE}")
    main = root.get("full-path", "") if root is not None else ""
    package = archive.xml(main)
    pieces = Pieces(limit)
    for name in dict.fromkeys(_chapters(package, posixpath.dirname(main))):
        if name in archive:
            page = extract_html(decode(archive.read(name), is_html=True), origin)
            pieces.add_page(page, name)
    title = package.find(f".//{_TITLE}")
    named = " ".join((title.text or "").split()) if title is not None else ""
    return ExtractedText(
        pieces.text(), named or None, pieces.source_map(origin), tuple(pieces.notes)
    )


def _chapters(package: Element, folder: str) -> Iterator[str]:
    files = {
        item.get("id"): posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        for item in package.iter(f"{_OPF}item")
        if "html" in item.get("media-type", "")
    }
    for reference in package.iter(f"{_OPF}itemref"):
        if reference.get("idref") in files:
            yield files[reference.get("idref")]
