"""RecaLLM for LangChain: cited answers in the chains and agents that people already have."""

from langchain_recallm.chains import create_grounded_documents_chain, grounded_prompt
from langchain_recallm.chat_models import ChatRecaLLM
from langchain_recallm.checking import check_message, quote_checker
from langchain_recallm.cited_model import CitedChatModel, cited
from langchain_recallm.documents import (
    documents_to_content_blocks,
    documents_to_text,
    message_citations,
    resolve_citations,
)
from langchain_recallm.embeddings import RecallEmbeddings, as_core_embedder
from langchain_recallm.retrievers import PackedContextRetriever, PackingCompressor
from langchain_recallm.tools import create_cited_answer_tool
from langchain_recallm.vectorstores import RecallFAISS

__all__ = [
    "ChatRecaLLM",
    "CitedChatModel",
    "PackedContextRetriever",
    "PackingCompressor",
    "RecallEmbeddings",
    "RecallFAISS",
    "as_core_embedder",
    "check_message",
    "cited",
    "create_cited_answer_tool",
    "create_grounded_documents_chain",
    "documents_to_content_blocks",
    "documents_to_text",
    "grounded_prompt",
    "message_citations",
    "quote_checker",
    "resolve_citations",
]
