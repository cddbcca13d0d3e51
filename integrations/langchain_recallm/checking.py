"""Whatever model wrote a message: its quotes checked, what is sound cited, the rest marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda

import recallm_core as recallm
from langchain_recallm.answers import answer_annotations
from langchain_recallm.sources import Sources, collect
from recallm_core.adapting import QuoteReport

KEY = "quotes"  # of response_metadata, and of a chain's result


def check_message(
    message: AIMessage, documents: Iterable[Any], *, repair: bool = True, claims: bool = False
) -> AIMessage:
    """Returns a message with its quotes checked, as content blocks (``v1``).

    Its text is one block, whose annotations are the quotes that the documents hold, at their
    offsets there; the provider's own citations are checked and become such annotations as well.
    ``response_metadata["quotes"]`` has the verdict on every quote, and ``ok``: whether all are
    sound. Other blocks and the tool calls stay as they are.

    Args:
        message: Any model's answer.
        documents: What it can quote, in the order that it counts them in.
        repair: Whether quotes that only drifted get the documents' own words.
        claims: Whether sentences without a quote are matched to the documents as well.

    Raises:
        DocumentError: A document is none, or two share an id.
    """
    sources, core = collect(documents)
    report = recallm.check_quotes(message, core, repair, claims=claims)
    return message.model_copy(
        update={
            "content": [*_other_blocks(message), _text_block(report, sources)],
            "response_metadata": {
                **message.response_metadata,
                "output_version": "v1",
                KEY: verdicts(report),
            },
        }
    )


def verdicts(report: QuoteReport) -> dict[str, Any]:
    """Returns what a check found as plain data."""
    data = report.to_dict()
    return {key: data[key] for key in ("ok", "counts", "repairs", "quotes", "claims")}


def quote_checker(
    documents: Iterable[Any] | None = None, *, repair: bool = True, claims: bool = False
) -> Runnable[Any, Any]:
    """Returns the last step of a chain: it checks what the model before it wrote.

    It takes a message and returns one (``check_message``); or the result of a retrieval chain,
    with ``answer`` and ``context``, and returns it with the answer checked and the verdicts under
    ``quotes``.

    Args:
        documents: What can be quoted; None takes the ``context`` of the result.
        repair: Whether quotes that only drifted get the documents' own words.
        claims: Whether sentences without a quote are matched to the documents as well.
    """
    listed = None if documents is None else list(documents)
    step = partial(_check, documents=listed, repair=repair, claims=claims)
    return RunnableLambda(step, name="check_quotes")


def _check(value: Any, *, documents: Sequence[Any] | None, repair: bool, claims: bool) -> Any:
    if isinstance(value, AIMessage):
        return check_message(value, documents or (), repair=repair, claims=claims)
    if not isinstance(value, Mapping) or "answer" not in value:
        raise TypeError(
            "expected an AIMessage or a mapping with 'answer' (and 'context'), got "
            f"{type(value).__name__}; put the checker behind the model, before an output parser"
        )
    known = value.get("context", ()) if documents is None else documents
    answer = value["answer"]
    if isinstance(answer, AIMessage):
        message = check_message(answer, known, repair=repair, claims=claims)
        return {**value, "answer": message, KEY: message.response_metadata[KEY]}
    _, core = collect(known)
    report = recallm.check_quotes(answer, core, repair, claims=claims)
    return {**value, "answer": report.text, KEY: verdicts(report)}


def _text_block(report: QuoteReport, sources: Sources) -> dict[str, Any]:
    annotations = answer_annotations(report.answer, sources)
    extra = {"annotations": annotations} if annotations else {}
    return {"type": "text", "text": report.text, **extra}


def _other_blocks(message: AIMessage) -> list[Any]:
    if isinstance(message.content, str):
        return []
    return [block for block in message.content_blocks if block["type"] != "text"]
