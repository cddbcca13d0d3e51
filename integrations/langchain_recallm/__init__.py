"""RecaLLM for LangChain: cited answers in the chains and agents that people already have."""

from langchain_recallm.chains import create_grounded_documents_chain, grounded_prompt
from langchain_recallm.chat_models import ChatRecaLLM
from langchain_recallm.documents import (
    documents_to_content_blocks,
    documents_to_text,
    message_citations,
    resolve_citations,
)

__all__ = [
    "ChatRecaLLM",
    "create_grounded_documents_chain",
    "documents_to_content_blocks",
    "documents_to_text",
    "grounded_prompt",
    "message_citations",
    "resolve_citations",
]
