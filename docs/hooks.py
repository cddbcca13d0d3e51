"""Pages that are read in the repository and on the site: links to its root lead to their pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_PAGES = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_ROOT_LINK = re.compile(r"\]\((?:\.\./)*(" + "|".join(map(re.escape, _PAGES)) + r")(#[^)]*)?\)")
_ROOT = Path(__file__).resolve().parents[1]
_INCLUDE = re.compile(r'--8<-- "([A-Z]+\.md)"')
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Puts in what a page includes, and points links to root pages at the site's own."""
    source = page.file.src_uri
    included = _INCLUDE.fullmatch(markdown.strip())
    if included:
        text = (_ROOT / included[1]).read_text("utf-8").replace("](docs/", "](")
        markdown = _OUTSIDE.sub(lambda link: link[0] if _is_page(link[2]) else link[1], text)
    depth = source.count("/")
    return _ROOT_LINK.sub(lambda link: f"]({'../' * depth}{_PAGES[link[1]]})", markdown)


def _is_page(target: str) -> bool:
    return target in _PAGES or (_ROOT / "docs" / target).is_file()
