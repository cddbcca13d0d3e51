"""Query engines and tools that answer with citations, and what gets citations out of agents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.tools import QueryEngineTool, ToolMetadata, ToolOutput

import recallm_core as recallm
from llama_index_recallm.anchors import Nodes
from llama_index_recallm.cited_llm import AnsweringLLM
from llama_index_recallm.packed_context import PackedContextRetriever
from llama_index_recallm.responses import KEY, Citation, Evidence
from llama_index_recallm.synthesizer import RecaLLMSynthesizer, chosen_llm

_DEPTH = 6
_HOLDERS = ("raw", "raw_output", "tool_output", "sources", "tool_calls", "answer", "result")


class RecaLLMQueryEngine(RetrieverQueryEngine):
    """A ``RetrieverQueryEngine`` whose every part is local: nothing falls back on a hosted model.

    Engines that look for a ``RetrieverQueryEngine``, such as the condensing chat engine, take it
    for one.
    """

    @classmethod
    def build(
        cls,
        source: Any,
        llm: AnsweringLLM | str | None = None,
        *,
        documents: Any = None,
        docstore: Any = None,
        token_budget: int | None = None,
        streaming: bool = False,
        text_qa_template: BasePromptTemplate | None = None,
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        packed: bool = True,
        callback_manager: CallbackManager | None = None,
        **synthesizer_options: Any,
    ) -> RecaLLMQueryEngine:
        """Returns an engine over an index.

        Args:
            source: A LlamaIndex index, a retriever, or a ``CorpusIndex`` of the core.
            llm: A ``RecaLLM`` or its name; None: ``Settings.llm`` if it is one, else the model that
                ships.
            documents: The original texts; with them, places in documents are checked.
            docstore: Where the nodes beside a node are found; None: in the index, if it has them.
            token_budget: Tokens of nodes at most; None: what the context leaves.
            streaming: Whether answers are streamed.
            text_qa_template: As for ``RecaLLMSynthesizer``.
            node_postprocessors: Applied after packing.
            packed: Whether to fetch nodes until the budget is full, instead of the top few.
            callback_manager: As in every engine.
            synthesizer_options: Further arguments of ``RecaLLMSynthesizer``.
        """
        model = chosen_llm(llm)
        if documents is None and isinstance(source, recallm.CorpusIndex):
            documents = source
        near = Nodes(source) if docstore is None else docstore
        retriever = retriever_of(source, model, token_budget, callback_manager)
        if packed and not isinstance(retriever, PackedContextRetriever):
            retriever = PackedContextRetriever(
                retriever,
                llm=model,
                documents=documents,
                docstore=near,
                token_budget=token_budget,
                callback_manager=callback_manager,
            )
        synthesizer = RecaLLMSynthesizer(
            model,
            callback_manager,
            documents=documents,
            docstore=near,
            token_budget=token_budget,
            streaming=streaming,
            text_qa_template=text_qa_template,
            **synthesizer_options,
        )
        return cls(
            retriever=retriever,
            response_synthesizer=synthesizer,
            node_postprocessors=list(node_postprocessors),
            callback_manager=callback_manager,
        )

    @classmethod
    def from_args(  # type: ignore[override]  # the base class names each option
        cls,
        retriever: BaseRetriever,
        llm: AnsweringLLM | str | None = None,
        response_synthesizer: BaseSynthesizer | None = None,
        **options: Any,
    ) -> RecaLLMQueryEngine:
        """Returns an engine over a retriever as LlamaIndex makes them, with cited answers.

        ``streaming``, ``output_cls`` and ``text_qa_template`` go to the synthesizer.
        """
        model = chosen_llm(llm)
        names = ("streaming", "output_cls", "text_qa_template", "callback_manager")
        for_synthesizer = {name: options[name] for name in names if name in options}
        engine = super().from_args(
            retriever=retriever,
            llm=model,
            response_synthesizer=response_synthesizer
            or RecaLLMSynthesizer(model, **for_synthesizer),
            **options,
        )
        assert isinstance(engine, cls)
        return engine

    def with_retriever(self, retriever: BaseRetriever) -> RecaLLMQueryEngine:
        """Returns the same engine over another retriever."""
        return type(self)(
            retriever=retriever,
            response_synthesizer=self._response_synthesizer,
            callback_manager=self.callback_manager,
            node_postprocessors=self._node_postprocessors,
        )


def retriever_of(
    source: Any,
    llm: AnsweringLLM,
    token_budget: int | None = None,
    callback_manager: CallbackManager | None = None,
) -> BaseRetriever:
    """Returns what finds nodes: a retriever, or a ``CorpusIndex`` that becomes one by packing.

    Raises:
        TypeError: The source is nothing that can be searched.
    """
    if isinstance(source, BaseRetriever):
        return source
    if hasattr(source, "pack_report"):
        return PackedContextRetriever(
            source, llm=llm, token_budget=token_budget, callback_manager=callback_manager
        )
    if hasattr(source, "as_retriever"):
        retriever: BaseRetriever = source.as_retriever()
        return retriever
    raise TypeError(
        f"source must be an index, a retriever or a CorpusIndex, got {type(source).__name__}"
    )


class CitedQueryEngineTool(QueryEngineTool):
    """A query engine as a tool whose text keeps its citations, as ``[n]`` and a list of quotes.

    Agents see text only. By default the answer goes to the user as it is (``return_direct``): an
    agent that words it anew would leave the citations behind.
    """

    @classmethod
    def build(
        cls,
        query_engine: BaseQueryEngine,
        name: str,
        description: str,
        *,
        return_direct: bool = True,
    ) -> CitedQueryEngineTool:
        """Returns the tool.

        Args:
            query_engine: An engine with a ``RecaLLMSynthesizer``.
            name: What the agent calls it by.
            description: What it is good for.
            return_direct: Whether its answer ends the agent's run.
        """
        metadata = ToolMetadata(name=name, description=description, return_direct=return_direct)
        return cls(query_engine=query_engine, metadata=metadata)

    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """Asks the engine."""
        question = self._get_query_str(*args, **kwargs)
        response: Any = self.query_engine.query(question)
        get_response = getattr(response, "get_response", None)
        return self._output(question, response if get_response is None else get_response())

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """Asks the engine without blocking the event loop."""
        question = self._get_query_str(*args, **kwargs)
        response = await self.query_engine.aquery(question)
        get_response = getattr(response, "get_response", None)
        if get_response is not None:
            pending = get_response()
            response = await pending if hasattr(pending, "__await__") else pending
        return self._output(question, response)

    def _output(self, question: str, response: Any) -> ToolOutput:
        text = str(response)
        cited = isinstance(response, Evidence)
        return ToolOutput(
            content=response.with_quotes() if cited else text,
            tool_name=self.metadata.get_name(),
            raw_input={"input": question},
            raw_output=response,
        )


def collect_citations(result: Any) -> list[Citation]:
    """Returns every citation in what an engine, a chat or an agent gave back, each once.

    Args:
        result: A response, an ``AgentOutput`` (what awaiting the handler of a run gives), a
            ``ToolOutput``, a chat response, a list of such things, or a response's metadata. A
            stream that wasn't read to its end has none yet.
    """
    out: list[Citation] = []
    for citation in _walk(result, _DEPTH):
        if citation not in out:
            out.append(citation)
    return out


def _walk(value: Any, depth: int) -> Iterator[Citation]:
    if value is None or depth == 0 or isinstance(value, str | bytes | int | float):
        return
    if isinstance(value, Citation):
        yield value
    elif isinstance(value, Evidence):
        yield from value.citations
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item, depth - 1)
    elif isinstance(value, dict):
        plain = value.get(KEY, value)
        if isinstance(plain, dict) and isinstance(plain.get("citations"), list):
            yield from (_citation(item) for item in plain["citations"])
    else:
        for name in _HOLDERS:
            yield from _walk(getattr(value, name, None), depth - 1)


def _citation(value: Any) -> Citation:
    return value if isinstance(value, Citation) else Citation.model_validate(value)
