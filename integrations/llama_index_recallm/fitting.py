"""Which nodes the model reads: all that fit its context, the best where they don't all fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.schema import NodeWithScore

from llama_index_recallm import messages, sources
from llama_index_recallm.cited_llm import AnsweringLLM
from llama_index_recallm.sources import Source
from recallm_core import CorpusIndex, Document, Passage, ScoredChunk, pack
from recallm_core.adapting import DEFAULT_OVERHEAD, Overhead

LeftOut = list[dict[str, Any]]

_LABEL_TOKENS = 2 * DEFAULT_OVERHEAD


def fit(
    llm: AnsweringLLM,
    sources: Sequence[Source],
    prompt: Sequence[ChatMessage],
    *,
    token_budget: int | None,
    show_metadata: bool,
) -> tuple[list[Source], LeftOut]:
    """Returns the sources that fit, in the given order, and the nodes that don't, with reasons.

    If not even one fits, the passages of them that bear on the question are returned instead.

    Raises:
        ContextOverflowError: Even without any node the prompt doesn't fit.
        ValueError: The budget is too small for any passage.
    """
    budget = llm.room(prompt)
    if token_budget is not None:
        budget = min(budget, token_budget)
    labels = [source.label(metadata=show_metadata) for source in sources]
    both = zip(sources, labels, strict=True)
    size = sum(len((source.text + label).encode("utf-8", "replace")) for source, label in both)
    if size + _LABEL_TOKENS * len(sources) <= budget:  # a token has at least one byte
        return list(sources), []
    ids = {messages.citable_id(n): source for n, source in enumerate(sources)}
    texts = {
        key: Document(source.text, key, label)
        for (key, source), label in zip(ids.items(), labels, strict=True)
    }

    def overhead(passage: Passage) -> int:
        return _LABEL_TOKENS + (llm.count_tokens(passage.title) if passage.title else 0)

    packed = pack(
        _chunks(sources),
        texts,
        token_budget=max(budget, 0),
        count=llm.count_tokens,
        overhead=overhead,
    )
    packed_ids = {passage.document_id for passage in packed.passages}
    if not packed_ids:
        question = str(next(m for m in reversed(prompt) if m.role == MessageRole.USER).content)
        return _passages(question, ids, texts, max(budget, 0), llm.count_tokens, overhead)
    dropped = [
        {"node_id": ids[omitted.chunk.document_id].node.node_id, "reason": omitted.reason}
        for omitted in packed.left_out
    ]
    return [source for key, source in ids.items() if key in packed_ids], dropped


def _passages(
    question: str,
    sources: Mapping[str, Source],
    texts: Mapping[str, Document],
    budget: int,
    count: Callable[[str], int],
    overhead: Overhead,
) -> tuple[list[Source], LeftOut]:
    """The stretches of some nodes that bear on a question, within a budget too small for any."""
    index = CorpusIndex.build(texts.values())
    packed = index.pack_report(question, budget, count, overhead=overhead)
    if not packed.passages:
        raise ValueError(
            f"a budget of {budget} tokens has no room for any passage of the nodes; raise "
            "token_budget, or leave it out to use what the context leaves"
        )
    packed_ids = {passage.document_id for passage in packed.passages}
    dropped = [
        {"node_id": source.node.node_id, "reason": "budget"}
        for key, source in sources.items()
        if key not in packed_ids
    ]
    return [_cut(sources[piece.document_id], piece) for piece in packed.passages], dropped


def _cut(source: Source, passage: Passage) -> Source:
    return replace(source, text=passage.text, shift=source.shift + passage.start)


def unreadable(nodes: Sequence[NodeWithScore]) -> LeftOut:
    """Returns the nodes that have no text, as left out."""
    return [
        {"node_id": node.node.node_id, "reason": "empty"}
        for node in nodes
        if not sources.read(node).readable
    ]


def ranks(sources: Sequence[Source]) -> list[float]:
    """Returns the scores of some sources; where one has none, earlier ones count as better."""
    scores = [source.given.score for source in sources]
    if any(score is None for score in scores):
        return [float(-place) for place in range(len(sources))]
    return [float(score or 0.0) for score in scores]


def _chunks(sources: Sequence[Source]) -> list[ScoredChunk]:
    return [
        ScoredChunk(messages.citable_id(n), 0, len(source.text), source.text, score)
        for n, (source, score) in enumerate(zip(sources, ranks(sources), strict=True))
    ]
