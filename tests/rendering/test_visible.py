from __future__ import annotations

import unicodedata
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.rendering.visible import (
    VisibleStream,
    one_line,
    safe_url,
    visible,
    visible_runs,
    visible_slice,
)

ANY = st.text(st.characters(), max_size=40)  # surrogates included
WITH_CR = st.text(st.sampled_from("ab\r\n\x1b\u202e"), max_size=20)


@given(ANY)
def test_nothing_that_acts_is_left(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    for character in shown:
        if character not in "\n\t":
            assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in (
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "a\tb\nc",
        "שלום ل",
        "\u200f\u200e\u061c",
        "日本語",
        "👨‍👩‍👧‍👦",
        "क\u094d\u200dष",
        "e\u0301 ␛",
    ],
)
def test_ordinary_text_of_any_script_stays(text: str) -> None:
    assert visible(text) == text


def test_replacements_name_what_they_replace() -> None:
    assert visible("\x1b[2J\x00\x7f") == "␛[2J␀␡"
    assert visible("\u202e\x9b\ud800") == "⟨U+202E⟩⟨U+009B⟩⟨U+D800⟩"
    assert visible("a\r\nb\rc") == "a\nb\nc"


@given(ANY)
def test_runs_make_up_the_visible_text(text: str) -> None:
    assert "".join(run for run, _ in visible_runs(text)) == visible(text)


@given(WITH_CR, st.data())
def test_in_pieces_as_in_one(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    edges = [0, *cuts, len(text)]
    stream = VisibleStream()
    fed = [stream.feed(text[a:b]) for a, b in pairwise(edges)]
    sliced = [visible(visible_slice(text, a, b)) for a, b in pairwise(edges)]
    assert "".join(fed) == visible(text)
    assert "".join(sliced) == visible(text)


@given(ANY)
def test_a_label_is_one_line(text: str) -> None:
    assert "\n" not in one_line(text)
    assert "\t" not in one_line(text)


@pytest.mark.parametrize(
    ("source", "link"),
    [
        ("https://example.org/a?b=1&c=2#d", "https://example.org/a?b=1&c=2#d"),
        ("HTTP://Example.org", "http://example.org"),
        ("https://example.org:8443/ä b".replace(" ", "%20"), "https://example.org:8443/%C3%A4%20b"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("/srv/a b/ä.md", "file:///srv/a%20b/%C3%A4.md"),
        ("/srv/100%.md", "file:///srv/100%25.md"),
        ("file:///srv/a.md", "file:///srv/a.md"),
        ("file://localhost/srv/a.md", "file:///srv/a.md"),
    ],
)
def test_what_is_a_link(source: str, link: str) -> None:
    assert safe_url(source) == link


@pytest.mark.parametrize(
    "source",
    [
        None,
        "",
        "notes/a.md",
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "mailto:a@b.example",
        "ftp://example.org/x",
        "file://evil.example/share",
        "//evil.example/x",
        "\\\\evil.example\\share",
        "https:\\\\evil.example",
        "https://bank.example@evil.example/",
        "https://",
        "https:///path",
        "https://exa mple.org/",
        "https://example.org:99999/",
        "https://[::1",
        "https://ex\u202eample.org/",
        'https://ex"ample.org/',
        "https://" + "a" * 70 + ".example/",
    ],
)
def test_what_is_no_link(source: str | None) -> None:
    assert safe_url(source) is None


@given(st.one_of(ANY, ANY.map("https://example.org/".__add__), ANY.map("file:///".__add__)))
def test_a_link_is_plain_ascii_of_three_schemes(source: str) -> None:
    link = safe_url(source)
    if link is not None:
        assert urlsplit(link).scheme in ("http", "https", "file")
        assert link.isascii()
        assert not set(link) & set("\"'<>`() \n\t\\[]{}|^")
