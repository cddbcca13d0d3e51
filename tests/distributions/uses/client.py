"""A client of a server, without torch; its argument is the folder of the stand-in for a server."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import recallm_core
from recallm_core import Document, RecaLLM

sys.path.append(sys.argv[1])
from fake_server import FakeServer  # type: ignore[import-not-found]

assert find_spec("torch") is None
assert Path(recallm_core.__file__).is_relative_to(sys.prefix), recallm_core.__file__
text = "The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros."
script = (
    "I look. <|start_recall|>A ticket costs 14 euros<|end_recall|>.</think>"
    "It costs <|start_recall|>14 euros<|end_recall|>."
)
server = FakeServer(script)
try:
    with RecaLLM.load(server.url) as llm:
        assert llm.recipe.prior == "reader"  # which computes here, in plain arrays
        answer = llm.answer("What does a ticket cost?", [Document(text, id="ferry")])
    assert not answer.abstained
    assert answer.citations
    for citation in answer.citations:
        assert text[citation.start : citation.end] == citation.text
finally:
    server.stop()
assert "torch" not in sys.modules
print("client: all well")
