"""What a synthesizer sends: the prompt, and the nodes that fit beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    MessageRole,
    TextBlock,
)
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_recallm import fitting, sources
from llama_index_recallm.anchors import Nodes
from llama_index_recallm.cited_llm import AnsweringLLM
from llama_index_recallm.evidence import Reader
from llama_index_recallm.plans import Plan
from llama_index_recallm.sources import Originals, Source

CONTEXT = "(the documents above)"
"""What ``{context_str}`` becomes in a prompt; the documents themselves are never pasted into it."""


@dataclass(frozen=True, slots=True)
class Planner:
    """What a synthesizer knows of its prompts; makes the plan of one call.

    Attributes:
        llm: Who reads it.
        template: The prompt, with ``{query_str}``.
        prefix_messages: What stands before it.
        originals: The documents that nodes were cut from.
        nodes_beside: Where the nodes beside a node are.
        token_budget: Tokens of nodes at most; None: what the context leaves.
        show_metadata: Whether labels show the metadata that nodes show to models.
    """

    llm: AnsweringLLM
    template: BasePromptTemplate
    prefix_messages: tuple[ChatMessage, ...]
    originals: Originals
    nodes_beside: Nodes
    token_budget: int | None
    show_metadata: bool

    def plan(
        self,
        question: str,
        nodes: Sequence[NodeWithScore],
        behind: Sequence[NodeWithScore],
        options: dict[str, Any],
        *,
        rules: dict[str, Any],
        streaming: bool,
    ) -> Plan:
        """Returns what to send; no messages where no node has any text.

        Args:
            question: What is asked.
            nodes: What may be read.
            behind: Nodes behind these, where they are sub-answers of another engine.
            options: Variables of the prompt.
            rules: Settings of the call.
            streaming: Whether the answer is streamed.
        """
        all_nodes, empty = [*nodes, *behind], fitting.unreadable(nodes)
        readable = [source for source in map(sources.read, nodes) if source.readable]
        if not readable:
            return Plan([], Reader((), self.originals), all_nodes, empty, rules, streaming)
        prompt = self._prompt(question, options)
        fitted, dropped = fitting.fit(
            self.llm,
            readable,
            prompt,
            token_budget=self.token_budget,
            show_metadata=self.show_metadata,
        )
        blocks = [self._block(source) for source in fitted]
        further = [sources.read(node) for node in behind]
        reader = Reader(fitted, self.originals, further, self.nodes_beside)
        last = max(n for n, message in enumerate(prompt) if message.role == MessageRole.USER)
        question_message = prompt[last]
        prompt[last] = question_message.model_copy(
            update={"blocks": [*blocks, *question_message.blocks]}
        )
        return Plan(prompt, reader, all_nodes, [*empty, *dropped], rules, streaming)

    def _prompt(self, question: str, options: dict[str, Any]) -> list[ChatMessage]:
        """The messages without any node.

        Raises:
            ValueError: The template gives no message of the user.
        """
        template = self.template
        known = {"context_str": CONTEXT, "query_str": question}
        variables = set(template.template_vars)
        values = {k: v for k, v in {**options, **known}.items() if k in variables}
        messages = template.format_messages(llm=self.llm, **values)
        if not any(message.role == MessageRole.USER for message in messages):
            raise ValueError("text_qa_template gives no user message; put {query_str} into one")
        return self.llm._extend_messages([*self.prefix_messages, *messages])

    def _block(self, source: Source) -> CitableBlock:
        return CitableBlock(
            title=source.label(metadata=self.show_metadata),
            source=source.node.ref_doc_id or source.node.node_id,
            content=[TextBlock(text=source.text)],
        )


def nodes_of_texts(texts: Sequence[str]) -> list[NodeWithScore]:
    """Returns bare texts as nodes."""
    return [NodeWithScore(node=TextNode(text=text)) for text in texts]


def texts_of(messages: Sequence[ChatMessage]) -> list[str]:
    """Returns the texts of messages that stand for nodes.

    Raises:
        ValueError: A message has something other than text.
    """
    for number, message in enumerate(messages):
        odd = next((block for block in message.blocks if not isinstance(block, TextBlock)), None)
        if odd is not None:
            raise ValueError(
                f"message {number} has a {type(odd).__name__}, but the model reads text only; give "
                "text nodes to synthesize(), or text to get_response()"
            )
    return [message.content or "" for message in messages]
