"""Quotes that a text's markup sets apart: block quotes, tags, and code, which holds none."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from recallm_core.checking.marks import last_reference, reference
from recallm_core.checking.written import Claim, View, WrittenQuote

TAGS = ("blockquote", "quotation", "quote", "cite", "citation", "excerpt", "evidence", "q")
TAG_LENGTH = 20_000  # characters that a tag may hold
_TAG_ROOM = 600  # characters of a tag itself
_NAMES = "|".join(TAGS)
OPEN_TAG = re.compile(rf"<(?P<name>{_NAMES})(?P<attributes>(?:\s[^<>]{{0,500}})?)>", re.IGNORECASE)
_CLOSE_TAGS = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in TAGS}
_ATTRIBUTE = re.compile(r"""([\w-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_SOURCES = frozenset(
    """
    source src doc document document_id doc_id id cite ref href title index document_index number n
    """.split()  # noqa: SIM905
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
FENCE = re.compile(r"^[ ]{0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)$", re.MULTILINE)
_QUOTED_LINE = re.compile(r"^[ ]{0,3}>[ \t]?(?P<rest>.*)$")
_CALLOUT = re.compile(r"\[![A-Za-z]+\]")
# The name under a quote: on a line of its own, or right behind a full sentence or its marks. A dash
# anywhere else is the quote's.
_BY_LINE = re.compile(
    r"""(?:\n[ \t]*|(?<=[.!?\u2026"'\u201d\u2019\u00bb\u300d)\]*_])[ \t]*)
    (?:\u2014|\u2013|--?)[ \t]*(?P<name>[^\n]{1,120}?)\s*\Z""",
    re.VERBOSE,
)
_DASHED_LINE = re.compile(r"^[ \t]*[\u2014\u2013-]", re.MULTILINE)
_LONGEST_NAME = 12  # words
_PAIRS = {"\u201c": "\u201d", '"': '"', "\u00ab": "\u00bb", "\u201e": "\u201c", "\u300c": "\u300d"}


@dataclass(frozen=True, slots=True)
class Fence:
    """A block of code.

    Attributes:
        start: Where its first line begins.
        end: One past its last line.
        body: The range of the code.
        info: What the opening says of its language.
        closed: Whether a fence ends it.
    """

    start: int
    end: int
    body: tuple[int, int]
    info: str
    closed: bool


def fences(text: str) -> Iterator[Fence]:
    """Yields the blocks of code; one without an end runs to the end of the text."""
    at = 0
    while opening := FENCE.search(text, at):
        mark = opening["fence"]
        closing = re.compile(rf"^[ ]{{0,3}}{mark[0]}{{{len(mark)},}}[ \t]*$", re.MULTILINE)
        body = min(opening.end() + 1, len(text))
        match = closing.search(text, body)
        end = match.end() if match else len(text)
        stop = match.start() if match else len(text)
        info = opening["info"].strip().lower()
        yield Fence(opening.start(), end, (body, max(body, stop)), info, match is not None)
        at = max(end, opening.end())


def quotes_in_tags(
    text: str, start: int, end: int
) -> Iterator[tuple[int, int, WrittenQuote | None]]:
    """Yields what stands in tags for quotes, with the whole element's range."""
    at = start
    barren: dict[str, int] = {}  # up to where nothing closes a tag of a name
    while opening := OPEN_TAG.search(text, at, end):
        at = opening.end()
        name, limit = opening["name"].lower(), min(end, at + TAG_LENGTH)
        closing = _CLOSE_TAGS[name].search(text, max(at, barren.get(name, 0)), limit)
        if closing is None:
            barren[name] = limit
            continue
        view = unescape(text, at, closing.start())
        nearby = reference(text, opening.start(), closing.end())
        claim = _attribute_claim(opening["attributes"]) or nearby
        a, b = _without_marks(view.text)
        yield opening.start(), closing.end(), view.quote_in(a, b, "tag", claim)
        at = closing.end()


def open_tags(text: str) -> Iterator[int]:
    """Yields where tags for quotes begin that more text could close or complete."""
    done = 0
    for start, end, _ in quotes_in_tags(text, 0, len(text)):
        yield from _open_tags(text, done, start)
        done = end
    yield from _open_tags(text, done, len(text))
    last = text.rfind("<", max(done, len(text) - _TAG_ROOM))
    if last >= 0 and ">" not in text[last:]:
        yield last


def _open_tags(text: str, start: int, end: int) -> Iterator[int]:
    for opening in OPEN_TAG.finditer(text, start, end):
        if opening.end() + TAG_LENGTH > len(text):
            yield opening.start()


def unescape(text: str, start: int, end: int) -> View:
    """A part of a text with its character references undone."""
    pieces: list[str] = []
    places: list[int] = []
    at = start
    for match in _ENTITY.finditer(text, start, end):
        character = html.unescape(match.group())
        if len(character) == 1:
            pieces += [text[at : match.start()], character]
            places += [*range(at, match.start()), match.start()]
            at = match.end()
    pieces.append(text[at:end])
    places += range(at, end + 1)
    return View("".join(pieces), places)


def _attribute_claim(attributes: str) -> Claim | None:
    names = [
        next(value for value in groups if value)
        for name, *groups in _ATTRIBUTE.findall(attributes)
        if name.lower() in _SOURCES and any(groups)
    ]
    numbers = tuple(int(name) for name in names if name.isdecimal() and len(name) < 4)
    if not names:
        return None
    return Claim(numbers, tuple(names), loose=not numbers)


def block_quotes(text: str, start: int, end: int) -> Iterator[tuple[int, int, WrittenQuote | View]]:
    """Yields Markdown's block quotes with their ranges; a callout as a view to read on in."""
    run: list[tuple[int, int]] = []
    for line in _lines(text, start, end):
        if _QUOTED_LINE.match(text[line[0] : line[1]]):
            run.append(line)
        elif run:
            yield from _block(text, run)
            run = []
    if run:
        yield from _block(text, run)


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    at = start
    while at < end:
        stop = text.find("\n", at, end)
        stop = end if stop < 0 else stop
        yield at, stop
        at = stop + 1


def _block(
    text: str, lines: list[tuple[int, int]]
) -> Iterator[tuple[int, int, WrittenQuote | View]]:
    pieces: list[str] = []
    places: list[int] = []
    for start, end in lines:
        match = _QUOTED_LINE.match(text[start:end])
        begin = start + (match.start("rest") if match else 0)
        pieces.append(text[begin:end])
        places += range(begin, end + 1)  # the line's end stands for the break
    view = View("\n".join(pieces), places)
    whole = lines[0][0], lines[-1][1]
    if _CALLOUT.match(view.text.lstrip()):
        yield *whole, view
        return
    by_line = _by_line(view.text)
    body = by_line.start() if by_line else len(view.text)
    claim = Claim(names=(by_line["name"],), loose=True) if by_line else None
    body, numbers = last_reference(view.text[:body])
    a, b = _without_marks(view.text[:body])
    claim = Claim(numbers) if numbers else claim or reference(text, *whole)
    quote = view.quote_in(a, b, "block", claim)
    if quote is not None:
        yield *whole, quote


def _by_line(text: str) -> re.Match[str] | None:
    """The name at the end of a block; None where a list, a dialogue or a sentence ends it."""
    match = _BY_LINE.search(text)
    if match is None or not text[: match.start()].strip():
        return None
    listed = len(_DASHED_LINE.findall(text)) > 1
    long = len(match["name"].split()) > _LONGEST_NAME or match["name"][-1] in "!?"
    return None if listed or long else match


def _without_marks(text: str) -> tuple[int, int]:
    """The range of a text without quotation marks around the whole of it."""
    core = text.strip()
    start = text.find(core) if core else 0
    end = start + len(core)
    close = _PAIRS.get(core[:1])
    if len(core) > 2 and close and core[1:].find(close) == len(core) - 2:
        return start + 1, end - 1
    return start, end
