"""The text of PDF files, page by page, in the order in which it is read."""

from __future__ import annotations

from typing import Any

from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.kinds.pdf_columns import page_text
from recallm_core.documents.limited_process import pdf_process
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import DocumentError
from recallm_core.locks import ForkSafeLock

_pdfium = ForkSafeLock()  # PDFium isn't thread-safe


def extract_pdf(data: bytes, origin: str, *, max_chars: int = 50_000_000) -> ExtractedText:
    """Returns the text of a PDF file, pages joined with form feeds.

    Line ends are LF; where the file breaks a word at the end of a line, its hyphen stays and the
    line end goes. A page whose columns are stored row by row is read column by column.

    Args:
        data: The file.
        origin: Path or URL, for the source map.
        max_chars: Text beyond this is refused: small files can hold any number of pages.

    Raises:
        DocumentError: The file is malformed or encrypted, it has no text, or it takes too much
            memory or time: it is read in a process of its own, where there can be one.
    """
    answer = pdf_process.read(data, max_chars)
    if answer is None:
        return read_pdf(data, origin, max_chars=max_chars)
    try:
        fields = {name: _as_tuples(value) for name, value in answer.items()}
        stretches = {name: _as_tuples(value) for name, value in answer["source_map"].items()}
        source_map = SourceMap(**stretches | {"origin": origin})
        return ExtractedText(**fields | {"source_map": source_map})
    except (TypeError, KeyError, AttributeError) as error:
        raise DocumentError(f"the reader of PDF files gave no text ({error})") from error


def _as_tuples(value: Any) -> Any:
    """What JSON has as lists."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def read_pdf(data: bytes, origin: str, *, max_chars: int) -> ExtractedText:
    """Like ``extract_pdf``, in this process and without limits.

    Args:
        data: The file.
        origin: Path or URL, for the source map.
        max_chars: Text beyond this is refused.

    Raises:
        DocumentError: The file is malformed or encrypted, or it has no text.
    """
    import pypdfium2

    with _pdfium:
        try:
            document = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            raise DocumentError(_why_closed(error)) from None
        try:
            pages, doubtful = _pages(document, max_chars)
        except pypdfium2.PdfiumError as error:
            raise DocumentError(f"a page of the PDF can't be read ({error})") from None
        finally:
            document.close()
    if not any(page.strip() for page in pages):
        raise DocumentError(
            f"the PDF has no text on its {len(pages)} pages; if they are scans, run OCR first"
        )
    starts = [0]
    for page in pages[:-1]:
        starts.append(starts[-1] + len(page) + 1)
    numbers = tuple(range(1, len(pages) + 1))
    source_map = SourceMap(origin, tuple(starts), pages=numbers)
    return ExtractedText("\f".join(pages), None, source_map, tuple(map(_about_order, doubtful)))


def _about_order(page: int) -> str:
    return f"page {page}: its text stands in columns or a table, and its order is doubtful"


def _pages(document: Any, max_chars: int) -> tuple[list[str], list[int]]:
    """The text of each page, and the numbers of those whose order is doubtful."""
    pages: list[str] = []
    doubtful: list[int] = []
    room = max_chars
    for number in range(len(document)):
        page = document[number]
        text_page = page.get_textpage()
        text, is_doubtful = page_text(text_page)
        text_page.close()
        page.close()
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
        text = text.replace("\ufffe", "-")  # how PDFium writes a hyphen that breaks a word
        pages.append(text.encode("utf-8", "replace").decode("utf-8"))
        if is_doubtful:
            doubtful.append(number + 1)
        room -= len(text) + 1
        if room < 0:
            raise DocumentError(f"the PDF has more than {max_chars:,} characters of text")
    return pages, doubtful


def _why_closed(error: Any) -> str:
    if getattr(error, "err_code", None) == 4:  # FPDF_ERR_PASSWORD
        return "the PDF is encrypted; save a copy without a password"
    return f"the PDF is malformed ({error})"
