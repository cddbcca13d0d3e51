"""The text of files: decoded bytes, HTML pages and PDF files, mapped back to lines and pages."""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from recallm_core.documents.document import SourceMap
from recallm_core.documents.kinds.pdf_columns import page_text
from recallm_core.documents.limited_process import pdf_process
from recallm_core.errors import DocumentError
from recallm_core.locks import ForkSafeLock

_UNREAD = frozenset({"nav", "template", "svg", "canvas", "object"})
_RAW = frozenset({"script", "style", "iframe", "noembed", "noframes", "noscript", "title"})
_PARAGRAPHS = (
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre"),
    *("article", "section", "header", "footer", "main", "aside", "figure", "form", "fieldset"),
    *("details", "hr"),
)
_LINES = (
    *("div", "li", "tr", "dt", "dd", "option", "figcaption", "caption", "summary", "thead"),
    *("tbody", "tfoot", "address", "legend", "html", "body"),
)
_LINES_APART = dict.fromkeys(_PARAGRAPHS, 2) | dict.fromkeys(_LINES, 1)
_MARKUP = re.compile(r"<(?=[a-zA-Z/!?])")
_TAG = re.compile(r"</?([a-zA-Z][^\s/>]*)")
_TAG_PART = re.compile(r">|=\s*([\"'])")
_RAW_END = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in _RAW}
_ATTRIBUTE = re.compile(
    r"(?P<name>[^\s\"'<>/=]+)"
    r"(?:\s*=\s*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[^\s\"'>]+)))?"
)
_HIDING = re.compile(
    r"(?:^|;)(?:display:none|visibility:(?:hidden|collapse)|content-visibility:hidden"
    r"|opacity:0*\.?0+%?|font-size:0*\.?0+(?:px|pt|r?em|%)?)(?:!important)?(?:;|$)"
)
_UNSHOWN = frozenset({"datalist", "audio", "video", "rp"})  # what is in them stands for something
_STYLE_NOTE = re.compile(r"/\*.*?\*/", re.DOTALL)
_LONGEST_TAG = 10_000  # characters of a tag whose attributes are looked at
_DEEPEST_HIDDEN = 200  # elements that a closing tag in a hidden one can end at once
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param"}
    | {"source", "track", "wbr"}
)
# What begins ends a hidden element that has no end of its own; and whose end does.
_ENDED_BY: dict[str, frozenset[str]] = {
    "p": frozenset(_PARAGRAPHS) | {"div", "address"},
    "li": frozenset({"li"}),
    "dt": frozenset({"dt", "dd"}),
    "dd": frozenset({"dt", "dd"}),
    "tr": frozenset({"tr", "tbody", "tfoot"}),
    "td": frozenset({"td", "th", "tr"}),
    "th": frozenset({"td", "th", "tr"}),
    "option": frozenset({"option", "optgroup"}),
}
_CLOSERS: dict[str, frozenset[str]] = {
    "ul": frozenset({"li"}),
    "ol": frozenset({"li"}),
    "dl": frozenset({"dt", "dd"}),
    "table": frozenset({"tr", "td", "th", "tbody", "thead", "tfoot"}),
    "tr": frozenset({"td", "th"}),
    "select": frozenset({"option"}),
    "div": frozenset({"p"}),
    "section": frozenset({"p"}),
    "article": frozenset({"p"}),
    "main": frozenset({"p"}),
}
_BLANKS = re.compile(r"[ \t\n\r\f\v]+")

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

_pdfium = ForkSafeLock()  # PDFium isn't thread-safe


@dataclass(frozen=True, slots=True)
class Extracted:
    """The text of a file that isn't plain text.

    Attributes:
        text: The text.
        title: The title that the file gives itself.
        source_map: How the text maps to the file.
        notes: What a reader of the text should know, for people: what was left out, and where the
            order of the text is doubtful.
    """

    text: str
    title: str | None
    source_map: SourceMap
    notes: tuple[str, ...] = ()


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


def extract_html(source: str, origin: str, *, keep_hidden: bool = False) -> Extracted:
    """Returns the text of an HTML page as a reader sees it.

    Scripts, styles and navigation are left out, and what a browser wouldn't show: elements that
    are ``hidden``, closed dialogs, what closed ``details`` hold but for their summary, those whose
    own style says ``display: none`` or ``visibility: hidden``, and copies for the eye only
    (``aria-hidden``). Blanks collapse as in a browser, blocks stand on lines of their own. One
    pass, whatever is broken in the page: unlike the standard library's parser it takes linear time
    on tags that never end.

    Args:
        source: The page.
        origin: Path or URL, for the source map.
        keep_hidden: Also read what a browser wouldn't show, but for scripts, styles and templates.
    """
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    page = _Page(source, _UNREAD, keep_hidden=keep_hidden)
    if page.unread:  # it never ended: better to read navigation than nothing
        page = _Page(source, frozenset({"template"}), keep_hidden=keep_hidden)
    text = "".join(page.pieces)
    title = " ".join("".join(page.title).split()) or None
    source_map = SourceMap(origin, tuple(page.starts or [0]), lines=tuple(page.lines or [1]))
    notes = (_about_hidden(page.hidden),) if page.hidden else ()
    return Extracted(text, title, source_map, notes)


def _about_hidden(characters: int) -> str:
    return (
        f"{characters:,} characters that no browser shows were left out; "
        "keep_hidden=True reads them"
    )


class _Page:
    """Reads a page from start to end; every method goes forward only."""

    def __init__(self, source: str, unread_names: frozenset[str], *, keep_hidden: bool) -> None:
        self.pieces: list[str] = []
        self.starts: list[int] = []
        self.lines: list[int] = []
        self.title: list[str] = []
        self.unread = ""  # the element being left out, and how deep it is nested in itself
        self._depth = 0
        self._unread_names = unread_names
        self._keep_hidden = keep_hidden
        self._inside: list[str] = []  # the open elements from the hidden one inwards
        self._is_labelled = False  # whether a closed details has shown its summary, or shows none
        self._summaries = 0  # of closed details, that are being read
        self.hidden = 0  # characters that were left out as no browser shows them
        self._pre = 0
        self._length = 0
        self._line_at_end = 0  # the source line that the map gives for the end of the text
        self._gap = ""
        self._newlines = 0
        self._source = source
        self._read()

    def _read(self) -> None:
        source, at, line = self._source, 0, 1
        while at < len(source):
            tag = _MARKUP.search(source, at)
            end = tag.start() if tag else len(source)
            if end == at:
                end = self._markup(at)
            elif self._inside:
                self.hidden += len("".join(source[at:end].split()))
            elif not self.unread:
                self._text(source[at:end], line)
            line += source.count("\n", at, end)
            at = end

    def _markup(self, at: int) -> int:
        """Reads what a ``<`` begins and returns where it ends."""
        source = self._source
        if match := _TAG.match(source, at):
            name = match[1].lower()
            end = self._end_of_tag(match.end())
            if self._inside and self._is_inside(name, at, end):
                pass
            elif source[at + 1] == "/":
                self._close(name)
            elif name in _RAW:
                closing = _RAW_END[name].search(source, end)
                inner, end = end, closing.start() if closing else len(source)
                if name == "title" and not (self.unread or self.title):
                    self.title.append(_unescape(source[inner:end]))
            elif not self.unread and self._is_hidden(name, source[at:end]):
                self._inside.append(name)
                self._is_labelled = True
            elif not self.unread and self._is_closed(name, source[at:end]):
                self._separate(name)
                self._inside.append(name)
                self._is_labelled = False
            else:
                self._open(name, closed=source.endswith("/>", at, end))
                end += name == "pre" and source.startswith("\n", end)
            return end
        if source.startswith("<!--", at):
            stop = source.find("-->", at + 2)
            return len(source) if stop < 0 else stop + 3
        stop = source.find(">", at)
        return len(source) if stop < 0 else stop + 1

    def _is_hidden(self, name: str, tag: str) -> bool:
        """Whether a browser wouldn't show an element that a tag begins."""
        if self._keep_hidden or name in _VOID or len(tag) > _LONGEST_TAG:
            return False
        attributes = dict(_attributes(tag))
        style = "".join(_STYLE_NOTE.sub("", attributes.get("style", "")).lower().split())
        return (
            name in _UNSHOWN
            or ("hidden" in attributes and attributes["hidden"].lower() != "until-found")
            or (name == "dialog" and "open" not in attributes)
            or attributes.get("aria-hidden", "").strip().lower() == "true"
            or _HIDING.search(style) is not None
        )

    def _is_closed(self, name: str, tag: str) -> bool:
        """Whether a browser shows nothing but the summary of an element that a tag begins."""
        if self._keep_hidden or name != "details" or len(tag) > _LONGEST_TAG:
            return False
        return "open" not in dict(_attributes(tag))

    def _is_inside(self, name: str, at: int, end: int) -> bool:
        """Follows a tag within a hidden element; False where the tag ends that from outside."""
        source, inside = self._source, self._inside
        if source[at + 1] == "/":
            if name in inside[-_DEEPEST_HIDDEN:]:
                while inside.pop() != name:
                    pass
                return True
            if name in _CLOSERS and inside[0] not in _CLOSERS[name]:
                return True
            is_over = name in _CLOSERS
        elif name == "summary" and inside == ["details"] and not self._is_labelled:
            self._summaries += 1
            is_over = True
        else:
            is_over = len(inside) == 1 and name in _ENDED_BY.get(inside[0], ())
            if not (is_over or name in _VOID or name in _RAW or source.endswith("/>", at, end)):
                inside.append(name)
        if is_over:
            inside.clear()
        return not is_over

    def _end_of_tag(self, at: int) -> int:
        while match := _TAG_PART.search(self._source, at):
            if not match[1]:
                return match.end()
            at = self._source.find(match[1], match.end()) + 1
            if not at:
                break
        return len(self._source)

    def _open(self, name: str, *, closed: bool) -> None:
        if self.unread:
            self._depth += name == self.unread and not closed
        elif name in self._unread_names:
            if not closed:
                self.unread, self._depth = name, 1
        elif name == "br":
            self._newlines += 1
        else:
            self._pre += name == "pre"
            self._separate(name)

    def _close(self, name: str) -> None:
        if self.unread:
            self._depth -= name == self.unread
            if not self._depth:
                self.unread = ""
            return
        self._pre = max(0, self._pre - (name == "pre"))
        self._separate(name)
        if self._summaries and name in ("summary", "details"):
            self._summaries -= 1
            self._inside += ["details"] * (name == "summary")
            self._is_labelled = True

    def _separate(self, name: str) -> None:
        if name in ("td", "th"):
            self._gap = "\t"
        self._newlines = max(self._newlines, _LINES_APART.get(name, 0))

    def _text(self, raw: str, line: int) -> None:
        for number, part in enumerate(raw.split("\n")):
            if number:
                if self._pre:
                    self._newlines += 1
                self._gap = self._gap or " "
            text = _unescape(part)  # newlines in it were written as character references
            if self._pre:
                self._preformatted(text, line + number)
                continue
            text = _BLANKS.sub(" ", text)
            if text.startswith(" "):
                self._gap = self._gap or " "
            if shown := text.strip(" "):
                self._emit(shown, line + number)
                self._gap = " " if text.endswith(" ") else ""

    def _preformatted(self, text: str, line: int) -> None:
        for number, part in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")):
            self._newlines += number > 0
            if part:
                self._emit(part, line)

    def _emit(self, text: str, line: int) -> None:
        if self._length:
            gap = "\n" * self._newlines or self._gap
            self._append(gap)
        if line != self._line_at_end:
            self.starts.append(self._length)
            self.lines.append(line)
            self._line_at_end = line
        self._append(text)
        self._newlines, self._gap = 0, ""

    def _append(self, text: str) -> None:
        self.pieces.append(text)
        self._length += len(text)
        self._line_at_end += text.count("\n")


def _attributes(tag: str) -> Iterator[tuple[str, str]]:
    """The attributes of a tag; the first of a name counts, so it comes last."""
    name = _TAG.match(tag)
    for match in reversed(list(_ATTRIBUTE.finditer(tag, name.end() if name else 0))):
        value = match["double"] or match["single"] or match["bare"] or ""
        yield match["name"].lower(), _unescape(value)


def _unescape(text: str) -> str:
    if "&" not in text:
        return text
    try:
        return html.unescape(text)
    except ValueError:  # a character reference with thousands of digits
        return text


def extract_pdf(data: bytes, origin: str, *, max_chars: int = 50_000_000) -> Extracted:
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
        return Extracted(**fields | {"source_map": source_map})
    except (TypeError, KeyError, AttributeError) as error:
        raise DocumentError(f"the reader of PDF files gave no text ({error})") from error


def _as_tuples(value: Any) -> Any:
    """What JSON has as lists."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def read_pdf(data: bytes, origin: str, *, max_chars: int) -> Extracted:
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
    return Extracted("\f".join(pages), None, source_map, tuple(map(_about_order, doubtful)))


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
