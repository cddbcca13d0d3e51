from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.answers.answer import Answer, Citation
from recallm_core.documents.document import Document
from recallm_core.rendering.links import quote_url, text_directive
from recallm_core.rendering.visible import safe_url

PAGE = "https://example.org/a"


def cite(text: str, source: str | None = PAGE, page: int | None = None, start: int = 0) -> Citation:
    return Citation("d", start, start + len(text), text, source=source, page=page)


@pytest.mark.parametrize(
    ("citation", "url"),
    [
        (cite("It opened."), f"{PAGE}#:~:text=It%20opened."),
        (cite("x-ray, y & z"), f"{PAGE}#:~:text=x%2Dray%2C%20y%20%26%20z"),
        (cite("It  opened.\n"), f"{PAGE}#:~:text=It%20opened."),
        (cite("day", f"{PAGE}#top"), f"{PAGE}#top:~:text=day"),
        (cite("day", f"{PAGE}#:~:text=evil"), f"{PAGE}#:~:text=day"),
        (cite("day", f"{PAGE}.pdf#x", page=4), f"{PAGE}.pdf#page=4"),
        (cite("day", "/srv/a b.pdf", page=4), "file:///srv/a%20b.pdf#page=4"),
        (cite("day", "/srv/a.txt"), "file:///srv/a.txt"),
        (cite("...\n", PAGE), f"{PAGE}#:~:text=..."),
        (cite(" \n", PAGE), PAGE),
        (cite("day", "notes/a.md"), None),
        (cite("day", "javascript:alert(1)", page=3), None),
        (cite("day", None), None),
    ],
)
def test_where_a_quote_is_found(citation: Citation, url: str | None) -> None:
    assert quote_url(citation) == url


def test_a_long_quote_is_named_by_its_ends() -> None:
    text = "Every holder of a permit " * 20 + "ends here at last."
    url = quote_url(cite(text))
    assert (
        url == f"{PAGE}#:~:text=Every%20holder%20of%20a%20permit,permit%20ends%20here%20at%20last."
    )


def test_a_quote_over_lines_is_named_by_the_ends_of_its_blocks() -> None:
    assert (
        text_directive(cite("Fees\n\nThe fee is 5 euro.")) == "text=Fees,The%20fee%20is%205%20euro."
    )


def test_a_long_quote_without_spaces_is_cut_at_its_clauses() -> None:
    text = "第一条の規定により、" * 30 + "終わる。"
    directive = text_directive(cite(text))
    assert directive is not None
    first, last = (unquote(part) for part in directive.removeprefix("text=").split(","))
    assert text.startswith("".join(first.split()))
    assert text.endswith("".join(last.split()))


def test_a_repeated_quote_is_named_with_the_words_beside_it() -> None:
    document = Document("He paid 5 euro. She paid 5 euro at once.\nBoth paid 5 euro", "d")
    starts = [n for n in range(len(document.text)) if document.text.startswith("paid 5 euro", n)]
    urls = [text_directive(cite("paid 5 euro", start=start), document) for start in starts]
    assert urls == [
        "text=He-,paid%205%20euro,-.%20She%20paid",
        "text=5%20euro.%20She-,paid%205%20euro,-at%20once.",
        "text=Both-,paid%205%20euro",
    ]


@given(st.data())
def test_no_link_leads_elsewhere_or_breaks_out(
    hostile_answers: st.SearchStrategy[Answer], data: st.DataObject
) -> None:
    answer = data.draw(hostile_answers)
    for citation in answer.citations:
        url = quote_url(citation, answer.sources[citation.document_id])
        origin = safe_url(citation.source)
        if origin is None or url is None:
            assert url is origin is None
            continue
        assert url.partition("#")[0] == origin.partition("#")[0]
        assert url.isascii()
        assert not set(url) & set("<>\"'` \n\\")
