"""RecaLLM for LlamaIndex: cited answers in the engines and agents that people already have."""

from llama_index_recallm.events import RecallSpanEvent
from llama_index_recallm.llms import RecaLLM
from llama_index_recallm.responses import (
    AsyncCitedStreamingResponse,
    Citation,
    CitedResponse,
    CitedStreamingResponse,
)
from llama_index_recallm.synthesizer import RecaLLMSynthesizer

__all__ = [
    "AsyncCitedStreamingResponse",
    "Citation",
    "CitedResponse",
    "CitedStreamingResponse",
    "RecaLLM",
    "RecaLLMSynthesizer",
    "RecallSpanEvent",
]
