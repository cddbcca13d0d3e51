"""A tool for agents: a question to documents, answered with quotes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, StructuredTool

from langchain_recallm.chat_models import ChatRecaLLM
from langchain_recallm.documents import message_citations
from langchain_recallm.sources import from_core

_DESCRIPTION = (
    "Answers a question from the documents, with word for word quotes as evidence. Ask one "
    "complete question at a time."
)


def create_cited_answer_tool(
    model: ChatRecaLLM,
    source: Any,
    *,
    name: str = "ask_documents",
    description: str = _DESCRIPTION,
) -> BaseTool:
    """Returns a tool that an agent of any model can call.

    What the agent's model reads is the answer and its quotes, as text. The tool message's
    ``artifact`` holds ``message`` (the answer with its annotations), ``citations`` and
    ``documents`` (what ``document_index`` counts).

    Args:
        model: Answers.
        source: A list of documents, a retriever, a ``CorpusIndex`` or a ``RecallFAISS``.
        name: What the tool is called.
        description: When it should be called.
    """
    index = getattr(source, "index", source)
    index = index if hasattr(index, "pack_report") else None
    if index is None and not isinstance(source, BaseRetriever | Sequence):
        raise TypeError(
            "source must be a list of documents, a retriever, a CorpusIndex or a RecallFAISS, got "
            f"{type(source).__name__}"
        )

    def ask(question: str) -> tuple[str, dict[str, Any]]:
        documents = source.invoke(question) if isinstance(source, BaseRetriever) else source
        searched = documents if index is None else index
        message = model.invoke([HumanMessage(question)], documents=searched)
        return _result(message, documents, index)

    async def aask(question: str) -> tuple[str, dict[str, Any]]:
        documents = await source.ainvoke(question) if isinstance(source, BaseRetriever) else source
        searched = documents if index is None else index
        message = await model.ainvoke([HumanMessage(question)], documents=searched)
        return _result(message, documents, index)

    return StructuredTool.from_function(
        ask,
        coroutine=aask,
        name=name,
        description=description,
        response_format="content_and_artifact",
    )


def _result(message: AIMessage, retrieved: Any, index: Any) -> tuple[str, dict[str, Any]]:
    """What the model reads, and what the program gets."""
    if index is not None:
        names = message.response_metadata["documents"]
        retrieved = [from_core(index.documents[name]) for name in names]
    documents = [d if isinstance(d, Document) else Document(str(d)) for d in retrieved]
    citations = message_citations(message)
    lines: list[str] = [str(message.text)]
    if message.response_metadata["abstained"]:
        lines.append("(The documents don't hold the answer.)")
    for number, citation in enumerate(citations, 1):
        label = citation.get("title") or citation["extras"]["document_id"]
        lines.append(f'[{number}] {label}: "{citation["cited_text"]}"')
    artifact = {"message": message, "citations": citations, "documents": documents}
    return "\n".join(lines), artifact
