"""RecaLLMSynthesizer: any LlamaIndex engine with this synthesizer returns cited answers."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
)
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryType
from llama_index.core.settings import Settings
from llama_index.core.types import RESPONSE_TEXT_TYPE

from llama_index_recallm.anchors import nodes_of
from llama_index_recallm.answers import parse_answer
from llama_index_recallm.cited_llm import AnsweringLLM, CitedLLM
from llama_index_recallm.llms import RecaLLM
from llama_index_recallm.planning import Planner, nodes_of_texts, texts_of
from llama_index_recallm.plans import Ending, Plan, raw_answer
from llama_index_recallm.responses import (
    AsyncCitedStreamingResponse,
    CitedPydanticResponse,
    CitedResponse,
    CitedStreamingResponse,
    Evidence,
)
from llama_index_recallm.sources import Originals
from llama_index_recallm.streams import AsyncTextStream, Recording, TextStream
from llama_index_recallm.synthesis import synthesis

QA_TEMPLATE = PromptTemplate("{query_str}")
"""The default prompt: the recipe of the model has its own wording around documents."""


class RecaLLMSynthesizer(BaseSynthesizer):
    """Answers from nodes, with quotes that are exact slices of them.

    ```python
    engine = index.as_query_engine(llm=llm, response_synthesizer=RecaLLMSynthesizer(llm))
    response = engine.query("When does the ferry leave?")
    response.citations[0].text, response.citations[0].node_id
    ```

    The responses are LlamaIndex's own with ``citations``, ``cited_nodes``, ``abstained`` and
    ``reasoning``; ``metadata["recallm"]`` holds the same as plain data. What is streamed gets them
    when the stream ends.

    All nodes are read in one pass, each under a label that can't be quoted. What doesn't fit the
    model's context is left out, lowest score first, and listed in
    ``metadata["recallm"]["left_out"]``; if not even one node fits, the passages of the nodes that
    bear on the question are read. Nodes without text, such as images, are left out too.

    Args:
        llm: A ``RecaLLM``, or the name of one, or what ``cited`` returns; None: ``Settings.llm`` if
            it is one, else the model that ships with the library. No other model is ever asked.
        callback_manager: As in every synthesizer.
        streaming: Whether to stream; read anew for each call.
        empty_response: What is said when there are no nodes.
        text_qa_template: The prompt, with ``{query_str}``. ``{context_str}`` may stand in it, but
            becomes a few words: the nodes are handed over beside the prompt.
        documents: The original documents, a docstore, or a function from an id to a text; with it,
            places in documents are checked instead of claimed.
        docstore: Where the nodes beside a node are found (a docstore or an index), so that one
            whose text repeats in its document is placed by its neighbours.
        token_budget: Tokens of nodes at most; None: what the context leaves.
        show_metadata: Whether labels show the metadata that nodes show to models.
        citation_nodes: Whether to append each quote to ``source_nodes`` as a node of its own, for
            programs that keep nothing else.
        prefix_messages: Messages before the prompt, such as a history.
        output_cls: A pydantic class that answers are instances of; then the response is a
            ``PydanticResponse`` with the same evidence, and answer ranges count in its JSON. Can't
            be streamed.
    """

    def __init__(
        self,
        llm: AnsweringLLM | str | None = None,
        callback_manager: CallbackManager | None = None,
        *,
        streaming: bool = False,
        empty_response: str | None = None,
        text_qa_template: BasePromptTemplate | None = None,
        documents: Any = None,
        docstore: Any = None,
        token_budget: int | None = None,
        show_metadata: bool = True,
        citation_nodes: bool = False,
        prefix_messages: Sequence[ChatMessage] = (),
        output_cls: type[Any] | None = None,
    ) -> None:
        if callback_manager is not None and not isinstance(callback_manager, CallbackManager):
            raise TypeError(
                "the second argument is a callback manager, got "
                f"{type(callback_manager).__name__}; give everything but the model by name"
            )
        if token_budget is not None and token_budget < 0:
            raise ValueError(f"token_budget must not be negative, got {token_budget}")
        super().__init__(
            llm=chosen_llm(llm),
            callback_manager=callback_manager,
            streaming=streaming,
            output_cls=output_cls,
        )
        self._empty_response = empty_response or "Empty Response"
        self._text_qa_template = text_qa_template or QA_TEMPLATE
        self._originals = Originals(documents)
        self._nodes = nodes_of(docstore, documents)
        self._token_budget = token_budget
        self._show_metadata = show_metadata
        self._citation_nodes = citation_nodes
        self._prefix_messages = tuple(prefix_messages)

    @property
    def llm(self) -> AnsweringLLM:
        """The model."""
        llm = self._llm
        assert isinstance(llm, RecaLLM | CitedLLM)
        return llm

    def _get_prompts(self) -> PromptDictType:
        return {"text_qa_template": self._text_qa_template}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if "text_qa_template" in prompts:
            self._text_qa_template = prompts["text_qa_template"]

    # synthesizing

    def synthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Answers from nodes; the base class's events fire in its order."""
        with synthesis(self._callback_manager, query, nodes) as (question, done):
            behind = list(additional_source_nodes or []) if nodes else []
            return done(self._answer(question, nodes, behind, response_kwargs))

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """``synthesize`` without blocking the event loop."""
        with synthesis(self._callback_manager, query, nodes) as (question, done):
            behind = list(additional_source_nodes or []) if nodes else []
            return done(await self._aanswer(question, nodes, behind, response_kwargs))

    def _answer(
        self,
        question: str,
        nodes: Sequence[NodeWithScore],
        behind: Sequence[NodeWithScore],
        options: dict[str, Any],
    ) -> RESPONSE_TYPE:
        plan = self._plan(question, nodes, behind, options)
        if not plan.messages:
            return self._empty(plan, asynchronous=False)
        if plan.streaming:
            return self._stream(self._record(plan), plan, asynchronous=False)
        return self._complete(self.llm.chat(plan.messages, **plan.rules), plan)

    async def _aanswer(
        self,
        question: str,
        nodes: Sequence[NodeWithScore],
        behind: Sequence[NodeWithScore],
        options: dict[str, Any],
    ) -> RESPONSE_TYPE:
        plan = await asyncio.to_thread(self._plan, question, nodes, behind, options)
        if not plan.messages:
            return self._empty(plan, asynchronous=True)
        if plan.streaming:
            # The stream is read in worker threads, so that it belongs to no event loop: LlamaIndex
            # drains streams on another loop while it blocks the one that they were opened on.
            recorded = await asyncio.to_thread(self._record, plan)
            return self._stream(recorded, plan, asynchronous=True)
        return self._complete(await self.llm.achat(plan.messages, **plan.rules), plan)

    def _rules(self) -> dict[str, Any]:
        """What every call asks for: only nodes may be quoted, whatever the model is set to."""
        rules: dict[str, Any] = {"scope": "documents"}
        if self._output_cls is not None:
            rules["response_schema"] = self._output_cls.model_json_schema()
        return rules

    def _check_streaming(self) -> bool:
        """Whether to stream this time.

        Raises:
            ValueError: An object can't be streamed.
        """
        if self._streaming and self._output_cls is not None:
            raise ValueError(
                f"streaming doesn't go with output_cls={self._output_cls.__name__}: an object is "
                "there when its JSON is complete; leave one of the two out"
            )
        return bool(self._streaming)

    def _metadata(self, sources: Sequence[NodeWithScore]) -> dict[str, Any]:
        return self._get_metadata_for_response([source.node for source in sources]) or {}

    def _complete(
        self, response: ChatResponse, plan: Plan
    ) -> CitedResponse | CitedPydanticResponse:
        answer = raw_answer(response)
        left_out = [*plan.left_out, *plan.reader.unshown_nodes(answer)]
        ending = Ending(self._metadata(plan.given), left_out, plan.reader.evidence(answer))
        ending(answer["text"])
        out: CitedResponse | CitedPydanticResponse
        if self._output_cls is None:
            out = CitedResponse(answer["text"], plan.given, ending.metadata)
        else:
            filled = parse_answer(self._output_cls, response)
            out = CitedPydanticResponse(filled, plan.given, ending.metadata, text=answer["text"])
        out.take(ending.evidence)
        self._add_citation_nodes(plan.given, ending.evidence)
        return out

    def _record(self, plan: Plan) -> tuple[Recording, Ending]:
        ending = Ending(self._metadata(plan.given), plan.left_out)
        chunks = self.llm.stream_chat(plan.messages, **plan.rules)

        def texts() -> Iterator[str]:
            for chunk in chunks:
                if chunk.raw is not None:
                    answer = raw_answer(chunk)
                    ending.evidence = plan.reader.evidence(answer)
                    ending.left_out = [*plan.left_out, *plan.reader.unshown_nodes(answer)]
                    self._add_citation_nodes(plan.given, ending.evidence)
                if chunk.delta:
                    yield chunk.delta

        return Recording(texts(), ending), ending

    def _stream(
        self, recorded: tuple[Recording, Ending], plan: Plan, *, asynchronous: bool
    ) -> CitedStreamingResponse | AsyncCitedStreamingResponse:
        recording, ending = recorded
        kind = AsyncCitedStreamingResponse if asynchronous else CitedStreamingResponse
        response = kind.of(recording, plan.given, ending.metadata)
        ending.response = weakref.ref(response)
        return response

    def _empty(self, plan: Plan, *, asynchronous: bool) -> RESPONSE_TYPE:
        """The answer where there is nothing to read."""
        evidence = Evidence(abstained=True, finish_reason="empty")
        ending = Ending(self._metadata(plan.given), plan.left_out, evidence)
        if plan.streaming:
            recorded = Recording(iter([self._empty_response]), ending), ending
            return self._stream(recorded, plan, asynchronous=asynchronous)
        ending(self._empty_response)
        response = CitedResponse(self._empty_response, plan.given, ending.metadata)
        response.take(evidence)
        return response

    def _add_citation_nodes(self, listed: list[NodeWithScore], evidence: Evidence) -> None:
        if self._citation_nodes:
            cited = [citation.as_node() for citation in evidence.citations]
            listed.extend({node.node.node_id: node for node in cited}.values())

    # strings only

    def get_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """Answers from bare strings; only the text comes back, so nothing is cited in it."""
        response = self._answer(query_str, nodes_of_texts(text_chunks), (), response_kwargs)
        recording = getattr(response, "recording", None)
        return _bare(response) if recording is None else TextStream(recording)

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """``get_response`` without blocking the event loop."""
        response = await self._aanswer(query_str, nodes_of_texts(text_chunks), (), response_kwargs)
        recording = getattr(response, "recording", None)
        return _bare(response) if recording is None else AsyncTextStream(recording)

    def get_response_from_messages(
        self, query_str: str, message_chunks: Sequence[ChatMessage], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """``get_response`` from the texts of messages.

        Raises:
            ValueError: A message has something other than text.
        """
        return self.get_response(query_str, texts_of(message_chunks), **response_kwargs)

    async def aget_response_from_messages(
        self, query_str: str, message_chunks: Sequence[ChatMessage], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """The same without blocking the event loop."""
        return await self.aget_response(query_str, texts_of(message_chunks), **response_kwargs)

    # planning

    def _plan(
        self,
        question: str,
        nodes: Sequence[NodeWithScore],
        behind: Sequence[NodeWithScore],
        options: dict[str, Any],
    ) -> Plan:
        planner = Planner(
            llm=self.llm,
            template=self._text_qa_template,
            prefix_messages=self._prefix_messages,
            originals=self._originals,
            nodes_beside=self._nodes,
            token_budget=self._token_budget,
            show_metadata=self._show_metadata,
        )
        streaming, rules = self._check_streaming(), self._rules()
        return planner.plan(question, nodes, behind, options, rules=rules, streaming=streaming)


def chosen_llm(llm: AnsweringLLM | str | None) -> AnsweringLLM:
    """Returns the model that is meant, and never one of a hosted provider.

    Raises:
        TypeError: It is another kind of LLM.
    """
    choice: Any = llm
    if choice is None:
        choice = Settings._llm if isinstance(Settings._llm, RecaLLM | CitedLLM) else "recallm-mini"
    if isinstance(choice, str):
        return RecaLLM(model=choice)
    if not isinstance(choice, RecaLLM | CitedLLM):
        raise TypeError(
            f"llm must be a llama_index_recallm.RecaLLM or the name of a model, got "
            f"{type(choice).__name__}; other models can't be held to the text of the nodes: wrap "
            "one in cited(llm), and its answers point at sentences of them"
        )
    return choice


def _bare(response: Any) -> RESPONSE_TEXT_TYPE:
    text: RESPONSE_TEXT_TYPE = response.response
    return text
