from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.answers.answer import Answer, Citation, Usage
from recallm_core.answers.trace import AnswerText, Trace
from recallm_core.documents.document import Document
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import CitationError
from recallm_core.rendering import quote_url, safe_url, to_html, to_html_fragment, visible
from recallm_core.rendering.layout import cut, windows

VOID = {"meta"}
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "main"),
    *("section", "article", "div", "p", "span", "a", "mark", "i", "ol", "ul", "li"),
    *("details", "summary", "script"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "rel", "title"),
    *("aria-label", "data-k", "data-n", "data-start", "data-end"),
}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    def find(self, tag: str = "", name: str = "") -> list[Node]:
        return [
            n for n in self.walk() if tag in ("", n.tag) and (not name or name in n.classes)
        ]  # fmt: skip

    def text(self, without: str = "") -> str:
        return "".join(
            child if isinstance(child, str) else child.text(without)
            for child in self.children
            if isinstance(child, str) or not without or without not in child.classes
        )


class Reader(HTMLParser):
    """Builds the tree, and fails on anything that isn't ours or isn't closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS, tag
        assert {name for name, _ in attrs} <= ATTRIBUTES, attrs
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data!r}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data!r}")


def read(page: str) -> Node:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == [reader.root], "every element is closed"
    return reader.root


def check_links(root: Node, answer: Answer) -> None:
    ids = Counter(n.attributes["id"] for n in root.walk() if "id" in n.attributes)
    assert max(ids.values(), default=0) <= 1
    origins = {safe_url(c.source) for c in answer.citations}
    origins |= {quote_url(c, answer.sources.get(c.document_id)) for c in answer.citations}
    for link in root.find("a"):
        href = link.attributes["href"]
        if href.startswith("#"):
            assert href[1:] in ids
        else:
            assert href in origins
            assert href.startswith(("https:", "http:", "file:"))


def check_texts(root: Node, answer: Answer) -> None:
    (shown,) = root.find("div", "text")
    assert shown.text(without="cite") == visible(answer.text)
    for article, document in zip(root.find("article"), quoted(answer), strict=True):
        (excerpt,) = article.find("div", "excerpt")
        assert excerpt.text() == visible(document.text)
    for number, citation in enumerate(answer.citations, 1):
        marks = root.find("mark", f"q{number}")
        assert "".join(mark.text() for mark in marks) == visible(citation.text)
        if citation.answer_start is not None:
            supported = answer.text[citation.answer_start : citation.answer_end]
            spans = "".join(span.text() for span in root.find("span", f"s{number}"))
            assert spans.replace("\n", "") == visible(supported).replace("\n", "")
    assert len(root.find("a", "cite")) == len(answer.citations)
    assert len(root.find("a", "back")) == len(answer.citations)


def quoted(answer: Answer) -> list[Document]:
    return [answer.sources[key] for key in dict.fromkeys(c.document_id for c in answer.citations)]


@given(st.data())
def test_the_page_holds_exactly_the_texts(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    answer = data.draw(hostile_answers)
    root = read(to_html(answer))
    check_links(root, answer)
    check_texts(root, answer)
    (heading,) = root.find("h1")
    assert heading.text() == visible(answer.question.strip() or "Answer")
    assert len(root.find("script")) == len(root.find("style")) == 1


@given(st.data())
def test_the_fragment_too(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:  # fmt: skip
    answer = data.draw(hostile_answers)
    root = read(to_html_fragment(answer))
    check_links(root, answer)
    check_texts(root, answer)
    assert not root.find("script")
    (outer,) = [child for child in root.children if isinstance(child, Node)]
    prefix = outer.attributes["id"]
    assert all(
        n.attributes["id"].startswith(prefix) for n in root.walk() if "id" in n.attributes
    )  # fmt: skip


@settings(max_examples=15)
@given(st.data())
def test_the_policy_allows_its_own_style_and_script_alone(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    root = read(to_html(data.draw(hostile_answers)))
    meta = [n for n in root.find("meta") if n.attributes.get("http-equiv", "").startswith("Con")]
    policy = dict(part.split(None, 1) for part in meta[0].attributes["content"].split("; "))
    hashes = {
        tag: base64.b64encode(hashlib.sha256(root.find(tag)[0].text().encode()).digest()).decode()
        for tag in ("style", "script")
    }
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{hashes['style']}'",
        "script-src": f"'sha256-{hashes['script']}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def answer_over(document: Document, *ranges: tuple[int, int], **changes: object) -> Answer:
    citations = tuple(
        Citation(document.id, a, b, document.text[a:b], lines=document.lines(a, b))
        for a, b in ranges
    )
    plain = Answer("Yes.", citations, False, Trace((AnswerText("Yes."),)), Usage(), "stop")
    return replace(plain, sources={document.id: document}, **changes)


def test_styles_are_scoped_in_a_notebook() -> None:
    document = Document("one two three")
    style = read(to_html_fragment(answer_over(document, (0, 3)))).find("style")[0].text()
    bare = re.sub(r"@media[^{]*\{", "", style)
    selectors = [part for block in re.findall(r"([^{}]+)\{", bare) for part in block.split(",")]
    depthless = [s.strip() for s in selectors if s.strip()]
    assert depthless
    assert all(s.startswith((".recallm", "#r")) for s in depthless), depthless


def test_a_quote_that_isnt_the_slice_is_refused() -> None:
    document = Document("one two three")
    answer = answer_over(document, (0, 3))
    forged = replace(answer, citations=(replace(answer.citations[0], text="won"),))
    with pytest.raises(CitationError, match="isn't the quote 'won'"):
        to_html(forged)
    with pytest.raises(CitationError):
        to_html_fragment(forged)


def test_a_quote_without_its_source_is_shown_alone() -> None:
    answer = replace(answer_over(Document("one two three"), (4, 7), (0, 3)), sources={})
    root = read(to_html(answer))
    assert [n.text() for n in root.find("div", "excerpt")] == ["two", "one"]
    check_links(root, answer)


def test_a_huge_source_is_shown_around_its_quotes_with_line_numbers() -> None:
    document = Document("".join(f"line {n}\r\n" for n in range(1, 200_001)), title="big.txt")
    at = [document.text.index(f"line {n}\r") for n in (1, 70_000, 70_003, 200_000)]
    answer = answer_over(document, *((a, a + 6) for a in at))
    page = to_html(answer)
    root = read(page)
    assert len(page) < 60_000
    shown = root.find("div", "excerpt")
    assert len(shown) == 3
    for excerpt in shown:
        a, b = (int(excerpt.attributes[f"data-{edge}"]) for edge in ("start", "end"))
        assert excerpt.text() == visible(document.text[a:b])
        numbers = [int(n.attributes["data-n"]) for n in excerpt.find("i", "n")]
        lines = [int(line.split()[1]) for line in excerpt.text().splitlines()]
        assert numbers == lines
    check_links(root, answer)
    extent = sum(int(e.attributes["data-end"]) - int(e.attributes["data-start"]) for e in shown)
    gaps = [int(gap.text().split()[0].replace(",", "")) for gap in root.find("p", "gap")]
    assert len(gaps) == 2
    assert sum(gaps) + extent == len(document.text)


def test_pages_are_numbered_where_there_are_any() -> None:
    document = Document(
        "a\nb\nc\nd\n", source_map=SourceMap("x.pdf", starts=(0, 4), pages=(1, 2))
    )  # fmt: skip
    root = read(to_html(answer_over(document, (4, 5))))
    assert [n.attributes["data-n"] for n in root.find("i", "n")] == ["p. 1", "p. 2"]


def test_quotes_are_counted() -> None:
    document = Document("one two three")
    facts = [to_html(answer_over(document, *rs)) for rs in ([(4, 7)], [(4, 7), (0, 3)])]
    assert "1 quote, verbatim" in facts[0]
    assert "2 quotes, each verbatim" in facts[1]


def test_no_evidence_is_said() -> None:
    document = Document("one", title="only.md")
    none = answer_over(document, abstained=True)
    assert "hold no answer" in read(to_html(none)).find("p", "none")[0].text()
    unsupported = answer_over(document)
    assert "No quote supports" in read(to_html(unsupported)).find("p", "none")[0].text()
    assert read(to_html(none)).find("ul", "names")[0].text().strip() == "only.md"


def test_ten_thousand_unquoted_documents_are_counted() -> None:
    many = {f"d{n}": Document(f"text {n}", f"d{n}") for n in range(10_000)}
    page = to_html(replace(answer_over(Document("one")), sources=many))
    assert "10,000 documents, not quoted" in page
    assert "and 9,800 more" in page
    assert len(page) < 40_000


@given(
    st.integers(0, 20).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(-2, n + 2), st.integers(-2, n + 2)), max_size=6),
        )
    )
)
def test_pieces_are_under_exactly_their_ranges(case: tuple[int, list[tuple[int, int]]]) -> None:
    length, pairs = case
    ranges = [(a, b, n) for n, (a, b) in enumerate(pairs)]
    pieces = cut(0, length, ranges)
    assert [p for piece in pieces for p in range(piece.start, piece.end)] == list(range(length))
    for piece in pieces:
        for at in range(piece.start, piece.end):
            assert piece.numbers == tuple(n for a, b, n in ranges if a <= at < b)
    for n, (a, b) in enumerate(pairs):
        shown = max(a, 0) < min(b, length)
        assert sum(n in piece.opens for piece in pieces) == shown
        assert sum(n in piece.closes for piece in pieces) == shown


@given(
    st.text(st.sampled_from("ab \n"), min_size=50, max_size=300),
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=5),
    st.integers(1, 30),
)
def test_windows_hold_every_quote_and_little_more(
    text: str, places: list[tuple[int, int]], context: int
) -> None:
    ranges = [(min(a, len(text) - 1), min(a + n, len(text)), 1) for a, n in places]
    shown = windows(text, ranges, 0, context)
    assert shown == sorted(shown)
    assert all(b < c for (_, b), (c, _) in pairwise(shown))
    for first, past, _ in ranges:
        assert any(a <= first and past <= b for a, b in shown)
    extent = sum(b - a for a, b in shown)
    assert extent <= sum(past - first + 2 * context for first, past, _ in ranges)
    assert windows(text, ranges, len(text), context) == [(0, len(text))]
