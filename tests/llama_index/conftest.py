"""What the tests of the LlamaIndex package share: scripted models, nodes, and checks of quotes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import (
    Document,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from llama_index_recallm import RecaLLM, RecaLLMSynthesizer
from recallm_core.prompting.recipe import Recipe
from recallm_core.testing import scripted_llm

FERRY = "The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros."
LEAVE = "Parental leave is 16 weeks, paid in full. \U0001f476\r\nAsk Ines."
SCRIPT = (
    "I look. <|start_recall|>The ferry leaves Port Hallow at 9:30<|end_recall|> and "
    "<|start_recall|>Parental leave is 16 weeks<|end_recall|>.</think>"
    "It leaves at <|start_recall|>9:30<|end_recall|>; leave is 16 weeks."
)
QUESTION = "When does it leave, and how long is leave?"
REQUIRED = Recipe(think_open="<think>", think_close="</think>", sampling={"temperature": 0.0})
"""Of prompted models, whose answers owe a quote by default (``evidence="required"``)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """llama-index-core's agents use what pydantic and workflows have deprecated."""
    ignored = (
        "ignore::pydantic.warnings.PydanticDeprecationWarning",
        "ignore:is_running called from within a step:DeprecationWarning",
    )
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(*ignored))


class FixedRetriever(BaseRetriever):
    """Returns the same nodes for every question."""

    def __init__(self, nodes: list[NodeWithScore], **options: Any) -> None:
        super().__init__(**options)
        self.nodes = nodes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return list(self.nodes)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return list(self.nodes)


class Events(BaseEventHandler):
    """Keeps the instrumentation events; may read every response that goes by."""

    seen: list[Any] = []  # noqa: RUF012  (a pydantic field)
    drains: bool = False

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **_: Any) -> None:
        self.seen.append(event)
        if self.drains and event.class_name() == "SynthesizeEndEvent":
            str(event.response)

    @property
    def names(self) -> list[str]:
        return [event.class_name() for event in self.seen]


class Legacy(BaseCallbackHandler):
    """Keeps the legacy callback events."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.seen: list[tuple[str, CBEventType]] = []

    def on_event_start(self, event_type: CBEventType, *args: Any, **kwargs: Any) -> str:
        self.seen.append(("start", event_type))
        return str(kwargs.get("event_id", ""))

    def on_event_end(self, event_type: CBEventType, *args: Any, **kwargs: Any) -> None:
        self.seen.append(("end", event_type))

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None: ...

    def manager(self) -> CallbackManager:
        return CallbackManager([self])


class Kit:
    """Nodes, scripts that quote them, and checks.

    A test that only a trained model passes, since a script's own quotes or words are what it is
    about, sets ``recipe`` to None.
    """

    def __init__(self, recipe: Recipe | None = None) -> None:
        self.recipe = recipe

    script, question, ferry, leave = SCRIPT, QUESTION, FERRY, LEAVE
    retriever, legacy = FixedRetriever, Legacy
    documents = (Document(id_="d1", text=f"Head. {FERRY}"), Document(id_="d2", text=LEAVE))

    def llm(self, script: Any = SCRIPT, **settings: Any) -> RecaLLM:
        backend = {
            key: settings.pop(key)
            for key in ("window", "tokens_per_chunk", "fail_after")
            if key in settings
        }
        return RecaLLM(scripted_llm(script, recipe=self.recipe, **backend), **settings)

    def synthesizer(self, script: Any = SCRIPT, **options: Any) -> RecaLLMSynthesizer:
        backend = {
            key: options.pop(key)
            for key in ("window", "tokens_per_chunk", "fail_after")
            if key in options
        }
        return RecaLLMSynthesizer(self.llm(script, **backend), **options)

    def node(
        self, text: str, start: int | None = None, doc: str | None = None, **fields: Any
    ) -> NodeWithScore:
        score = fields.pop("score", None)
        related = {} if doc is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc)}
        end = None if start is None else start + len(text)
        node = TextNode(
            text=text, start_char_idx=start, end_char_idx=end, relationships=related, **fields
        )
        return NodeWithScore(node=node, score=score)

    def nodes(self) -> list[NodeWithScore]:
        return [
            self.node(FERRY, 6, "d1", id_="n1", score=0.9, metadata={"file_name": "ferry.txt"}),
            self.node(LEAVE, 0, "d2", id_="n2", score=0.8),
        ]

    def check(self, response: Any, documents: Any = (), *, least: int = 1) -> list[Any]:
        """Every quote is the slice of its node, and of its document where it says so."""
        nodes = {each.node.node_id: each.node for each in response.source_nodes}
        texts = {document.id_: document.text for document in documents}
        assert len(response.citations) >= least
        for citation in response.citations:
            text = nodes[citation.node_id].text
            assert text[citation.node_start : citation.node_end] == citation.text
            for place in citation.occurrences:
                found = nodes[place.node_id].text[place.node_start : place.node_end]
                assert found == citation.text
            if citation.level == "document":
                original = texts[citation.ref_doc_id]
                assert original[citation.doc_start : citation.doc_end] == citation.text
                self._encoded(original, citation.utf16_range, citation.utf8_range, citation.text)
            else:
                assert citation.utf16_range is citation.utf8_range is None
            self._encoded(text, citation.node_utf16_range, citation.node_utf8_range, citation.text)
            if citation.level == "text":
                assert citation.doc_start is None
        cited = {citation.node_id for citation in response.citations}
        assert {each.node.node_id for each in response.cited_nodes} == cited
        assert response.metadata["recallm"]["citations"] == [
            citation.model_dump(mode="json", exclude_none=True) for citation in response.citations
        ]
        return list(response.citations)

    @staticmethod
    def _encoded(text: str, utf16: Any, utf8: Any, quote: str) -> None:
        """The ranges are those of others who count in UTF-16 units and in bytes."""
        units = text.encode("utf-16-le")[2 * utf16[0] : 2 * utf16[1]]
        assert units.decode("utf-16-le") == quote
        assert text.encode()[utf8[0] : utf8[1]].decode() == quote

    @staticmethod
    def said(response: Any) -> tuple[Any, ...]:
        """What must be equal however a question is asked."""
        return (
            str(response),
            response.citations,
            response.abstained,
            response.reasoning,
            response.finish_reason,
            [each.node.node_id for each in response.cited_nodes],
            response.metadata,
        )


@pytest.fixture(
    params=[
        pytest.param(None, id="trained"),
        pytest.param(REQUIRED, id="required", marks=pytest.mark.slow),
    ]
)
def kit(request: pytest.FixtureRequest) -> Kit:
    """The whole suite on a trained model, and on a prompted one that owes its evidence."""
    return Kit(request.param)


@pytest.fixture
def events() -> Iterator[Events]:
    """Everything that LlamaIndex's instrumentation tells."""
    root = get_dispatcher()
    handler = Events(seen=[])
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture(autouse=True)
def no_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may rely on a model that LlamaIndex would pick by itself."""
    for name in ("_llm", "_embed_model", "_callback_manager", "_prompt_helper"):
        monkeypatch.setattr(Settings, name, None, raising=False)
