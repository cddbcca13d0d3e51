"""A report as one page of HTML: the Markdown of it, with its pictures inside."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2330; max-width: 62rem; margin: 2rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 13px; margin: 0.8rem 0; display: block;
  overflow-x: auto; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #dfe3ea; text-align: left; }
th { border-bottom: 2px solid #9aa3b2; }
td:not(:first-child) { font-variant-numeric: tabular-nums; }
code { background: #f2f4f7; padding: 0.1em 0.3em; border-radius: 3px; font-size: 0.9em; }
img { max-width: 100%; }
"""
_IMAGE = re.compile(r'<img src="([\w.-]+\.(?:png|svg))"')
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def page(markdown: str, title: str, folder: Path) -> str:
    """Returns a page that needs no other file; markup in the text is shown, never obeyed.

    Args:
        markdown: The report.
        title: Of the page.
        folder: Where its pictures are.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = _IMAGE.sub(lambda match: f'<img src="{_data_uri(folder / match.group(1))}"', body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )


def _data_uri(path: Path) -> str:
    """A picture as a data URI; its name where it isn't there."""
    if not path.is_file():
        return path.name
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{_TYPES[path.suffix]};base64,{data}"


def write_page(folder: Path, title: str) -> None:
    """Writes ``report.html`` beside a run's ``report.md``."""
    text = (folder / "report.md").read_text("utf-8")
    (folder / "report.html").write_text(page(text, title, folder), "utf-8")
