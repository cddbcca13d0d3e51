"""A chat engine that condenses, retrieves and answers with citations, also when it streams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    MessageRole,
)
from llama_index.core.callbacks import trace_method
from llama_index.core.chat_engine.condense_plus_context import CondensePlusContextChatEngine
from llama_index.core.chat_engine.types import (
    AgentChatResponse,
    StreamingAgentChatResponse,
)
from llama_index.core.memory import BaseMemory, ChatMemoryBuffer
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore
from llama_index.core.settings import Settings
from llama_index.core.tools import ToolOutput
from llama_index.core.types import Thread

from llama_index_recallm.anchors import Nodes
from llama_index_recallm.cited_llm import AnsweringLLM
from llama_index_recallm.engines import retriever_of
from llama_index_recallm.responses import Citation, Evidence
from llama_index_recallm.synthesizer import RecaLLMSynthesizer, chosen_llm

_NAME = "recallm"


@dataclass(kw_only=True)
class _AnswerEvidence:
    """Gives a chat response the evidence of the answer that it was made from."""

    answer: Any = field(default=None, repr=False)

    @property
    def _evidence(self) -> Evidence:
        answer = self.answer
        return answer if isinstance(answer, Evidence) else Evidence()

    @property
    def citations(self) -> list[Citation]:
        """The citations; those of a stream are there when it ends."""
        return self._evidence.citations

    @property
    def cited_nodes(self) -> list[NodeWithScore]:
        """The nodes that are cited, each once."""
        return self._evidence.cited_nodes

    @property
    def abstained(self) -> bool:
        """Whether the sources hold no answer."""
        return self._evidence.abstained

    @property
    def reasoning(self) -> str:
        """The thinking, quotes included."""
        return self._evidence.reasoning


@dataclass
class CitedChatResponse(_AnswerEvidence, AgentChatResponse):
    """A complete answer in a chat; ``answer`` is the ``CitedResponse`` behind it."""


@dataclass
class CitedStreamingChatResponse(_AnswerEvidence, StreamingAgentChatResponse):
    """An answer in a chat that is still being written."""


class RecaLLMChatEngine(CondensePlusContextChatEngine):
    """Chats over documents: each answer is cited from the nodes found for the condensed question.

    The stock engine builds its own synthesizer, which drops citations; this one uses
    ``RecaLLMSynthesizer`` with the history before the question. The memory gets plain text, so that
    it can be shared with any other model.
    """

    _synthesizer_options: dict[str, Any]

    @classmethod
    def build(
        cls,
        source: Any,
        llm: AnsweringLLM | str | None = None,
        *,
        memory: BaseMemory | None = None,
        chat_history: Sequence[ChatMessage] = (),
        system_prompt: str | None = None,
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        skip_condense: bool = False,
        documents: Any = None,
        docstore: Any = None,
        token_budget: int | None = None,
        **options: Any,
    ) -> RecaLLMChatEngine:
        """Returns a chat engine over an index.

        Args:
            source: A LlamaIndex index, a retriever, or a ``CorpusIndex`` of the core.
            llm: A ``RecaLLM`` or its name; None: ``Settings.llm`` if it is one, else the model that
                ships.
            memory: Where the conversation is kept; None: in this engine.
            chat_history: What was said before.
            system_prompt: Said before everything else.
            node_postprocessors: Applied to the nodes that were found.
            skip_condense: Whether to search for the last message as it is.
            documents: The original texts, as for ``RecaLLMSynthesizer``.
            docstore: Where the nodes beside a node are found; None: in the index, if it has them.
            token_budget: Tokens of nodes at most.
            options: Further arguments of ``CondensePlusContextChatEngine``.
        """
        model = chosen_llm(llm)
        limit = max(1, model.metadata.context_window - model.metadata.num_output)
        chat_memory = memory or ChatMemoryBuffer.from_defaults(
            chat_history=list(chat_history),
            token_limit=limit,
            tokenizer_fn=lambda text: [0] * model.count_tokens(text),
        )
        if documents is None and hasattr(source, "pack_report"):
            documents = source
        engine = cls(
            retriever=retriever_of(source, model, token_budget),
            llm=model,
            memory=chat_memory,
            system_prompt=system_prompt,
            skip_condense=skip_condense,
            node_postprocessors=list(node_postprocessors),
            **options,
        )
        engine._synthesizer_options = {
            "documents": documents,
            "docstore": Nodes(source) if docstore is None else docstore,
            "token_budget": token_budget,
        }
        return engine

    @classmethod
    def from_defaults(  # type: ignore[override]  # the base class names each option
        cls, retriever: BaseRetriever, llm: AnsweringLLM | str | None = None, **options: Any
    ) -> RecaLLMChatEngine:
        """Returns a chat engine over a retriever as LlamaIndex makes them; as ``build``."""
        known = {name: value for name, value in options.items() if value is not None}
        known.setdefault("callback_manager", Settings.callback_manager)
        return cls.build(retriever, llm, **known)

    def _get_response_synthesizer(  # type: ignore[override]
        self, chat_history: list[ChatMessage], streaming: bool = False
    ) -> RecaLLMSynthesizer:
        prefix = list(chat_history)
        if self._system_prompt:
            prefix.insert(0, ChatMessage(role=MessageRole.SYSTEM, content=self._system_prompt))
        return RecaLLMSynthesizer(
            chosen_llm(self._llm),  # type: ignore[arg-type]  # which refuses other models
            self.callback_manager,
            streaming=streaming,
            prefix_messages=prefix,
            **getattr(self, "_synthesizer_options", {}),
        )

    @staticmethod
    def _sources(response: Any, context: ToolOutput) -> list[ToolOutput]:
        """The retrieval, and the answer under a name of its own."""
        answer = ToolOutput(
            tool_name=_NAME, content="", raw_input=dict(context.raw_input), raw_output=response
        )
        return [context, answer]

    @trace_method("chat")
    def chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> CitedChatResponse:
        """Answers a message."""
        synthesizer, context, nodes = self._run_c3(message, chat_history)
        response = synthesizer.synthesize(message, nodes)
        for turn in _exchange(message, str(response)):
            self._memory.put(turn)
        return self._respond(response, context, nodes)

    @trace_method("chat")
    async def achat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> CitedChatResponse:
        """``chat`` without blocking the event loop."""
        synthesizer, context, nodes = await self._arun_c3(message, chat_history)
        response = await synthesizer.asynthesize(message, nodes)
        for turn in _exchange(message, str(response)):
            await self._memory.aput(turn)
        return self._respond(response, context, nodes)

    def _respond(
        self, response: Any, context: ToolOutput, nodes: list[NodeWithScore]
    ) -> CitedChatResponse:
        return CitedChatResponse(
            response=str(response),
            sources=self._sources(response, context),
            source_nodes=nodes,
            metadata=response.metadata,
            answer=response,
        )

    @trace_method("chat")
    def stream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> CitedStreamingChatResponse:
        """Answers a message in pieces; the citations are there when the stream ends."""
        synthesizer, context, nodes = self._run_c3(message, chat_history, streaming=True)
        response: Any = synthesizer.synthesize(message, nodes)
        self._memory.put(ChatMessage(content=message, role=MessageRole.USER))
        streamed = CitedStreamingChatResponse(
            chat_stream=_pieces(response),
            sources=self._sources(response, context),
            source_nodes=nodes,
            answer=response,
        )
        thread = Thread(target=streamed.write_response_to_history, args=(self._memory,))
        streamed.write_response_to_history_thread = thread
        thread.start()
        return streamed

    @trace_method("chat")
    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> CitedStreamingChatResponse:
        """``stream_chat`` without blocking the event loop."""
        synthesizer, context, nodes = await self._arun_c3(message, chat_history, streaming=True)
        response: Any = await synthesizer.asynthesize(message, nodes)
        await self._memory.aput(ChatMessage(content=message, role=MessageRole.USER))
        streamed = CitedStreamingChatResponse(
            achat_stream=_apieces(response),
            sources=self._sources(response, context),
            source_nodes=nodes,
            answer=response,
        )
        writing = asyncio.create_task(streamed.awrite_response_to_history(self._memory))
        streamed.awrite_response_to_history_task = writing
        return streamed


def _exchange(message: str, answer: str) -> list[ChatMessage]:
    return [
        ChatMessage(content=message, role=MessageRole.USER),
        ChatMessage(content=answer, role=MessageRole.ASSISTANT),
    ]


def _piece(text: str, delta: str) -> ChatResponse:
    reply = ChatMessage(content=text, role=MessageRole.ASSISTANT)
    return ChatResponse(message=reply, delta=delta)


def _pieces(response: Any) -> ChatResponseGen:
    text = ""
    for delta in response.response_gen:
        text += delta
        yield _piece(text, delta)


async def _apieces(response: Any) -> ChatResponseAsyncGen:
    text = ""
    async for delta in response.async_response_gen():
        text += delta
        yield _piece(text, delta)
