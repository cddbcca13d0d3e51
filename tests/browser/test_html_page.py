"""The answer's page in a real browser, driven over the WebDriver protocol."""

from __future__ import annotations

import http.client
import http.server
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recallm_core.answers.answer import Answer, Citation, Usage
from recallm_core.answers.trace import AnswerText, Reasoning, Trace
from recallm_core.documents.document import Document
from recallm_core.documents.source_map import SourceMap
from recallm_core.rendering import to_html, to_html_fragment, visible

pytestmark = [
    pytest.mark.browser,
    pytest.mark.enable_socket,
]

HOSTILE = (
    "<script>document.title='owned'</script>\"><img src=x onerror=\"document.title='owned'\">\n"
    "<svg onload=alert(1)> <a href='javascript:alert(1)'>x</a> &lt;b&gt; &#x202e; </div></body>\n"
    "\x1b[31m \x00 \x9b \u202eevil\u202c \u2066x\u2069 \r\n\r\r\n\t"
    "<!-- <plaintext> ]]> <base href=//e>\n"
    "\u05e9\u05dc\u05d5\u05dd العربية 日本語 👨‍👩‍👧‍👦 e\u0301\n"
)
FILLER = "".join(f"A line that says little, number {n}.\n" for n in range(400))


def make_answer() -> Answer:
    documents = [
        Document(FILLER + "You have 27 days of leave a year.\n" + FILLER, "a", title="Leave"),
        Document(HOSTILE, "b", title=HOSTILE, source_map=SourceMap("javascript:alert(1)")),
        Document("x" * 3000 + " 27 days", "c", source_map=SourceMap("https://example.org/?a=1&b")),
    ]
    text = "You have 27 days. " + HOSTILE
    places = [
        (documents[0], "27 days of leave", (9, 16)),
        (documents[0], "days of leave a year", (12, 30)),
        (documents[1], HOSTILE[10:60], (20, 60)),
        (documents[2], "27 days", None),
    ]
    citations = tuple(
        Citation(
            document.id,
            start := document.text.index(quote),
            start + len(quote),
            quote,
            *(at or (None, None)),
            title=document.title,
            lines=document.lines(start, start + len(quote)),
            source=document.source_map.origin if document.source_map else None,
        )
        for document, quote, at in places
    )
    trace = Trace((Reasoning(HOSTILE), AnswerText(text)))
    sources = {document.id: document for document in documents}
    return Answer(
        text, citations, False, trace, Usage(), "stop", (), HOSTILE, "mini", sources
    )  # fmt: skip


@pytest.fixture
def answer() -> Answer:
    return make_answer()


@pytest.fixture
def page(tmp_path: Path, answer: Answer) -> Path:
    path = tmp_path / "answer.html"
    path.write_text(to_html(answer), encoding="utf-8", newline="")
    return path


IN_VIEW = """
const box = document.querySelector(arguments[0]).getBoundingClientRect();
return box.top >= 0 && box.bottom <= innerHeight && box.width > 0;
"""
LIT = """
const hit = getComputedStyle(document.body).getPropertyValue('--hit').trim();
const probe = document.createElement('i');
probe.style.color = hit;
document.body.append(probe);
const colour = getComputedStyle(probe).color;
probe.remove();
return [...document.querySelectorAll(arguments[0])]
  .filter(e => getComputedStyle(e).backgroundColor === colour).map(e => e.className);
"""


@pytest.mark.parametrize("scripted", [True, False])
def test_a_click_jumps_to_the_quote_and_marks_it_and_back(
    browser: Any, page: Path, answer: Answer, *, scripted: bool
) -> None:
    if not scripted:
        html = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r"<script>.*?</script>\n</body>", "</body>", html, flags=re.S))
    browser.open(page)
    assert not browser.run(LIT, "mark")
    for number in range(1, len(answer.citations) + 1):
        browser.click(f"a.cite[data-k='{number}']")
        assert browser.run("return location.hash") == f"#r-q{number}"
        wait_for(lambda n=number: browser.run(IN_VIEW, f"mark.q{n}"))
        marks = browser.run("return document.querySelectorAll(arguments[0]).length", f".q{number}")
        lit = browser.run(LIT, "mark")
        assert len(lit) == marks >= 1
        assert all(f"q{number}" in names.split() for names in lit)
        browser.click(f"a.back[data-k='{number}']")
        wait_for(lambda n=number: browser.run(IN_VIEW, f"#r-a{n}"))
        assert not browser.run(LIT, "mark")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came into view"
        time.sleep(0.05)


def test_the_address_alone_opens_at_the_quote(browser: Any, page: Path) -> None:
    browser.open(page, "#r-q2")
    wait_for(lambda: browser.run(IN_VIEW, "mark.q2"))
    assert len(browser.run(LIT, "mark")) == 2


def test_hostile_text_is_text_to_the_browser_too(browser: Any, page: Path, answer: Answer) -> None:
    browser.open(page)
    tags = set(browser.run("return [...document.querySelectorAll('*')].map(e => e.localName)"))
    assert tags == {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "main"),
        *("section", "article", "div", "p", "span", "a", "mark", "i", "ol", "li"),
        *("details", "summary", "script"),
    }
    names = browser.run(
        "return [...document.querySelectorAll('body, body *')].flatMap(e => e.getAttributeNames())"
    )
    assert not [name for name in names if name.startswith("on") or name in ("src", "style")]
    links = set(browser.run("return [...document.links].map(a => a.protocol + a.host)"))
    assert links == {"file:", "https:example.org"}
    texts = browser.run("return [...document.querySelectorAll('.excerpt')].map(e => e.textContent)")
    assert visible(answer.sources["b"].text) in texts
    shown = browser.run(
        "const text = document.querySelector('.text').cloneNode(true);"
        "text.querySelectorAll('.cite').forEach(e => e.remove()); return text.textContent"
    )
    assert shown == visible(answer.text)
    assert browser.run("return document.title") != "owned"
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.complaints() == []


class Listener(http.server.ThreadingHTTPServer):
    """Counts what reaches it."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.hits.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


REACH_OUT = """
const url = arguments[0], done = [];
new Image().src = url + '/image';
for (const [tag, key] of [['script', 'src'], ['iframe', 'src'], ['link', 'href']]) {
  const e = document.createElement(tag);
  if (tag === 'link') e.rel = 'stylesheet';
  e[key] = url + '/' + tag;
  document.body.append(e);
}
document.body.style.backgroundImage = `url(${url}/background)`;
try { navigator.sendBeacon(url + '/beacon'); } catch (e) {}
return fetch(url + '/fetch', {mode: 'no-cors'}).then(() => true, () => false);
"""


def test_the_policy_keeps_the_page_off_the_network(
    browser: Any, page: Path, tmp_path: Path
) -> None:
    listener = Listener()
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.server_port}"
    try:
        control = tmp_path / "control.html"
        control.write_text("<!doctype html><body>")
        browser.open(control)
        assert browser.run(REACH_OUT, f"{url}/control") is True
        wait_for(lambda: len(listener.hits) >= 4)
        browser.open(page)
        assert browser.run(REACH_OUT, f"{url}/page") is False
        time.sleep(0.5)
        assert [hit for hit in listener.hits if not hit.startswith("/control/")] == []
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(10)


@pytest.mark.parametrize("width", [320, 700, 1000, 2400])
def test_it_fits_any_width(browser: Any, page: Path, width: int) -> None:
    browser.resize(width, 800)
    browser.open(page)
    assert browser.run("return document.scrollingElement.scrollWidth") <= width
    answer, sources = browser.run(
        "return ['.answer', '.sources'].map(s => {"
        " const b = document.querySelector(s).getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom]})"
    )
    if width < 900:
        assert sources[1] >= answer[3]
    else:
        assert sources[0] >= answer[2]
        assert abs(sources[1] - answer[1]) < 60


CONTRAST = """
const rgb = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = c => rgb(c).map(v => v / 255).map(v => v <= .03928 ? v / 12.92
  : ((v + .055) / 1.055) ** 2.4).reduce((s, v, n) => s + v * [.2126, .7152, .0722][n], 0);
const ground = e => { for (; e; e = e.parentElement) {
  const c = getComputedStyle(e).backgroundColor;
  if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
return ['h1', '.text', '.cite', 'mark.d1', 'mark.d2', '.where', '.origin', '.gap', '.facts',
  '.excerpt', '.ctl'].map(s => { const e = document.querySelector(s);
  const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
  return [s, (a + .05) / (b + .05)]; });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(browser: Any, page: Path, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.command("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.open(page, "#r-q1")
    assert browser.run("return matchMedia('(prefers-color-scheme: dark)').matches") == (
        scheme == "dark"
    )
    ratios = dict(browser.run(CONTRAST))
    assert min(ratios.values()) >= 4.5, ratios  # WCAG AA


def test_two_fragments_live_in_one_notebook(browser: Any, tmp_path: Path, answer: Answer) -> None:
    other = Answer(
        "Other.", answer.citations, False, answer.trace, Usage(), "stop", sources=answer.sources
    )
    notebook = tmp_path / "notebook.html"
    parts = [to_html_fragment(one) for one in (answer, other)]
    notebook.write_text("<!doctype html><p id='own'>mine</p>" + "".join(parts), encoding="utf-8")
    browser.open(notebook)
    before = browser.run("return getComputedStyle(document.getElementById('own')).fontFamily")
    ids = browser.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert "system-ui" not in before
    browser.run("document.querySelectorAll('.recallm')[1].querySelector('a.cite').click()")
    lit = browser.run(
        "return [...document.querySelectorAll('.recallm')].map(r => [...r.querySelectorAll('mark')]"
        ".filter(m => getComputedStyle(m).boxShadow !== 'none').length)"
    )
    assert lit == [0, 2]
