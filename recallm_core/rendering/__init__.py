"""An answer for people: a page, Markdown, plain data, a terminal; hostile text can't act there."""

from __future__ import annotations

from recallm_core.rendering.data import answer_schema, to_dict, to_json
from recallm_core.rendering.html import to_html, to_html_fragment
from recallm_core.rendering.interchange import to_csl_json, to_web_annotations
from recallm_core.rendering.links import quote_url
from recallm_core.rendering.markdown import to_markdown
from recallm_core.rendering.visible import safe_url, visible

__all__ = [
    "answer_schema",
    "quote_url",
    "safe_url",
    "to_csl_json",
    "to_dict",
    "to_html",
    "to_html_fragment",
    "to_json",
    "to_markdown",
    "to_web_annotations",
    "visible",
]
