"""An answer as HTML: one page that needs nothing else, or a fragment for a notebook."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape as _escape

from recallm_core.answers.answer import Answer, Citation
from recallm_core.answers.trace import Reasoning, RecallSpan
from recallm_core.rendering.layout import (
    CONTEXT,
    GRADES,
    MOST_NEAREST,
    NEAREST,
    NOT_FOUND,
    WHOLE,
    Excerpt,
    Piece,
    Source,
    answer_pieces,
    elsewhere,
    markers,
    place_of,
    sources,
)
from recallm_core.rendering.links import quote_url
from recallm_core.rendering.style import NOTEBOOK_STYLE, PAGE_STYLE, SCRIPT, STYLE
from recallm_core.rendering.visible import one_line, safe_url, visible_runs, visible_slice

NAMES = 200  # unquoted documents listed by name


def to_html(answer: Answer) -> str:
    """Returns a self-contained page: the answer beside its sources, each quote marked there.

    Citations are links that jump to their quote and back; they work without the script. The page's
    policy allows its own style and script and nothing else, so it can't reach the network.
    Documents of more than a few pages are shown as excerpts around the quotes.

    Raises:
        CitationError: A quote isn't the slice of the document it names.
    """
    style = STYLE + PAGE_STYLE + _target_rules("r", len(answer.citations))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    question = one_line(answer.question)
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="referrer" content="no-referrer">\n',
            '<meta http-equiv="x-dns-prefetch-control" content="off">\n',
            f"<title>{_escape(question or 'Answer')}</title>\n",
            f'<style>{style}</style>\n</head>\n<body class="recallm page" id="r">\n',
            f"<header><h1>{_text(answer.question.strip() or 'Answer')}</h1></header>\n<main>\n",
            '<section class="answer" aria-label="Answer">\n',
            *_answer(answer, "r"),
            '</section>\n<section class="sources" aria-label="Sources">\n',
            *_sources(answer, "r"),
            f"</section>\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        )
    )


def to_html_fragment(answer: Answer) -> str:
    """Returns what a notebook shows for an answer: no script, styles of its own only.

    Raises:
        CitationError: A quote isn't the slice of the document it names.
    """
    identity = repr((answer.question, answer.text, answer.citations)).encode("utf-8", "replace")
    root = "r" + hashlib.blake2b(identity, digest_size=6).hexdigest()
    style = STYLE + NOTEBOOK_STYLE + _target_rules(root, len(answer.citations))
    return "".join(
        (
            f'<div class="recallm cell" id="{root}">\n<style>{style}</style>\n',
            *_answer(answer, root),
            *_sources(answer, root, whole=1_500, context=250),
            "</div>\n",
        )
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _target_rules(root: str, count: int) -> str:
    """A quote may be cut into several marks, so its target is asked for from above."""
    hit = "background:var(--hit);box-shadow:0 2px 0 var(--hitline)"
    return "".join(
        f"#{root}:has(#{root}-q{n}:target) .q{n},#{root}:has(#{root}-a{n}:target) .s{n}{{{hit}}}\n"
        for n in range(1, count + 1)
    )


def _text(text: str) -> str:
    """The only way for text into the page: visible, and escaped for elements and attributes."""
    return "".join(
        f'<span class="ctl">{_escape(run)}</span>' if replaced else _escape(run)
        for run, replaced in visible_runs(text)
    )


def _attribute(text: str) -> str:
    return _escape(one_line(text))


def _answer(answer: Answer, root: str) -> Iterator[str]:
    yield "<h2>Answer</h2>\n"
    if answer.abstained:
        yield f'<p class="none">{NOT_FOUND}</p>\n'
    yield f'<div class="text">{"".join(_answer_text(answer, root))}</div>\n'
    if answer.citations:
        yield '<h2>Quotes</h2>\n<ol class="quotes">\n'
        for number, citation in enumerate(answer.citations, 1):
            yield _quote(answer, root, number, citation)
        yield "</ol>\n"
    elif answer.nearest:
        yield f"<p>{NEAREST}</p>\n<ul>\n"
        for citation in answer.nearest[:MOST_NEAREST]:
            yield f'<li>{_text(citation.text)}<span class="where">'
            yield f"{_text(place_of(citation))}</span></li>\n"
        yield "</ul>\n"
    elif not answer.abstained:
        yield '<p class="none">No quote supports this answer.</p>\n'
    yield from _reasoning(answer)
    yield f'<p class="facts">{_escape(" · ".join(_facts(answer)))}</p>\n'


def _answer_text(answer: Answer, root: str) -> Iterator[str]:
    marks = markers(answer)
    if not answer.text:
        yield from (_marker(answer, root, n) for n in marks.get(0, ()))
    for piece in answer_pieces(answer):
        text = _text(visible_slice(answer.text, piece.start, piece.end))
        # A citation of the whole answer needs no underline to say so.
        numbers = [n for n in piece.numbers if answer.citations[n - 1].answer_start is not None]
        names = " ".join(f"s{n}" for n in numbers)
        yield f'<span class="s {names}">{text}</span>' if names else text
        yield from (_marker(answer, root, n) for n in marks.get(piece.end, ()))


def _marker(answer: Answer, root: str, number: int) -> str:
    citation = answer.citations[number - 1]
    return (
        f'<a class="cite" id="{root}-a{number}" href="#{root}-q{number}" data-k="{number}" '
        f'title="{_attribute(_shorten(citation.text))}">[{number}]</a>'
    )


def _shorten(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + " …"


def _quote(answer: Answer, root: str, number: int, citation: Citation) -> str:
    grade = GRADES[citation.basis]
    where = _place_link(answer, citation) + (f", {grade}" if grade else "")
    others = elsewhere(answer, citation)
    if others:
        where += f"; the same words also stand in {_text(', '.join(others[:5]))}"
        where += f" and {len(others) - 5} more places" if len(others) > 5 else ""
    return (
        f'<li><a class="no" href="#{root}-q{number}" data-k="{number}">[{number}]</a>'
        f'<a class="quote" href="#{root}-q{number}" data-k="{number}">{_text(citation.text)}</a>'
        f'<span class="where">{where}</span></li>\n'
    )


def _place_link(answer: Answer, citation: Citation) -> str:
    """Where a quote stands; a link to it on web pages and pages of PDFs."""
    place = _text(place_of(citation))
    url = quote_url(citation, answer.sources.get(citation.document_id))
    if url is None or "#" not in url:
        return place
    return f'<a href="{_escape(url)}" rel="noopener noreferrer">{place}</a>'


def _reasoning(answer: Answer) -> Iterator[str]:
    if not answer.trace.reasoning.strip():
        return
    yield '<details class="reasoning"><summary>Reasoning</summary><div class="thought">'
    for segment in answer.trace.segments:
        if isinstance(segment, RecallSpan):
            if segment.section != "answer":
                yield f"<mark>{_text(segment.text)}</mark>"
        elif isinstance(segment, Reasoning):
            yield _text(segment.text)
    yield "</div></details>\n"


def _facts(answer: Answer) -> Iterator[str]:
    if answer.model:
        yield one_line(answer.model)
    count = len(answer.citations)
    if count:
        yield "1 quote, verbatim" if count == 1 else f"{count} quotes, each verbatim"
    if answer.usage.output_tokens:
        yield f"{answer.usage.prompt_tokens:,} tokens read, {answer.usage.output_tokens:,} written"
    if answer.finish_reason == "length":
        yield "cut off by the token limit"
    elif answer.finish_reason == "cancelled":
        yield "cancelled"


def _sources(
    answer: Answer, root: str, *, whole: int = WHOLE, context: int = CONTEXT
) -> Iterator[str]:
    yield "<h2>Sources</h2>\n"
    quoted = sources(answer, whole=whole, context=context)
    for source in quoted:
        yield f'<article class="source">\n{_source_header(source)}'
        yield from _excerpts(source, root)
        yield "</article>\n"
    seen = {source.document_id for source in quoted}
    rest = [d.title or d.id for key, d in answer.sources.items() if key not in seen]
    if rest:
        other = "other " if quoted else ""
        count = f"{len(rest):,} {other}document{'' if len(rest) == 1 else 's'}, not quoted"
        yield f'<details class="unquoted"><summary>{count}</summary><ul class="names">\n'
        yield from (f"<li>{_text(one_line(name))}</li>\n" for name in rest[:NAMES])
        yield f"<li>and {len(rest) - NAMES:,} more</li>\n" if len(rest) > NAMES else ""
        yield "</ul></details>\n"


def _source_header(source: Source) -> str:
    origin = one_line(source.origin or "")
    url = safe_url(source.origin)
    link = _text(origin)
    if url:
        link = f'<a href="{_escape(url)}" rel="noopener noreferrer">{link}</a>'
    under = f'<p class="origin">{link}</p>' if origin and (url or origin != source.name) else ""
    return f"<header><h3>{_text(source.name)}</h3>{under}</header>\n"


def _excerpts(source: Source, root: str) -> Iterator[str]:
    reached = 0
    for excerpt in source.excerpts:
        if source.document is not None:
            yield _gap(excerpt.start - reached)
        yield f'<div class="excerpt" data-start="{excerpt.start}" data-end="{excerpt.end}">'
        yield from _excerpt(source, excerpt, root)
        yield "</div>\n"
        reached = excerpt.end
    if source.document is not None:
        yield _gap(len(source.text) - reached)


def _gap(characters: int) -> str:
    return f'<p class="gap">{characters:,} characters not shown</p>\n' if characters else ""


def _excerpt(source: Source, excerpt: Excerpt, root: str) -> Iterator[str]:
    yield _gutter(source, excerpt.start, first=True)
    for piece in excerpt.pieces:
        yield "".join(f'<span class="at" id="{root}-q{n}"></span>' for n in piece.opens)
        inner = "".join(_lines(source, piece, last=piece.end == excerpt.end))
        yield _mark(piece, inner)
        yield "".join(
            f'<a class="back" href="#{root}-a{n}" data-k="{n}" data-n="{n}" '
            f'title="Back to the answer" aria-label="Quote {n}: back to the answer"></a>'
            for n in piece.closes
        )


def _mark(piece: Piece, inner: str) -> str:
    if not piece.numbers:
        return inner
    names = "".join(f" q{n}" for n in piece.numbers)
    depth = min(len(piece.numbers), 3)
    return f'<mark class="d{depth}{names}">{inner}</mark>'


def _lines(source: Source, piece: Piece, *, last: bool) -> Iterator[str]:
    """A piece's text with the number of each line that begins in it, outside the text itself."""
    text, at = source.text, piece.start
    for end in _line_ends(text, piece.start, piece.end):
        yield _text(visible_slice(text, at, end))
        if end < piece.end or not last:
            yield _gutter(source, end)
        at = end
    yield _text(visible_slice(text, at, piece.end))


def _line_ends(text: str, start: int, end: int) -> Iterable[int]:
    at = text.find("\n", start, end)
    while at >= 0:
        yield at + 1
        at = text.find("\n", at + 1, end)


def _gutter(source: Source, offset: int, *, first: bool = False) -> str:
    document = source.document
    if document is None:
        return ""
    page = document.page_at(offset)
    if page is None:
        return f'<i class="n" data-n="{document.line_at(offset)}"></i>'
    new = first or document.page_at(max(offset - 1, 0)) != page
    return f'<i class="n" data-n="p. {page}"></i>' if new else ""
