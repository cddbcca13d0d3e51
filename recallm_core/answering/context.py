"""From a conversation and documents to a prompt that fits the model's context length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from recallm_core.decoding.grammar import OutputRules
from recallm_core.documents.document import Document, DocumentSet, Passage, check_text, collect
from recallm_core.errors import ContextOverflowError
from recallm_core.packing import Pack, pack_everything
from recallm_core.packing.indexable import Packs, check_indexable
from recallm_core.prompting import conversation
from recallm_core.prompting.builder import PromptBuilder
from recallm_core.prompting.followup import search_question
from recallm_core.prompting.params import GenerationParams
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import Recipe
from recallm_core.retrieval import CorpusIndex
from recallm_core.retrieval.packs import DEFAULT_BUDGET
from recallm_core.tokenization.tokenizer import Tokenizer

_ROOMY = 8  # characters per token that few texts have
_READ_AT_ONCE = 8_000_000  # characters; what is much larger is refused without an index

Message = Mapping[str, str]


@runtime_checkable
class Packable(Packs, Protocol):
    """What packs its own documents for a question, such as a ``CorpusIndex``."""

    @property
    def documents(self) -> Mapping[str, Document]:
        """The full texts by id."""


Documents = Iterable[Document | str] | DocumentSet | Packable


def wants_index(documents: Iterable[Document], recipe: Recipe, context_length: int) -> bool:
    """Returns whether documents hold much more than a model is given of them at once.

    Whoever asks them more than once had better keep an index.

    Args:
        documents: The documents.
        recipe: How the model is driven.
        context_length: Tokens that it can attend to.
    """
    size = sum(len(document.text) for document in documents)
    return size > min(_READ_AT_ONCE, _ROOMY * (recipe.pack_tokens or context_length))


class ContextBuilder:
    """Builds one model's prompts; safe to use from many threads.

    Args:
        tokenizer: The model's.
        recipe: How the model is driven.
        context_length: Tokens that it can attend to, input and output together.
        vocab_size: Width of its logits.
    """

    def __init__(
        self, tokenizer: Tokenizer, recipe: Recipe, *, context_length: int, vocab_size: int
    ) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._pack_tokens = recipe.pack_tokens or context_length
        self._builder = PromptBuilder(tokenizer, recipe, vocab_size=vocab_size)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text as this model sees it."""
        check_text(text, "the text to count")
        return self._builder.count(text)

    def prepare(
        self,
        messages: Sequence[Message],
        documents: Documents | None,
        params: GenerationParams,
        output: OutputRules | None = None,
    ) -> tuple[Prompt, Mapping[str, Document]]:
        """Builds the prompt; see ``RecaLLM.prepare``.

        Raises:
            ContextOverflowError: Prompt and output don't fit the model's context length.
            ValueError: The question is empty.
        """
        messages = _checked_messages(messages)
        sought = () if documents is None else documents
        passages, sources = self._passages(messages, sought, params, output)
        if params.scope is None and documents is not None and _blank(passages):
            params = replace(params, scope="documents")  # whatever the recipe's default is
        prompt = self._builder.build(messages, passages, params, output)
        self._check_length(prompt)
        return prompt, _quotable(prompt, passages, sources)

    def _passages(
        self,
        messages: Sequence[Message],
        documents: Documents,
        params: GenerationParams,
        output: OutputRules | None,
    ) -> tuple[tuple[Passage, ...], Mapping[str, Document]]:
        room = self._budget(messages, params, output)
        budget = min(room, self._pack_tokens)
        if isinstance(documents, Packable):
            return self._pack_for(documents, messages, budget).passages, documents.documents
        collected = documents if isinstance(documents, DocumentSet) else collect(documents)
        sources = {document.id: document for document in collected}
        pack = pack_everything(
            collected,
            token_budget=budget,
            count=self.count_tokens,
            overhead=self._overhead,
        )
        if pack is None:
            check_indexable(
                collected, room=room, limit=self._context_length, count=self.count_tokens
            )
            pack = self._pack_for(CorpusIndex.build(collected), messages, budget)
        return pack.passages, sources

    def _pack_for(self, index: Packable, messages: Sequence[Message], budget: int) -> Pack:
        """The passages that bear on the last question, within a budget."""
        question = search_question(messages)
        budget = min(DEFAULT_BUDGET, budget)
        known = (
            {"tokens_key": self._tokenizer.fingerprint} if isinstance(index, CorpusIndex) else {}
        )
        return index.pack_report(
            question, budget, self.count_tokens, overhead=self._overhead, **known
        )

    def _overhead(self, passage: Passage) -> int:
        return self._builder.overhead(passage.title, document_id=passage.document_id)

    def _budget(
        self,
        messages: Sequence[Message],
        params: GenerationParams,
        output: OutputRules | None,
    ) -> int:
        """Tokens for passages: the context length less wording, history and output.

        Raises:
            ContextOverflowError: Even without any passage the prompt doesn't fit.
        """
        empty = self._builder.build(messages, (), params, output)
        self._check_length(empty)
        reserve = len(empty.token_ids) + empty.params.max_new_tokens
        return self._context_length - reserve

    def _check_length(self, prompt: Prompt) -> None:
        reserve = prompt.params.max_new_tokens
        if len(prompt.token_ids) + reserve > self._context_length:
            raise ContextOverflowError(len(prompt.token_ids), reserve, self._context_length)


def unread(prompt: Prompt, documents: Documents | None) -> bool:
    """Whether documents were given and hold nothing to read: none came, or only white space.

    None is "no documents in this conversation", which is no such thing.
    """
    return documents is not None and _blank(prompt.passages)


def _blank(passages: Iterable[Passage]) -> bool:
    return not any(passage.text.strip() for passage in passages)


def _checked_messages(messages: Any) -> list[Message]:
    """The messages as a list that can be gone through more than once.

    Raises:
        ValueError: They are no conversation, or ask nothing.
        DocumentError: A content has a lone surrogate.
    """
    listed = isinstance(messages, Iterable) and not isinstance(messages, str | bytes | Mapping)
    turns: list[Any] = list(messages) if listed else [messages]
    odd = turns if not listed else [turn for turn in turns if not isinstance(turn, Mapping)]
    if odd:
        raise ValueError(
            'messages must be a list of {"role": ..., "content": ...}, got '
            f"{'' if not listed else 'a list with '}{type(odd[0]).__name__}; to ask a plain "
            "question use answer()"
        )
    questions = [turn.get("content") for turn in turns if turn.get("role") == "user"]
    last = questions[-1] if questions else "none"
    if (last is None or isinstance(last, str)) and not (last or "").strip():
        raise ValueError("the question is empty; ask something in the last user message")
    conversation.checked_messages(turns)
    return turns


def _quotable(
    prompt: Prompt, passages: Sequence[Passage], documents: Mapping[str, Document]
) -> Mapping[str, Document]:
    """The documents that the prompt's passages, and the duplicates dropped for them, are from."""
    quotable: dict[str, Document] = {}
    for passage in passages:
        for key in (passage.document_id, *(copy.document_id for copy in passage.duplicates)):
            if key in documents:
                quotable[key] = documents[key]
    packed = set(passages)
    for message in prompt.passages:  # messages are quotable in the whole-prompt scope
        if message not in packed:
            quotable[message.document_id] = Document(message.text, message.document_id)
    return MappingProxyType(quotable)
