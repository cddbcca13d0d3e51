"""Middleware for ``langchain.agents``: the last word of an agent is a cited answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage

from langchain_recallm.answers import PROVIDER
from langchain_recallm.blocks import content_of
from langchain_recallm.chat_models import ChatRecaLLM
from langchain_recallm.cited_model import CitedChatModel
from langchain_recallm.documents import message_citations


class GroundingMiddleware(AgentMiddleware[Any, Any, Any]):
    """Answers from the sources that the agent gathered, whatever model drives the agent.

    The agent's own model decides which tools to call. As soon as it wants to answer, and tools have
    returned documents (artifacts, ``search_result`` or ``document`` blocks), ``ChatRecaLLM``
    answers in its place from exactly these, so that the last message carries annotations. If what
    they returned is empty, the answer is an abstention.

    No last word passes unmarked: ``response_metadata["grounded"]`` says whether it has citations
    of ours. It is False for an abstention, and for what an agent says that looked for no source.

    Args:
        model: Answers; ``ChatRecaLLM``, or what ``cited`` returns.
    """

    def __init__(self, model: ChatRecaLLM | CitedChatModel) -> None:
        super().__init__()
        self.model = model

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> Any:
        """Lets the agent's model go first, then replaces what would be the answer."""
        response = handler(request)
        if not _answers(response, request.messages):
            return _mark_grounded(response)
        return _mark_grounded(ModelResponse(result=[self.model.invoke(_messages(request))]))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """The same for asynchronous agents."""
        response = await handler(request)
        if not _answers(response, request.messages):
            return _mark_grounded(response)
        return _mark_grounded(ModelResponse(result=[await self.model.ainvoke(_messages(request))]))


def _mark_grounded(response: Any) -> Any:
    """A response whose last message says whether it has citations; calls of tools are no answer."""
    last, earlier = _last(response)
    if not isinstance(last, AIMessage) or last.tool_calls:
        return response
    metadata = last.response_metadata
    ours = metadata.get("model_provider") == PROVIDER  # nobody has checked what others cite
    grounded = {"grounded": ours and bool(message_citations(last))}
    marked = last.model_copy(update={"response_metadata": {**metadata, **grounded}})
    structured = getattr(response, "structured_response", None)
    return ModelResponse(result=[*earlier, marked], structured_response=structured)


def _last(response: Any) -> tuple[Any, Sequence[Any]]:
    """The last message of a response, and those before it."""
    result = getattr(response, "result", response)
    messages_made = result if isinstance(result, list) else [result]
    return (messages_made[-1], messages_made[:-1]) if messages_made else (None, [])


def _answers(response: Any, messages: Sequence[BaseMessage]) -> bool:
    """Whether a response ends the agent's work, and sources were looked for to answer from."""
    last, _ = _last(response)
    if not isinstance(last, AIMessage) or last.tool_calls:
        return False
    if getattr(response, "structured_response", None) is not None:
        return False
    if last.response_metadata.get("model_provider") == PROVIDER:
        return False  # it is a cited answer already
    return any(
        isinstance(message, ToolMessage) and content_of(message).searched for message in messages
    )


def _messages(request: ModelRequest[Any]) -> list[BaseMessage]:
    system = request.system_message
    before: list[BaseMessage] = [] if system is None else [SystemMessage(system.text)]
    return [*before, *request.messages]
