"""What the core's wheel does alone; run by the python of an environment that holds nothing else."""

from __future__ import annotations

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import recallm_core
from recallm_core import Document, MissingExtraError, RecaLLM, check_quotes, load_documents
from recallm_core.cli import main

ABSENT = ("torch", "transformers", "faiss", "tokenizers", "safetensors", "httpx2", "llguidance")


def refused(command: str, use: object, *arguments: object) -> None:
    """A use that needs an extra says so, with its command."""
    try:
        use(*arguments)  # type: ignore[operator]
    except MissingExtraError as error:
        told = str(error)
    else:
        told = "nothing"
    assert f"pip install 'recallm-core[{command}]'" in told, (use, told)


assert [name for name in ABSENT if find_spec(name)] == []
assert Path(recallm_core.__file__).is_relative_to(sys.prefix), recallm_core.__file__

with tempfile.TemporaryDirectory() as folder:
    text = "The ferry leaves Port Hallow at 9:30.\nA ticket costs 14 euros.\n"
    Path(folder, "ferry.txt").write_text(text, "utf-8")
    Path(folder, "leave.html").write_text("<p>Parental leave is 16 weeks.</p>", "utf-8")
    documents = load_documents([folder]).documents
    assert documents[0].text == text
    report = check_quotes('They say "A ticket costs 14 euros" and "It is free".', documents)
    (quote, absent) = report.quotes
    assert quote.verdict == "exact"
    assert absent.verdict == "absent"
    citation = quote.citation
    assert citation is not None
    assert documents[0].text[citation.start : citation.end] == citation.text
    Path(folder, "answer.md").write_text('She wrote "A ticket costs 14 euros".', "utf-8")
    assert main(["check", f"{folder}/answer.md", "--docs", f"{folder}/ferry.txt"]) == 0
    assert main(["ask", "x", "--docs", folder]) == 1
refused("local", RecaLLM.load)
refused("server", RecaLLM.load, "http://127.0.0.1:9")
refused("index", recallm_core.CorpusIndex.build, [Document("One sentence.")])
refused("local", getattr, recallm_core, "RecallLogitsProcessor")
notices = [p for p in Path(recallm_core.__file__).parent.glob("models/*/NOTICE") if p.is_file()]
weights = Path(recallm_core.__file__).parent.glob("models/*/*.safetensors")
others = {path.parent.name for path in weights} - {"recallm-mini"}  # of our own data alone
assert {path.parent.name for path in notices} == others
print("base: all well")
