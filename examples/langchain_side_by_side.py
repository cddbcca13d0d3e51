"""One question, asked of ChatHuggingFace and of ChatRecaLLM on the same weights.

Needs ``pip install langchain-huggingface``, which the project itself doesn't.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage

from langchain_recallm import ChatRecaLLM, message_citations

MODEL = Path(__file__).resolve().parents[1] / "recallm_core" / "models" / "recallm-mini"
TEXT = "The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros."
QUESTION = "What does a ticket cost?"


def show(what: str, ask: Callable[[], Any]) -> None:
    """Prints what comes back, an error included."""
    try:
        said = repr(ask())
    except (NotImplementedError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
    print(f"  {what}: {said[:150]}")


def report(name: str, model: Any, messages: list[Any], **call: Any) -> None:
    """Asks one model in several ways."""
    print(name)
    message = model.invoke(messages, **call)
    show("text", lambda: message.text)
    show("citations", lambda: [c["cited_text"] for c in message_citations(message)])
    show("usage", lambda: message.usage_metadata)
    show("metadata", lambda: message.response_metadata)
    show("ainvoke", lambda: asyncio.run(model.ainvoke(messages, **call)).text)


def main() -> int:
    """Asks both."""
    try:
        from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    except ModuleNotFoundError as error:
        print(f"{error}; run: pip install langchain-huggingface", file=sys.stderr)
        return 2
    pipeline = HuggingFacePipeline.from_model_id(
        str(MODEL),
        task="text-generation",
        pipeline_kwargs={"max_new_tokens": 60, "do_sample": False},
    )
    flat = [HumanMessage(f"{TEXT}\n\nQuestion: {QUESTION}")]
    report("ChatHuggingFace", ChatHuggingFace(llm=pipeline), flat)
    ours = ChatRecaLLM("recallm-mini", temperature=0)
    report("ChatRecaLLM", ours, [HumanMessage(QUESTION)], documents=[Document(TEXT)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
