"""Retrieve, quote, answer: the walk as a LlamaIndex workflow whose events are plain data.

LlamaIndex's own responses and nodes can't be loaded again by its serializers; these events can, so
a run can be stored, resumed and sent elsewhere.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.schema import (
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

from llama_index_recallm.engines import RecaLLMQueryEngine
from llama_index_recallm.responses import Citation
from llama_index_recallm.sources import MEMBERS
from llama_index_recallm.streams import AsyncTextStream


class QuestionEvent(StartEvent):
    """What is asked."""

    question: str


class Passage(BaseModel):
    """A node that was found, as plain data."""

    node_id: str
    text: str
    ref_doc_id: str | None = None
    start: int | None = None
    end: int | None = None
    score: float | None = None
    metadata: dict[str, Any] = {}  # noqa: RUF012  (pydantic copies it)

    @classmethod
    def of(cls, scored: NodeWithScore) -> Passage:
        """Returns a node as plain data; of its metadata, what models may see and its members."""
        node = scored.node
        hidden = set(node.excluded_llm_metadata_keys) - {MEMBERS}
        return cls(
            node_id=node.node_id,
            text=node.get_content(),
            ref_doc_id=node.ref_doc_id,
            start=getattr(node, "start_char_idx", None),
            end=getattr(node, "end_char_idx", None),
            score=scored.score,
            metadata={key: value for key, value in node.metadata.items() if key not in hidden},
        )

    def to_node(self) -> NodeWithScore:
        """Returns the node again."""
        related = {}
        if self.ref_doc_id is not None:
            related[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=self.ref_doc_id)
        node = TextNode(
            id_=self.node_id,
            text=self.text,
            start_char_idx=self.start,
            end_char_idx=self.end,
            relationships=related,
            metadata=self.metadata,
            excluded_llm_metadata_keys=[MEMBERS],
            excluded_embed_metadata_keys=[MEMBERS],
        )
        return NodeWithScore(node=node, score=self.score)


class RetrievedEvent(Event):
    """What was found for a question."""

    question: str
    passages: list[Passage]


class AnswerDeltaEvent(Event):
    """More of the answer, in the stream of events."""

    delta: str


class AnsweredEvent(StopEvent):
    """The answer with its evidence."""

    answer: str
    citations: list[Citation]
    abstained: bool
    reasoning: str


class RecaLLMWorkflow(Workflow):
    """Answers a question from what an engine's retriever finds.

    ```python
    workflow = RecaLLMWorkflow(RecaLLMQueryEngine.build(index, llm))
    answered = await workflow.run(question="When does the ferry leave?")
    answered.answer, answered.citations
    ```

    Args:
        engine: Its retriever finds, its synthesizer answers.
        options: As of every workflow.
    """

    def __init__(self, engine: RecaLLMQueryEngine, **options: Any) -> None:
        super().__init__(**{"timeout": None, **options})
        self._engine = engine

    @step
    async def retrieve(self, event: QuestionEvent) -> RetrievedEvent:
        """Finds passages."""
        nodes = await self._engine.aretrieve(QueryBundle(event.question))
        return RetrievedEvent(
            question=event.question, passages=[Passage.of(node) for node in nodes]
        )

    @step
    async def answer(self, context: Context, event: RetrievedEvent) -> AnsweredEvent:
        """Answers, and writes ``AnswerDeltaEvent`` to the stream meanwhile."""
        nodes = [passage.to_node() for passage in event.passages]
        response: Any = await self._engine.asynthesize(QueryBundle(event.question), nodes)
        recording = getattr(response, "recording", None)
        if recording is not None:
            async for delta in AsyncTextStream(recording):
                context.write_event_to_stream(AnswerDeltaEvent(delta=delta))
            response = await response.get_response()
        return AnsweredEvent(
            answer=str(response),
            citations=response.citations,
            abstained=response.abstained,
            reasoning=response.reasoning,
        )
