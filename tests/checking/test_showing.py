"""A report for people and programs: the same in every form, and hostile text can't act in it."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from recallm_core.checking import QuoteReport, check_quotes
from recallm_core.documents.document import Document

DOCUMENT = Document("The annual leave is 30 days.\nIt ends in March.", id="<b>leave</b>.md")


def report(extra: str = "") -> QuoteReport:
    text = (
        '"the annual leave is 30 days" "The annual leave is 20 days" "Old cheese is green" [1] '
        f'"It ends in March" [4] <quote>{extra}</quote>\n\nNothing of the kind was said.'
    )
    return check_quotes(text, [DOCUMENT], repair=True, claims=True)


def test_data_has_each_quote_and_goes_through_json() -> None:
    found = report()
    data = json.loads(found.to_json())
    assert data == found.to_dict()
    assert [q["verdict"] for q in data["quotes"]] == [
        "drift", "altered", "absent", "misattributed",
    ]  # fmt: skip
    assert data["counts"]["drift"] == 1
    assert not data["ok"]
    assert data["quotes"][1]["changes"] == [{"kind": "number", "written": "20", "found": "30"}]
    assert data["quotes"][0]["citation"]["basis"] == "matched"
    assert data["quotes"][3]["claimed"] == []
    assert [claim["citation"] for claim in data["claims"]] == [None]
    for quote in data["quotes"]:
        assert data["original"][quote["start"] : quote["end"]] == quote["text"]


def test_plain_lines_say_what_the_document_says() -> None:
    assert str(report()) == (
        "[1] drift: the annual leave is 30 days\n"
        "    <b>leave</b>.md:1: The annual leave is 30 days\n"
        "[2] altered: The annual leave is 20 days\n"
        "    <b>leave</b>.md:1: The annual leave is 30 days\n"
        "    number: “20” for “30”\n"
        "[3] absent: Old cheese is green\n"
        "[4] misattributed: It ends in March\n"
        "    <b>leave</b>.md:2: It ends in March\n"
        "    said to be from a source that wasn't given\n"
        "unsupported: Nothing of the kind was said.\n"
        "1 sentence without a quote: 0 matched, 1 unsupported\n"
        "4 quotes: 1 drift, 1 altered, 1 misattributed, 1 absent; 1 repaired\n"
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@given(
    st.text(max_size=80) | st.sampled_from(["<script>alert(1)</script> x", "a [b](javascript:x)"])
)
def test_text_cannot_act_in_a_page(extra: str) -> None:
    found = report(extra)
    page = _Tags()
    page.feed(found.to_html())
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert not {name for name in page.attributes if name.startswith("on")}
    assert "<script" not in found.to_markdown().replace("&lt;", "")
    assert "<b>" not in found.to_markdown()


def test_a_report_without_quotes_says_so() -> None:
    empty = check_quotes("Nothing is quoted here.", [DOCUMENT])
    assert empty.ok
    assert str(empty) == "no quotes found\n"
    assert "no quotes found" in empty.to_html()
