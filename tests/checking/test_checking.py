"""Quotes of any text: found, judged, and repaired only where nothing that matters changes."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recallm_core import Document
from recallm_core.checking import QuoteReport, check_quotes
from recallm_core.errors import DocumentError, MessageError
from recallm_core.text.boundaries import word_boundaries
from recallm_core.text.places import find_all

HANDBOOK = Document(
    "The annual leave is 30 days for all employees. It carries over until 31 March of the\n"
    "following year, unless the board decides otherwise. Employees may not sell their leave.\n\n"
    "Sick leave is unlimited and needs a doctor's note after three days. The guaran-\n"
    "tee holds for two years; the well-\nknown rule of the ﬁrst oﬃce applies. Costs are −5 % or "
    "10² euros. See ``__init__`` for more.",
    id="handbook.md",
    title="Handbook",
)
REMOTE = Document(
    "Remote work is allowed on two days a week. The office in Berlin opens at 8:30. Travel costs "
    "are paid within 14 days by Maria Keller. 年假为三十天，病假不限。",
    id="docs/remote.md",
)
BOTH = [HANDBOOK, REMOTE]
ALPHABET = "ab AB.,- \n\r\t'\"“”é\u0301ﬁ12０３中文ß\u200b\u00ad_%$不n"


def one(quote: str, *, source: str = "", repair: bool = True) -> Any:
    named = f' source="{source}"' if source else ""
    escaped = quote.replace("&", "&amp;").replace("<", "&lt;")
    report = check_quotes(f"<quote{named}>{escaped}</quote>", BOTH, repair=repair)
    assert len(report.quotes) == 1
    return report.quotes[0]


@pytest.mark.parametrize(
    ("quote", "verdict"),
    [
        ("The annual leave is 30 days", "exact"),
        ("It carries over until 31 March of the\nfollowing year", "exact"),
        ("The annual leave is 30 days for all employees,", "exact"),
        ("年假为三十天，病假不限", "exact"),
        ("__init__", "exact"),
        ("the  Annual Leave is 30 days", "drift"),
        ("It carries over until 31 March of the following year", "drift"),
        ("The guarantee holds for two years", "drift"),
        ("the wellknown rule of the first office applies", "drift"),
        ("well-known rule", "drift"),
        ("office in Berlin opens at 8:30", "exact"),
        ("The ofice in Berlin opens at 8:30", "altered"),
        ("annual leave is the 30 days for all employees", "drift"),
        ("see init for more", "drift"),
        ("The annual leave is 25 days for all employees", "altered"),
        ("The office in Berlin opens at 8.30", "altered"),
        ("Employees may sell their leave", "altered"),
        ("Sick leave is not unlimited and needs a doctor's note", "altered"),
        ("Travel costs are paid within 14 days by Martha Keller", "altered"),
        ("Travel costs are refunded within 14 days by Maria Keller", "altered"),
        ("Costs are 5 % or 10² euros", "altered"),
        ("Costs are −5 % or 102 euros", "altered"),
        ("Costs are −5 or 10² euros", "altered"),
        ("年假为三十天，病假限", "altered"),
        ("The annual leave is 30 days on two days a week", "stitched"),
        (
            "The annual leave is 30 days for all employees. Employees may not sell their leave.",
            "stitched",
        ),
        ("The annual leave … carries over until 31 March", "exact"),
        ("The annual leave [...] Carries over until 31 March", "drift"),
        ("[T]ravel costs [of employees] are paid within 14 days", "drift"),
        ("Travel costs are [not] paid within 14 days", "altered"),
        ("Employees may … sell their leave", "altered"),
        ("Remote work is allowed … The annual leave is 30 days", "stitched"),
        ("The moon is made of very old green cheese", "absent"),
        ("nnual leave is 3", "absent"),
        ("mote work is allowed on two days a we", "altered"),
    ],
)
def test_each_kind_of_quote_gets_its_verdict(quote: str, verdict: str) -> None:
    assert one(quote).verdict == verdict


@pytest.mark.parametrize(
    ("quote", "kind", "written", "found"),
    [
        ("The annual leave is 25 days for all employees", "number", "25", "30"),
        ("Employees may sell their leave", "negation", "", "not"),
        ("are paid within 14 days by Martha Keller", "name", "Martha", "Maria"),
        ("Travel costs are refunded within 14 days", "words", "refunded", "paid"),
    ],
)
def test_an_altered_quote_says_what_was_changed(
    quote: str, kind: str, written: str, found: str
) -> None:
    result = one(quote)
    assert [(c.kind, c.written, c.found) for c in result.changes] == [(kind, written, found)]
    assert result.replacement is None
    assert found in result.citation.text


def test_a_quote_of_another_document_than_the_one_named_is_misattributed() -> None:
    text = "“Remote work is allowed on two days a week” [{}]"
    for number, verdict in ((1, "misattributed"), (2, "exact"), (7, "misattributed")):
        (quote,) = check_quotes(text.format(number), BOTH).quotes
        assert quote.verdict == verdict
        assert quote.citation is not None
        assert quote.citation.document_id == "docs/remote.md"
    assert one("Remote work is allowed on two days", source="Handbook").verdict == "misattributed"
    assert one("Remote work is allowed on two days", source="remote.md").verdict == "exact"
    assert one("Remote work is allowed on two days", source="nowhere.md").claimed is None


def test_of_equal_places_the_one_named_is_cited_and_all_are_listed() -> None:
    texts = [Document(f"Again and again. {n}", id=f"d{n}") for n in range(3)]
    (quote,) = check_quotes('"Again and again" [3]', texts).quotes
    assert quote.citation is not None
    assert quote.citation.document_id == "d2"
    assert [place.document_id for place in quote.citation.occurrences] == ["d2", "d0", "d1"]


@pytest.mark.parametrize(
    ("said", "quote", "verdict"),
    [
        ("it is not able to fly at night", "it is notable to fly at night", "altered"),
        ("it cannot fly at night in winter", "it can-\nnot fly at night in winter", "drift"),
        ("it can fly at night in winter", "it can-\nnot fly at night in winter", "altered"),
        ("it is able to fly at night", "it is not-\nable to fly at night", "altered"),
        ("it is not-\nable to fly at night", "it is notable to fly at night", "drift"),
        ("full integration comes next year", "full inte-\ngration comes next year", "drift"),
        ("a sin-\ngle row of nine old trees", "a single row of nine old trees", "drift"),
        ("it can not fly at night", "it cannot fly at night", "drift"),
        ("all who follow Plan A may leave early", "all who follow Plan may leave early", "altered"),
        ("those from The Hague may leave early", "those from Hague may leave early", "altered"),
        ("those in the hague may leave early", "those in hague may leave early", "drift"),
        ("it costs 1 200 euros a month", "it costs 1200 euros a month", "altered"),
        ("it costs 3.5 euros a month", "it costs 35 euros a month", "altered"),
        ("it costs 3,500 euros a month", "it costs 3500 euros a month", "altered"),
        ("it costs £30 for each of them", "it costs €30 for each of them", "altered"),
        ("up to 5 % of all the staff", "up to 5 of all the staff", "altered"),
        ("the area is 30 m² in all of it", "the area is 30 m in all of it", "altered"),
        ("the leave² is paid for in full", "the leave is paid for in full", "drift"),
        ("water is H₂O in all textbooks", "water is H2O in all textbooks", "drift"),
        ("one half is ½ of the whole", "one half is 1/2 of the whole", "drift"),
        ("pages 5–7 hold the full list", "pages 5-7 hold the full list", "drift"),
        ("Dr. Jonson leads the large group", "Dr. Johnson leads the large group", "altered"),
        ("the well-known old rule holds", "known old rule holds", "exact"),
        ("they will recieve the payment", "they will receive the payment", "altered"),
        ("all the country has to pay it", "all the county has to pay it", "altered"),
    ],
)
def test_what_passes_for_other_writing(said: str, quote: str, verdict: str) -> None:
    (found,) = check_quotes(f"<q>{quote}</q>", [f"Well, {said}, so to say."]).quotes
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("said", "quote", "verdict"),
    [
        ("See A-1 is the lowest grade.", "-1 is the lowest grade", "exact"),
        ("See A-1 is the lowest grade.", "-1 is the  LOWEST grade", "drift"),
        ("See A-1 is the lowest grade.", "-1 is the lowest price", "altered"),
        ("It is 1 degree cold today.", "-1 degree cold today", "altered"),
        ("It is -1 degree cold today.", "is 1 degree cold today", "altered"),
        ("Pages 10-1 are read last.", "-1 are read last", "exact"),
    ],
)
def test_a_dash_is_a_sign_only_where_the_document_has_one(
    said: str, quote: str, verdict: str
) -> None:
    assert check_quotes(f"<q>{quote}</q>", [said]).quotes[0].verdict == verdict


@pytest.mark.parametrize("joint", ["\u200b", "\u200b\u200b", " \u200b", "\u200b "])
def test_words_with_a_space_without_width_between_them_are_words(joint: str) -> None:
    said = "the annual leave of each employee is thirty days and ends in March"
    joined = said.replace(" ", joint)
    for quote, document in ((joined, said), (said, joined)):
        report = check_quotes(f"<q>{quote}</q>", [document], repair=True)
        assert report.quotes[0].verdict == "drift"
        assert report.text == f"<q>{document}</q>"


def test_what_looks_like_another_word_without_the_space_is_altered() -> None:
    report = check_quotes("<q>he is notable to go</q>", ["he is not\u200bable to go"], repair=True)
    assert report.quotes[0].verdict == "altered"
    assert report.repairs == 0


@pytest.mark.parametrize("mark", ["【4:0†source】", " [0]", "[^0]"])
def test_a_number_that_no_document_can_have_says_nothing(mark: str) -> None:
    """Documents are counted from 1; such a quote was misattributed whatever it said."""
    (quote,) = check_quotes(
        f'It says "the annual leave is long"{mark}.', ["So the annual leave is long."]
    ).quotes
    assert (quote.verdict, quote.claimed) == ("exact", None)


def test_numbers_count_the_documents_as_they_were_given_repeats_included() -> None:
    given = [HANDBOOK, HANDBOOK, REMOTE]
    for number, verdict in ((1, "misattributed"), (2, "misattributed"), (3, "exact")):
        (quote,) = check_quotes(f"“Remote work is allowed” [{number}]", given).quotes
        assert quote.verdict == verdict


def test_only_drift_is_repaired_and_a_repaired_text_is_exact() -> None:
    text = (
        'It says "the annual  leave is 30 days", "the annual leave is 25 days for all employees" '
        "and\n\n> Sick Leave is unlimited and\n> needs a doctor's note\n\n"
        "<q>The guarantee holds for two years</q> \"employees may sell their leave\" 'scare'"
    )
    report = check_quotes(text, BOTH, repair=True)
    assert [q.verdict for q in report.quotes] == ["drift", "altered", "drift", "drift", "altered"]
    assert report.repairs == 3
    assert report.text == (
        'It says "The annual leave is 30 days", "the annual leave is 25 days for all employees" '
        "and\n\n> Sick leave is unlimited and needs a doctor's note\n\n"
        "<q>The guaran-\ntee holds for two years</q> \"employees may sell their leave\" 'scare'"
    )
    again = check_quotes(report.text, BOTH, repair=True)
    assert [q.verdict for q in again.quotes] == ["exact", "altered", "exact", "exact", "altered"]
    assert report.original == text
    for citation in report.answer.citations:
        cited = report.text[citation.answer_start : citation.answer_end]
        assert cited.replace("\n> ", "\n") == citation.text
        assert citation.basis == "matched"


def test_a_repair_in_json_stays_json() -> None:
    import json

    text = '{"quote": "the GUARANTEE holds for two years", "source": "Handbook"}'
    report = check_quotes(text, BOTH, repair=True)
    assert json.loads(report.text)["quote"] == "The guaran-\ntee holds for two years"


def test_a_slice_that_its_marks_cannot_hold_stays_out() -> None:
    document = Document('She said "yes, we will" to them all.\n\nThen they left the old town.')
    text = '"she said yes, we will to them all" “them all. then they left the old town”'
    report = check_quotes(text, [document], repair=True)
    assert [q.verdict for q in report.quotes] == ["drift", "drift"]
    assert report.text == text


def test_few_words_in_quotation_marks_are_a_quote_only_if_something_says_so() -> None:
    text = '"annual leave" "Annual Leave" "old cheese" "45 days" "green cheese" [1] "of the"'
    found = [(q.text, q.verdict) for q in check_quotes(text, BOTH).quotes]
    assert found == [("annual leave", "exact"), ("45 days", "absent"), ("green cheese", "absent")]
    assert len(check_quotes('"old cheese"', BOTH, min_words=1).quotes) == 1


def test_sentences_without_a_quote_are_looked_up_when_asked_for() -> None:
    text = (
        "## Summary\n\nEmployees get an annual leave of 30 days. It says this: ([a.md]). "
        "The moon is made of cheese. "
        "The annual leave is 40 days for all employees. He said “Sick leave is unlimited”."
    )
    report = check_quotes(text, BOTH, claims=True)
    assert [claim.text for claim in report.unsupported] == [
        "The moon is made of cheese.",
        "The annual leave is 40 days for all employees.",
    ]
    assert [claim.score > 0.5 for claim in report.claims] == [True, False, False]
    assert len(report.answer.citations) == 2
    assert check_quotes(text, BOTH).claims == ()


STUDY = Document(
    "Shade cooled the asphalt by 11 degrees at noon. Residents paid 40 euros a tree in 2016.",
    id="holt-2016.pdf",
    title="Rent",
    metadata={"author": ["S. Holt", "Adeyemi, R."], "date": "2016-05-01"},
)


@pytest.mark.parametrize(
    "reference",
    [
        *("[2]", "[12, 14]", "(source 3)", "[holt-2016]", "(holt-2016.pdf, p. 3)", "(Rent)"),
        *("(Holt, 2016)", "(see Holt and\nAdeyemi, 2016, p. 3-4)", "[Adeyemi et al. 2016a]"),
    ],
)
def test_a_claim_is_looked_up_without_its_references(reference: str) -> None:
    for text in (
        f"At noon shade cooled the asphalt by 11 degrees {reference}.",
        f"At noon {reference} shade cooled the asphalt by 11 degrees.",
        f"Shade cooled the asphalt by 11 degrees at noon. {reference}",
    ):
        (claim,) = check_quotes(text, [STUDY, *BOTH], claims=True).claims
        assert claim.citation is not None
        assert "Shade cooled the asphalt by 11 degrees at noon" in claim.citation.text
        assert text[claim.start : claim.end] == claim.text
        assert (claim.citation.answer_start, claim.citation.answer_end) == (claim.start, claim.end)
        assert claim.score == 1


@pytest.mark.parametrize(
    "remark",
    [
        "(in May 2015)",
        "(rent of 12 degrees)",
        "(not Holt, 2016)",
        "[holt-2017]",
        "(Holt, 2016: 12)",
    ],
)
def test_a_remark_that_says_more_than_its_source_counts_as_words(remark: str) -> None:
    text = f"At noon shade cooled the asphalt by 11 degrees {remark}."
    assert check_quotes(text, [STUDY, *BOTH], claims=True).unsupported


def test_an_author_and_a_year_name_the_source_of_a_quote() -> None:
    text = '"cooled the asphalt by 11 degrees" (Holt & Adeyemi, 2016)'
    assert check_quotes(text, [STUDY, *BOTH]).quotes[0].verdict == "exact"
    text = '"annual leave is 30 days" (Holt & Adeyemi, 2016)'
    assert check_quotes(text, [STUDY, *BOTH]).quotes[0].verdict == "misattributed"
    text = '"annual leave is 30 days" (Holt & Adeyemi, 2017)'
    assert check_quotes(text, [STUDY, *BOTH]).quotes[0].verdict == "exact"


def test_wrong_input_is_refused_with_what_is_expected() -> None:
    with pytest.raises(MessageError, match="expected a text, or a message with content, got int"):
        check_quotes(7, BOTH)
    with pytest.raises(DocumentError, match="wrap a single document in a list"):
        check_quotes("text", HANDBOOK)  # type: ignore[arg-type]
    assert check_quotes("", []).ok
    assert check_quotes('"nothing to find it in, alas"', []).quotes[0].verdict == "absent"


def test_importing_it_loads_no_model_code() -> None:
    code = (
        "import sys, recallm_core.checking as c; c.check_quotes('x', []); "
        "print([m for m in ('torch', 'transformers', 'faiss', 'tokenizers') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


# promises


def check_slices(report: QuoteReport) -> None:
    for quote in report.quotes:
        for citation in (quote.citation, *quote.pieces):
            if citation is None:
                continue
            source = report.sources[citation.document_id].text
            assert source[citation.start : citation.end] == citation.text
            edges = word_boundaries(source)
            assert edges[citation.start]
            assert edges[citation.end]
            assert citation.occurrences[0].start == citation.start
            for place in citation.occurrences:
                other = report.sources[place.document_id].text
                assert other[place.start : place.end] == citation.text


@given(st.lists(st.text(ALPHABET, max_size=60), max_size=4, unique=True), st.text(ALPHABET))
def test_whatever_is_checked_each_citation_is_its_slice(texts: list[str], quote: str) -> None:
    documents = [Document(text, id=f"d{n}") for n, text in enumerate(texts)]
    report = check_quotes(f"<quote>{quote}</quote> “{quote}”", documents, repair=True)
    check_slices(report)
    for citation in report.answer.citations:
        assert report.sources[citation.document_id].text[citation.start : citation.end]


@given(st.lists(st.text(ALPHABET, max_size=60), min_size=1, max_size=4, unique=True), st.data())
def test_a_slice_at_word_boundaries_is_exact_and_found_everywhere(
    texts: list[str], data: st.DataObject
) -> None:
    documents = [Document(text, id=f"d{n}") for n, text in enumerate(texts)]
    source = data.draw(st.sampled_from(texts))
    edges = word_boundaries(source).nonzero()[0].tolist()
    start, end = sorted((data.draw(st.sampled_from(edges)), data.draw(st.sampled_from(edges))))
    quote = source[start:end].strip()
    assume(any(c.isalnum() for c in quote) and "\r" not in quote)
    # what has no width is passed over, so that words on its two sides are one
    assume(not {*source[start - 1 : start], *source[end : end + 1]} & {"\u200b", "\u00ad"})
    # "-1" out of "A-1" reads as a negative number, which the document doesn't hold
    assume(not (quote[0] in "-−–" and source[:start][-1:].isalnum()))
    report = check_quotes(f"<quote>{quote}</quote>", documents)
    core = report.quotes[0].text  # marks around the whole of it are taken for marks
    (found,) = report.quotes
    check_slices(report)
    assert found.verdict in ("exact", "drift")
    if core == quote and found.citation is not None and found.citation.text == quote:
        everywhere = {
            (document.id, at)
            for document in documents
            for at in find_all(quote, document.text)
            if word_boundaries(document.text)[[at, at + len(quote)]].all()
        }
        assert everywhere <= {(o.document_id, o.start) for o in found.citation.occurrences}


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 99))
def test_a_changed_number_is_never_drift_and_never_repaired(
    one_number: int, other: int, words: int, seed: int
) -> None:
    assume(one_number != other)
    names = ["leave", "carries", "over", "office", "days", "board", "rule"]
    said = [names[(seed + n) % len(names)] for n in range(6)]
    put = [*said]
    put.insert(words, str(one_number))
    said.insert(words, str(other))
    report = check_quotes(f"<q>{' '.join(said)}</q>", [Document(" ".join(put))], repair=True)
    assert report.quotes[0].verdict not in ("exact", "drift")
    assert report.text == report.original


@given(st.text(ALPHABET + "<>[]()`> {}:1", max_size=200))
def test_any_text_can_be_checked_and_repaired_twice(text: str) -> None:
    report = check_quotes(text, BOTH, repair=True)
    for quote in report.quotes:
        if quote.form in ("marks", "tag") and "&" not in text:
            assert text[quote.start : quote.end] == quote.text
    assert re.sub(r"\s", "", check_quotes(report.text, BOTH, repair=True).original) is not None
