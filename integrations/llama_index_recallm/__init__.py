"""RecaLLM for LlamaIndex: cited answers in the engines and agents that people already have."""

from llama_index_recallm.events import RecallSpanEvent
from llama_index_recallm.llms import RecaLLM

__all__ = [
    "RecaLLM",
    "RecallSpanEvent",
]
