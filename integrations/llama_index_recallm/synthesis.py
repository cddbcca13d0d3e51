"""The events of one synthesis, for handlers and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.synthesis import (
    SynthesizeEndEvent,
    SynthesizeStartEvent,
)
from llama_index.core.schema import NodeWithScore, QueryType
from llama_index_instrumentation import get_dispatcher

dispatcher = get_dispatcher(__name__)


@contextmanager
def synthesis(
    callbacks: CallbackManager, query: QueryType, nodes: Sequence[NodeWithScore]
) -> Iterator[tuple[str, Callable[[RESPONSE_TYPE], RESPONSE_TYPE]]]:
    """Fires the events that begin and end a synthesis, as LlamaIndex's own synthesizers do.

    Yields the question as a text, and a function that is to be given the response. Callbacks hear
    nothing of a question without nodes, and an error ends without an end event.
    """
    dispatcher.event(SynthesizeStartEvent(query=query))
    question = query if isinstance(query, str) else query.query_str
    responses: list[RESPONSE_TYPE] = []

    def done(response: RESPONSE_TYPE) -> RESPONSE_TYPE:
        responses.append(response)
        return response

    if nodes:
        payload: dict[str, Any] = {EventPayload.QUERY_STR: question}
        with callbacks.event(CBEventType.SYNTHESIZE, payload=payload) as event:
            yield question, done
            event.on_end(payload={EventPayload.RESPONSE: responses[0]})
    else:
        yield question, done
    dispatcher.event(SynthesizeEndEvent(query=query, response=responses[0]))
