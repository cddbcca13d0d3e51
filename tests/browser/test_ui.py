"""The page of ``recallm ui`` in a real browser, over the shipped model and real files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.enable_socket]

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\n"
    "The committee meets in Bergen. <svg onload=\"document.title='owned'\">\x1b[31m\u202eevil\n"
)
ENTER, ESCAPE, TAB = "\ue007", "\ue00c", "\ue004"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pdf: Callable[..., bytes]) -> Path:
    root = tmp_path_factory.mktemp("docs")
    leave = "Every employee has 27 days of paid leave a year.\nUnused days expire in March.\n"
    (root / "leave.md").write_text("# Leave\n\n" + leave)
    (root / "<img src=x onerror=alert(1)>.md").write_text(HOSTILE)
    (root / "fees.pdf").write_bytes(
        pdf(["The yearly fee of the club is 45 euro.\nIt is due in May."])
    )
    return root


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "recallm_core.cli", "ui", str(folder), "--no-browser"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("RecaLLM: http://127.0.0.1:"), line
    yield line.removeprefix("RecaLLM: ").strip()
    server.terminate()
    server.wait(20)
    server.stdout.close()


@pytest.fixture
def page(browser: Any, address: str) -> Any:
    browser.visit(address)
    browser.wait("return /documents? from/.test(document.body.textContent)")
    return browser


def ask(page: Any, question: str) -> str:
    """Asks by keyboard alone, and returns the text of the last answer."""
    page.type("#question", question + ENTER)
    page.wait("return !!document.querySelector('.turn:last-child .facts, .turn:last-child .error')")
    text: str = page.run("return document.querySelector('.turn:last-child').textContent")
    return text


def is_untouched(page: Any) -> bool:
    """Whether nothing in a document acted."""
    title: str = page.run("return document.title")
    return title == "RecaLLM" and not page.run(
        "return document.querySelectorAll('#turns img').length"
    )


def test_the_key_leaves_the_address(page: Any, address: str) -> None:
    assert "#key=" in address
    assert "key" not in page.run("return location.href")


def test_a_question_is_answered_and_its_quote_shown_in_the_text(page: Any) -> None:
    text = ask(page, "How many days of paid leave does every employee have?")
    assert "27 days" in text
    page.click(".turn:last-child .quotes button")
    page.wait("return !!document.querySelector('#source-text mark')")
    marked = page.run("return document.querySelector('#source-text mark').textContent")
    assert "27 days" in marked
    assert page.run("return document.activeElement.id") == "source"
    page.press(ESCAPE)
    assert page.run("return document.getElementById('source').hidden")
    assert page.run("return document.activeElement.closest('.quotes') !== null")
    assert is_untouched(page)


def test_a_quote_of_a_pdf_is_marked_on_its_page(page: Any) -> None:
    assert "45 euro" in ask(page, "What is the yearly fee of the club?")
    page.click(".turn:last-child .quotes button")
    page.wait("return !!document.querySelector('#source-page img')")
    inside = page.run(
        "const p = document.querySelector('#source-page img').getBoundingClientRect();"
        "const b = document.querySelector('.box').getBoundingClientRect();"
        "return b.width > 20 && b.left >= p.left && b.right <= p.right && b.top >= p.top"
    )
    assert inside
    assert "page 1" in page.run("return document.getElementById('source-place').textContent")


def test_the_newest_answer_stands_above_the_question_box(page: Any) -> None:
    page.resize(900, 560)
    for question in ("What is the yearly fee of the club?", "Who won the chess championship?"):
        ask(page, question)
        end, box, heading = page.run(
            "const at = (s) => document.querySelector(s).getBoundingClientRect();"
            "const turn = at('.turn:last-child');"
            "return [turn.bottom, at('#ask').top, at('.turn:last-child h2').top]"
        )
        assert heading >= 0
        assert end <= box or heading < 40  # all of it, or as much as fits below its heading


def test_hostile_documents_are_text(page: Any) -> None:
    ask(page, "Where does the committee meet?")
    page.click("#setup-toggle")
    assert is_untouched(page)
    names = page.run("return document.querySelector('#documents ul').textContent")
    assert "<img src=x onerror=alert(1)>" in names
    buttons = page.run("return document.querySelectorAll('.turn:last-child .quotes button').length")
    if buttons:
        page.click(".turn:last-child .quotes button")
        page.wait("return document.getElementById('source-text').textContent.includes('<script>')")
    assert is_untouched(page)
    assert not [line for line in page.complaints() if "Refused" in line or "Error" in line]


def test_what_cant_be_opened_is_told_and_the_rest_stays(page: Any) -> None:
    page.click("#setup-toggle")
    page.run("document.getElementById('paths').value = '/nowhere/at/all'")
    page.click("#open-form button")
    page.wait("return document.getElementById('setup-status').className === 'error'")
    assert "nowhere" in page.run("return document.getElementById('setup-status').textContent")
    assert "3 documents" in page.run("return document.getElementById('open-summary').textContent")


@pytest.mark.parametrize(("width", "height"), [(1300, 900), (380, 700)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows(page: Any, width: int, height: int, scheme: str) -> None:
    page.resize(width, height)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.command("Emulation.setEmulatedMedia", {"features": features})
    ask(page, "What is the yearly fee of the club?")
    keep(page, f"answer-{width}-{scheme}")
    page.click(".turn:last-child .quotes button")
    page.wait("return !!document.querySelector('#source-page img')")
    keep(page, f"source-{width}-{scheme}")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    shades = page.run(
        "const c = getComputedStyle(document.body);"
        "return [c.color, c.backgroundColor].map(v => v.match(/\\d+/g).slice(0, 3)"
        ".reduce((sum, part) => sum + Number(part), 0))"
    )
    assert (shades[0] < shades[1]) == (scheme == "light")


def keep(page: Any, name: str) -> None:
    """Leaves a picture to look at, in the folder that RECALLM_SCREENSHOTS names."""
    if folder := os.environ.get("RECALLM_SCREENSHOTS"):
        (Path(folder) / f"{name}.png").write_bytes(page.screenshot())


def test_every_control_has_a_name_and_is_reached_by_the_keyboard(page: Any) -> None:
    ask(page, "What is the yearly fee of the club?")
    page.click("#setup-toggle")
    nameless = page.run(
        "return [...document.querySelectorAll('button, input, textarea, a')].filter(e =>"
        " !(e.textContent.trim() || e.getAttribute('aria-label')"
        " || (e.labels && e.labels.length))).map(e => e.outerHTML)"
    )
    assert nameless == []
    page.run("document.body.focus(); document.activeElement.blur()")
    reached = set()
    for _ in range(30):
        page.press(TAB)
        reached.add(page.run("const e = document.activeElement; return e.id || e.className"))
    assert {"question", "send", "setup-toggle", "paths", "model", "cite"} <= reached
