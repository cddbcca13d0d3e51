"""Makes the pictures of docs/pictures from real runs: terminal, page, notebook, `recallm ui`.

Needs chromium and chromedriver: `python docs/pictures.py`.
"""

from __future__ import annotations

import html
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from recallm_core import Finished, RecaLLM, load_documents
from recallm_core.rendering.terminal import AnswerView

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
QUESTION = "What does a ticket cost?"
COMMAND = f'recallm ask "{QUESTION}" --docs examples/docs'
OF_A_PDF = "How long does a rollback take?"


def main() -> None:
    """Writes every picture."""
    os.chdir(ROOT)
    PICTURES.mkdir(exist_ok=True)
    documents = list(load_documents(["examples/docs"]))
    with RecaLLM.load("recallm-mini") as llm, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        terminal(llm, documents)
        page = folder / "answer.html"
        page.write_text(llm.answer(QUESTION, documents).to_html(), encoding="utf-8")
        shot(page, PICTURES / "page.png")
        page.write_text(notebook(llm, documents), encoding="utf-8")
        shot(page, PICTURES / "notebook.png")
        ui(folder)


def terminal(llm: RecaLLM, documents: list[Any]) -> None:
    """The command's answer, as a terminal shows it."""
    console = Console(
        record=True,
        width=88,
        force_terminal=True,
        force_interactive=False,  # a recording keeps what a terminal draws over
        file=open(os.devnull, "w"),  # noqa: PTH123, SIM115
    )
    console.print(f"$ {COMMAND}", style="bold", markup=False, highlight=False)
    view = AnswerView(console)
    for event in llm.stream(QUESTION, documents):
        if isinstance(event, Finished):
            view.finish(event.answer)
        else:
            view.feed(event)
    view.close()
    svg = console.export_svg(title="recallm ask")
    (PICTURES / "terminal.svg").write_text(svg, encoding="utf-8")


CELL = """<div style="display:flex;gap:1rem;margin:12px 0;font:14px/1.5 system-ui,sans-serif">
<code style="color:{color};width:5rem;text-align:right;flex:none">{label} [{number}]:</code>
<div style="flex:1;min-width:0{style}">{content}</div></div>"""
INPUT = ";background:#f7f7f7;border:1px solid #e0e0e0;padding:6px 10px"


def notebook(llm: RecaLLM, documents: list[Any]) -> str:
    """A notebook's cell that asks, and below it the answer as it shows itself there."""
    question = html.escape(f'answer = llm.answer("{QUESTION}", documents)', quote=False)
    answer = llm.answer(QUESTION, documents)._repr_html_()
    cells = [("In", "#307fc1", f"<code>{question}<br>answer</code>", INPUT)]
    cells.append(("Out", "#bf5b3d", answer, ""))
    return "<!doctype html><meta charset=utf-8><body style='margin:8px 24px'>" + "".join(
        CELL.format(label=label, color=color, number=3, content=content, style=style)
        for label, color, content, style in cells
    )


def chromium(*options: str) -> None:
    """Runs the browser without a window."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    assert browser, "chromium is needed"
    flags = ["--headless=new", "--disable-gpu", "--no-sandbox", "--hide-scrollbars", *options]
    subprocess.run([browser, *flags], check=True, stderr=subprocess.DEVNULL)


def shot(page: Path, picture: Path) -> None:
    """A page as the browser draws it."""
    chromium("--window-size=1200,760", f"--screenshot={picture}", page.as_uri())


def ui(folder: Path) -> None:
    """The page of `recallm ui` over a PDF that the browser printed, a quote shown on its page."""
    documents = folder / "handbook"
    documents.mkdir()
    for path in (ROOT / "examples" / "docs").iterdir():
        if path.suffix == ".html":
            printed = documents / f"{path.stem}.pdf"
            chromium(f"--print-to-pdf={printed}", "--no-pdf-header-footer", path.as_uri())
        else:
            shutil.copy(path, documents)
    server = subprocess.Popen(
        [sys.executable, "-m", "recallm_core.cli", "ui", "handbook", "--no-browser"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert driver.stdout is not None
        address = server.stdout.readline().removeprefix("RecaLLM: ").strip()
        started = next(line for line in driver.stdout if "success" in line)
        browser = _browser_class()(int(started.rsplit(" ", 1)[1].strip(". \n")))
        try:
            draw(browser, address)
        finally:
            browser.close()
    finally:
        for process in (server, driver):
            process.terminate()
            process.wait(20)


def draw(browser: Any, address: str) -> None:
    """Asks the question and shows where its first quote stands."""
    browser.resize(1200, 760)
    browser.visit(address)
    browser.wait("return /documents from/.test(document.body.textContent)")
    browser.type("#question", OF_A_PDF + "\ue007")
    browser.wait("return !!document.querySelector('.turn .facts')")
    browser.click(".turn .quotes button")
    browser.wait("return !!document.querySelector('#source-page img')")
    (PICTURES / "ui.png").write_bytes(browser.screenshot())


def _browser_class() -> Any:
    """The tests' own, by its file: tests are no package."""
    path = ROOT / "tests" / "browser" / "conftest.py"
    spec = importlib.util.spec_from_file_location("browser_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Browser


if __name__ == "__main__":
    main()
