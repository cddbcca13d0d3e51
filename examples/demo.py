"""Three questions over the documents in examples/docs, answered by the shipped model."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from recallm_core import Finished, RecaLLM, load_documents
from recallm_core.rendering.terminal import AnswerConsole, AnswerView

DOCS = Path(os.path.relpath(Path(__file__).resolve().parent / "docs"))
QUESTIONS = (
    "How many books may a member borrow?",
    "When was the lighthouse on the island built?",
    "How long does a rollback take?",
)


def main() -> int:
    """Answers the questions and checks every quote against the files' texts."""
    began = time.monotonic()
    documents = load_documents([DOCS]).documents
    texts = {document.id: document.text for document in documents}
    console = AnswerConsole(highlight=False, markup=False, emoji=False)
    quotes = 0
    with RecaLLM.load("recallm-mini") as llm:
        print(f"{len(documents)} documents, model {llm.name}, {time.monotonic() - began:.1f} s")
        for question in QUESTIONS:
            print(f"\n> {question}\n")
            view = AnswerView(console, reasoning=True)
            with llm.stream(question, documents) as stream:
                for event in stream:
                    if not isinstance(event, Finished):
                        view.feed(event)
                answer = stream.result()
            view.finish(answer)
            view.close()
            for citation in answer.citations:
                assert texts[citation.document_id][citation.start : citation.end] == citation.text
                quotes += 1
    print(f"\n{quotes} quotes, each equal to text[start:end] of its file.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
