"""Middleware for ``langchain.agents``: an agent's last word goes out with its quotes checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from langchain_recallm.answers import PROVIDER
from langchain_recallm.blocks import content_of
from langchain_recallm.checking import check_message


class QuoteCheckMiddleware(AgentMiddleware[Any, Any, Any]):
    """Checks the last word of an agent, whatever model drives it; nothing passes unmarked.

    What can be quoted are the documents that tools returned (artifacts, ``search_result`` or
    ``document`` blocks), after those given here. Without any, every quote is absent.

    Args:
        documents: What can be quoted besides.
        repair: Whether quotes that only drifted get the documents' own words.
        claims: Whether sentences without a quote are matched to the documents as well.
    """

    def __init__(
        self, documents: Iterable[Any] = (), *, repair: bool = True, claims: bool = False
    ) -> None:
        super().__init__()
        self.documents = list(documents)
        self.repair = repair
        self.claims = claims

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> Any:
        """Lets the model answer, then checks what would be the agent's answer."""
        return self._check(handler(request), request.messages)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """The same for asynchronous agents."""
        return self._check(await handler(request), request.messages)

    def _check(self, response: Any, messages: Sequence[BaseMessage]) -> Any:
        result = getattr(response, "result", response)
        messages_made = list(result) if isinstance(result, list) else [result]
        last = messages_made[-1] if messages_made else None
        if not isinstance(last, AIMessage) or last.tool_calls:
            return response
        if last.response_metadata.get("model_provider") == PROVIDER:
            return response  # its quotes are exact by construction
        documents = [document for message in messages for document in _tool_documents(message)]
        checked = check_message(
            last, [*self.documents, *documents], repair=self.repair, claims=self.claims
        )
        structured = getattr(response, "structured_response", None)
        return ModelResponse(result=[*messages_made[:-1], checked], structured_response=structured)


def _tool_documents(message: BaseMessage) -> Sequence[Any]:
    return content_of(message).documents if isinstance(message, ToolMessage) else ()
