"""The text of an HTML page as a reader sees it, mapped back to the lines of its source."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.source_map import SourceMap

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


def extract_html(source: str, origin: str, *, keep_hidden: bool = False) -> ExtractedText:
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
    return ExtractedText(text, title, source_map, notes)


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
                self._emit_preformatted(text, line + number)
                continue
            text = _BLANKS.sub(" ", text)
            if text.startswith(" "):
                self._gap = self._gap or " "
            if shown := text.strip(" "):
                self._emit(shown, line + number)
                self._gap = " " if text.endswith(" ") else ""

    def _emit_preformatted(self, text: str, line: int) -> None:
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
