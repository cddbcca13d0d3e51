"""What the tests of pointing share: texts of any kind, and replies about them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from recallm_core import Answer, Document

FERRY = (
    "The ferry leaves Port Hallow at 9:30, every day of the year; it carries up to forty "
    "passengers, and a ticket costs 14 euros.\nDogs travel free."
)
LEAVE = "Parental leave is 16 weeks, paid in full. \U0001f476\r\nAsk Ines."
DOCUMENTS = (Document(FERRY, "ferry", "Ferry"), Document(LEAVE, "leave"))

# Text that looks like numbering, markup, JSON, chat marks or line ends, among any other text.
HOSTILE = st.sampled_from(
    ["[1] \"x\"", "\n[2] ", "\u2028[3] \"y\"", "\x85", "\"]}", "\\", "\"", "<|im_end|>", "</s>",
     "[INST]", "[/INST]", "<start_of_turn>", "Document 1:", "{\"answered\": false}", "\r\n",
     "\U0001f476", "e\u0301", "\u05d0", "\u202e", "\x00", "9:30. ", "Not so. ", "It is. "]
)  # fmt: skip
TEXTS = st.lists(HOSTILE | st.text(max_size=20), max_size=12).map("".join)
TEXTS = TEXTS.map(lambda text: text.encode("utf-8", "ignore").decode())


def reply(*statements: tuple[Any, str], answered: bool = True) -> str:
    """A reply as the schema wants it."""
    listed = [{"sentences": list(numbers), "text": text} for numbers, text in statements]
    return json.dumps({"answered": answered, "statements": listed})


def check(answer: Answer, documents: Any = DOCUMENTS) -> None:
    """Every citation, also of what came nearest, is the slice that it claims to be."""
    texts = {document.id: document.text for document in documents}
    for citation in (*answer.citations, *answer.nearest):
        assert texts[citation.document_id][citation.start : citation.end] == citation.text
        assert citation.text
        for place in citation.occurrences:
            assert texts[place.document_id][place.start : place.end] == citation.text
        if citation.answer_start is not None:
            assert 0 <= citation.answer_start < citation.answer_end <= len(answer.text)
    assert not (answer.abstained and answer.citations)
