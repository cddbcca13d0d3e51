"""Responses of any engine with their quotes checked, and an engine that returns such responses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import RESPONSE_TYPE, AsyncStreamingResponse
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle

import recallm_core as recallm
from llama_index_recallm import sources
from llama_index_recallm.evidence import Reader
from llama_index_recallm.messages import citable_id
from llama_index_recallm.responses import KEY, CitedResponse, plain
from llama_index_recallm.sources import Originals

QUOTES = "quotes"
"""Key of a response's metadata under which the verdicts stand."""

_NOTHING = ("", "None", "Empty Response")  # what responses without a node say in LlamaIndex


def check_response(
    response: Any, *, documents: Any = None, repair: bool = True, claims: bool = False
) -> CitedResponse:
    """Returns a response with its quotes checked against its source nodes, whatever made it.

    Quotes that the nodes hold become citations; ``metadata["quotes"]`` has the verdict on every
    quote, and ``ok``: whether all are sound. ``[2]`` beside a quote means the second node, as
    ``CitationQueryEngine`` counts. No model is asked.

    Args:
        response: A response of a query or chat engine; a stream is read to its end.
        documents: The original texts, as for ``RecaLLMSynthesizer``.
        repair: Whether quotes that only drifted get the nodes' own words.
        claims: Whether sentences without a quote are matched to the nodes as well.

    Raises:
        TypeError: It has no source nodes, or is a stream that only its own loop can read.
    """
    if isinstance(response, AsyncStreamingResponse):
        raise TypeError("await the response's get_response() first, then check what that returns")
    nodes = getattr(response, "source_nodes", None)
    if not isinstance(nodes, list):
        raise TypeError(f"expected a response with source nodes, got {type(response).__name__}")
    readings = [sources.read(node) for node in nodes]
    texts = [
        recallm.Document(source.text, citable_id(n), source.label(metadata=False) or None)
        for n, source in enumerate(readings)
    ]
    report = recallm.check_quotes(str(response), texts, repair, claims=claims)
    evidence = Reader(readings, Originals(documents)).evidence(report.answer.to_dict())
    if not nodes and str(response).strip() in _NOTHING:
        evidence = replace(evidence, abstained=True, finish_reason="empty")
    metadata = dict(getattr(response, "metadata", None) or {})
    verdicts = report.to_dict()
    metadata[KEY] = {**plain(evidence), "left_out": []}
    metadata[QUOTES] = {
        key: verdicts[key] for key in ("ok", "counts", "repairs", "quotes", "claims")
    }
    checked = CitedResponse(report.text, nodes, metadata)
    checked.take(evidence)
    return checked


class QuoteCheckQueryEngine(BaseQueryEngine):
    """Answers with another engine, and checks the quotes of what that says.

    ```python
    engine = QuoteCheckQueryEngine(CitationQueryEngine.from_args(index), claims=True)
    response = engine.query(question)
    response.metadata["quotes"]["ok"], response.citations
    ```

    Args:
        engine: Any query engine.
        documents: As for ``check_response``.
        repair: As for ``check_response``.
        claims: As for ``check_response``.

    Raises:
        TypeError: It is no query engine.
    """

    def __init__(
        self,
        engine: BaseQueryEngine,
        *,
        documents: Any = None,
        repair: bool = True,
        claims: bool = False,
    ) -> None:
        if not isinstance(engine, BaseQueryEngine):
            raise TypeError(f"engine must be a query engine, got {type(engine).__name__}")
        super().__init__(engine.callback_manager)
        self._engine = engine
        self._options = {"documents": documents, "repair": repair, "claims": claims}

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"engine": self._engine}

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Returns what the engine inside retrieves."""
        return self._engine.retrieve(query_bundle)

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Returns what the engine inside makes of some nodes, checked."""
        response = self._engine.synthesize(query_bundle, nodes, additional_source_nodes)
        return check_response(response, **self._options)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """``synthesize`` without blocking the event loop."""
        response = await self._engine.asynthesize(query_bundle, nodes, additional_source_nodes)
        return await self._check(response)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return check_response(self._engine.query(query_bundle), **self._options)

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return await self._check(await self._engine.aquery(query_bundle))

    async def _check(self, response: Any) -> CitedResponse:
        if isinstance(response, AsyncStreamingResponse):
            response = await response.get_response()
        return await asyncio.to_thread(check_response, response, **self._options)
