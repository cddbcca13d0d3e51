"""Links that lead to a quote in its source: text fragments of web pages, pages of PDFs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, urldefrag

from recallm_core.answers.answer import Citation
from recallm_core.documents.document import Document
from recallm_core.rendering.visible import safe_url

_SHORT = 200  # characters of a quote that is named whole; browsers cut long addresses
_EDGE_WORDS, _EDGE_CHARACTERS = 5, 60  # of a longer one, at its beginning and at its end
_CONTEXT_WORDS, _CONTEXT_CHARACTERS = 3, 40  # beside a quote that the page holds more than once
_DIRECTIVE = ":~:"
# What ends a clause in scripts that use no spaces, and in Arabic.
_CLAUSE_ENDS = "\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f\u060c\u061b\u061f"
_WORD = re.compile(rf"[^\s{_CLAUSE_ENDS}]+[{_CLAUSE_ENDS}]*")


def quote_url(citation: Citation, document: Document | None = None) -> str | None:
    """Returns the address of a quote, or None where its source has no safe one.

    A paged source gets ``#page=N`` (RFC 8118), a web page a text fragment
    (``#:~:text=first words,last words``), at which browsers scroll to the quote and mark it
    (WICG, "URL Fragment Text Directives"); anything else, the address of the source.

    Args:
        citation: The quote.
        document: Its document, where at hand: a quote that stands in it more than once is then
            named with the words beside it.
    """
    address = safe_url(citation.source)
    if address is None:
        return None
    if citation.page is not None:
        return f"{urldefrag(address).url}#page={citation.page}"
    directive = text_directive(citation, document) if address.startswith("http") else None
    if directive is None:
        return address
    base, fragment = urldefrag(address)
    return f"{base}#{fragment.partition(_DIRECTIVE)[0]}{_DIRECTIVE}{directive}"


def text_directive(citation: Citation, document: Document | None = None) -> str | None:
    """Returns ``text=[prefix-,]start[,end][,-suffix]``; None for a quote without a word."""
    ends = _ends(citation.text)
    if ends is None:
        return None
    before, after = _context(citation, document)
    parts = [
        *([f"{_percent_encode(before)}-"] if before else []),
        *map(_percent_encode, ends),
        *([f"-{_percent_encode(after)}"] if after else []),
    ]
    return "text=" + ",".join(parts)


def _ends(text: str) -> tuple[str, ...] | None:
    """A short quote of one line whole; else its first words and its last."""
    lines = [line for line in text.splitlines() if _WORD.search(line)]
    if not lines:
        return None
    if len(lines) == 1 and len(text) <= _SHORT:
        return (" ".join(text.split()),)
    first, last = _words(lines[0]), _words(lines[-1])
    head = _outer_words(lines[0], first, _EDGE_WORDS, _EDGE_CHARACTERS)
    tail = _outer_words(lines[-1], last, -_EDGE_WORDS, _EDGE_CHARACTERS)
    return (head, tail)


def _context(citation: Citation, document: Document | None) -> tuple[str, str]:
    """Words beside a quote that its document repeats, of its own line: blocks may end there."""
    if document is None or document.text[citation.start : citation.end] != citation.text:
        return "", ""
    if document.text.count(citation.text) < 2:
        return "", ""
    reach = 4 * _CONTEXT_CHARACTERS
    before = document.text[max(0, citation.start - reach) : citation.start]
    after = document.text[citation.end : citation.end + reach]
    line = before.splitlines()[-1] if before and before[-1] not in "\r\n" else ""
    rest = after.splitlines()[0] if after else ""
    prefix = _outer_words(line, _words(line), -_CONTEXT_WORDS, _CONTEXT_CHARACTERS)
    return prefix, _outer_words(rest, _words(rest), _CONTEXT_WORDS, _CONTEXT_CHARACTERS)


def _words(line: str) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(line)]


def _outer_words(line: str, words: Sequence[tuple[int, int]], count: int, characters: int) -> str:
    """The first words of a line, or where the count is negative the last, while they are short."""
    if not words:
        return ""
    first, last = (0, 1) if count > 0 else (len(words) - 1, len(words))
    for _ in range(abs(count) - 1):
        wider = (first, last + 1) if count > 0 else (first - 1, last)
        if wider[0] < 0 or wider[1] > len(words):
            break
        if words[wider[1] - 1][1] - words[wider[0]][0] > characters:
            break
        first, last = wider
    return " ".join(line[words[first][0] : words[last - 1][1]].split())


def _percent_encode(text: str) -> str:
    """Percent-encoded; the directive's own comma and hyphen too."""
    return quote(text, safe="").replace("-", "%2D")
