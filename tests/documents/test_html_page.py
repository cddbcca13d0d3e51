"""HTML pages read as in a browser, every word on its source line, in one pass."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.documents.document import Document
from recallm_core.documents.html_page import extract_html


def test_a_page_reads_as_in_a_browser() -> None:
    page = """<!doctype html><html><head><title>My &amp;
    page</title><style>p { }</style><script>if (a < b) "</scriptx>"</script>
<body><nav><ul><li>Home<nav>deep</nav></ul></nav>
<h1>Head   line</h1><p>First
   second &lt;b&gt; <b>bold</b>text<br>new<br><br>x<p>Third 1 < 2 &copy2024 &#0; &#xD800;
<table><tr><td>a<td>b<tr><td>c<td>d</table>
<pre>
  code
    more</pre><!-- c > --> tail <a title="x > y" href='z'>link</a>&nbsp;<svg/>end"""
    found = extract_html(page, "p.html")
    assert found.title == "My & page"
    assert found.text == (
        "Head line\n\nFirst second <b> boldtext\nnew\n\nx\n\nThird 1 < 2 ©2024 \ufffd \ufffd\n\n"
        "a\tb\nc\td\n\n  code\n    more\n\ntail link\xa0end"
    )


words = st.lists(
    st.sampled_from(["w{}", "w{} ", " w{}\n", "\r\nw{}", "w{}&#10;", "&amp;w{}\t"]), max_size=4
).map("".join)
markup = st.sampled_from(
    [
        "<p>",
        "</p>",
        "<pre>",
        "</pre>",
        "<br>",
        "<b>",
        "</b >",
        "<li\n>",
        "<td>",
        "<nav>",
        "</nav>",
        "<!-- \n -->",
        "<script>\n x</script>",
        "<a b='\n>'>",
        "<!x\n>",
        "</ >",
        "< ",
        "<svg/>",
        "<",
    ]
)


@settings(max_examples=300)
@given(st.lists(words | markup, max_size=25))
def test_every_word_of_a_page_is_on_its_source_line(parts: list[str]) -> None:
    page, number = "", 0
    for part in parts:
        while "{}" in part:
            part = part.replace("{}", f"{number}x", 1)
            number += 1
        page += part
    found = extract_html(page, "p")
    document = Document(found.text, source_map=found.source_map)
    lines = page.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for i in range(number):
        if (at := found.text.find(f"w{i}x")) >= 0:
            assert f"w{i}x" in lines[document.line_at(at) - 1]
    assert found.text.strip("\n ") == found.text or "<pre" in page


@given(st.text(st.sampled_from("<>!-/?abp='\" \n&;#x1"), max_size=60))
def test_any_page_is_read(page: str) -> None:
    found = extract_html(page, "p")
    Document(found.text, source_map=found.source_map)
    if "<" not in page and "&" not in page:
        assert found.text == " ".join(page.split())


def test_navigation_that_never_ends_is_read() -> None:
    assert extract_html("<nav>menu<p>text", "p").text == "menu\n\ntext"


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<a ",
        "<!--",
        "<![",
        "</",
        "&",
        "<a b='",
        "<script>",
        "<nav>",
        "<a/",
        "<pre>\n",
        "= ",
        "<title>",
        "&#9",
        "<svg><nav></svg>",
    ],
)
def test_broken_markup_takes_one_pass(unit: str) -> None:
    extract_html("<p>text" + unit * 20_000, "p")  # the standard library's parser takes minutes


def test_a_character_reference_with_endless_digits_stays_as_it_is() -> None:
    digits = "9" * 5000
    assert extract_html(f"a &#{digits}; b", "p").text == f"a &#{digits}; b"


@pytest.mark.parametrize(
    "hidden",
    [
        "<p hidden>SECRET</p>",
        "<div style='color:red; DISPLAY : none !important'>SECRET<br>SECRET</div>",
        '<span style="visibility:hidden">SECRET</span>',
        "<span aria-hidden=true>SECRET</span>",
        "<dialog>SECRET <b>SECRET</b></dialog>",
        "<template>SECRET</template>",
        "<p title='SECRET' data-x='a > SECRET'></p><input value=SECRET>",
        "<div hidden><div>SECRET</div><p>SECRET</div>",
        "<p hidden>SECRET<p>shown</p>",
        "<ul><li hidden>SECRET<li>shown</ul>",
        "<ul><li hidden>SECRET<ul><li>SECRET</ul></ul>",
        "<table><tr><td hidden>SECRET<td>shown</table>",
        "<img hidden><br hidden>",
        "<div hidden>SECRET</b></i></div>",
        "<details><summary>shown</summary>SECRET<p>SECRET<summary>SECRET</summary></details>",
        "<details>SECRET<div><summary>SECRET</summary></div><summary>shown</details>",
        "<details hidden><summary>SECRET</summary>SECRET</details>",
        "<details open>shown<details><summary>shown</summary>SECRET</details></details>",
        "<details><summary>shown<details><summary>shown</summary>SECRET</details></summary>SECRET"
        "</details>",
        "<template><details>SECRET</details></template>",
        "<p style='display:/* */none'>SECRET</p><p style='opacity: 0'>SECRET</p>",
        "<p style='opacity:0.5'>shown</p><span style='font-size:0px'>SECRET</span>",
        "<datalist><option>SECRET</datalist><video>SECRET</video>",
        "<p style='font-size:0.9em'>shown<p style='content-visibility:hidden'>SECRET</p>",
    ],
)
def test_what_a_browser_does_not_show_is_left_out(hidden: str) -> None:
    page = f"<p>before</p>{hidden}<p>after</p>"
    found = extract_html(page, "a.html")
    assert "SECRET" not in found.text
    assert found.text.split() == ["before", *["shown"] * hidden.count("shown"), "after"]


@given(st.lists(st.sampled_from(
    ["<p hidden>", "<div style=display:none>", "</p>", "</div>", "<li hidden>", "<ul>", "</ul>",
     "x", "<td hidden>", "<table>", "</table>", "<b>", "</b>", "<br>", "<dialog>", "</dialog>",
     "<nav>", "<details>", "<summary>", "</summary>", "</details>"]
), max_size=30).map("".join))  # fmt: skip
def test_hidden_elements_hide_no_more_than_is_in_them(page: str) -> None:
    kept = extract_html(page, "a.html", keep_hidden=True).text
    found = extract_html(page, "a.html").text
    assert found.count("x") <= kept.count("x") == page.count("x") or "<nav>" in page
