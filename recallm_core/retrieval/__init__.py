"""Coarse search: a collection of documents, searched by words and by meaning, saved safely."""

from recallm_core.retrieval.index import CorpusIndex, IndexStats
from recallm_core.retrieval.ranking import Where
from recallm_core.retrieval.search import Mode
from recallm_core.retrieval.vectors import VectorSearch

__all__ = ["CorpusIndex", "IndexStats", "Mode", "VectorSearch", "Where"]
