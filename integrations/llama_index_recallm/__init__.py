"""RecaLLM for LlamaIndex: cited answers in the engines and agents that people already have."""

from llama_index_recallm.chat_engine import RecaLLMChatEngine
from llama_index_recallm.checked_engine import QuoteCheckQueryEngine, check_response
from llama_index_recallm.checking import QuoteEvaluator
from llama_index_recallm.cited_llm import CitedLLM, cited
from llama_index_recallm.embedding import RecaLLMEmbedding
from llama_index_recallm.engines import (
    CitedQueryEngineTool,
    RecaLLMQueryEngine,
    collect_citations,
)
from llama_index_recallm.events import RecallSpanEvent
from llama_index_recallm.llms import RecaLLM
from llama_index_recallm.packed_context import PackedContextRetriever, RecaLLMContextPacker
from llama_index_recallm.packing import pack_nodes
from llama_index_recallm.responses import (
    AsyncCitedStreamingResponse,
    Citation,
    CitedPydanticResponse,
    CitedResponse,
    CitedStreamingResponse,
)
from llama_index_recallm.synthesizer import RecaLLMSynthesizer
from llama_index_recallm.vector_store import RecaLLMVectorStore
from llama_index_recallm.workflow import RecaLLMWorkflow

__all__ = [
    "AsyncCitedStreamingResponse",
    "Citation",
    "CitedLLM",
    "CitedPydanticResponse",
    "CitedQueryEngineTool",
    "CitedResponse",
    "CitedStreamingResponse",
    "PackedContextRetriever",
    "QuoteCheckQueryEngine",
    "QuoteEvaluator",
    "RecaLLM",
    "RecaLLMChatEngine",
    "RecaLLMContextPacker",
    "RecaLLMEmbedding",
    "RecaLLMQueryEngine",
    "RecaLLMSynthesizer",
    "RecaLLMVectorStore",
    "RecaLLMWorkflow",
    "RecallSpanEvent",
    "check_response",
    "cited",
    "collect_citations",
    "pack_nodes",
]
