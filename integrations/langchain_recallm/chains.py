"""Prompts and chains that keep documents apart from words, so that they can be cited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import LanguageModelLike
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, convert_to_messages
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_recallm.blocks import GROUNDED
from langchain_recallm.documents import documents_to_content_blocks, documents_to_text

_QUESTIONS = ("question", "input", "query")
_ELSEWHERE = "(the documents of this message)"


def grounded_prompt(
    instructions: str | None = None,
    *,
    context: str = "context",
    question: str | None = None,
    history: str | None = None,
    as_text: bool = False,
) -> Runnable[dict[str, Any], ChatPromptValue]:
    """Returns a prompt that hands documents to the model as documents.

    Takes the place of ``format_docs | prompt`` in a chain:

    ```python
    chain = {"context": retriever, "question": RunnablePassthrough()} | grounded_prompt() | model
    ```

    Args:
        instructions: A system message.
        context: The key that holds the list of documents.
        question: The key that holds the question; None: ``question``, ``input`` or ``query``.
        history: The key of earlier messages, if there are any.
        as_text: Write the documents into the text, for models that take no document blocks.
    """

    def render(values: dict[str, Any]) -> ChatPromptValue:
        documents = _documents(values, context)
        question_text = _question(values, question)
        messages: list[BaseMessage] = [SystemMessage(instructions)] if instructions else []
        if history is not None:
            messages += convert_to_messages(values.get(history) or [])
        if as_text:
            text = documents_to_text(documents)
            marked = {} if documents else {GROUNDED: True}
            turn = f"{text}\n\n{question_text}" if text else question_text
            messages.append(HumanMessage(turn, additional_kwargs=marked))
        else:
            messages.append(_ground([{"type": "text", "text": question_text}], documents))
        return ChatPromptValue(messages=messages)

    return RunnableLambda(render, name="grounded_prompt")


def create_grounded_documents_chain(
    llm: LanguageModelLike,
    prompt: BasePromptTemplate[Any] | None = None,
    *,
    output_parser: BaseOutputParser[Any] | Runnable[Any, Any] | None = None,
    document_variable_name: str = "context",
) -> Runnable[dict[str, Any], Any]:
    """Returns a chain from documents and a question to a cited answer.

    Takes the place of ``create_stuff_documents_chain``, with the same prompt. Where the prompt has
    ``{context}`` it gets a few words; the documents themselves go into the last human message as
    blocks. The answer is a message with citations, unless an ``output_parser`` changes that.

    Args:
        llm: ``ChatRecaLLM``, or another model that reads ``text-plain`` blocks.
        prompt: A chat prompt; None: ``grounded_prompt()``.
        output_parser: Applied to the message.
        document_variable_name: The key that holds the documents.
    """
    if prompt is None:
        asking: Runnable[dict[str, Any], Any] = grounded_prompt(context=document_variable_name)
    else:
        asking = RunnableLambda(_attach(prompt, document_variable_name), name="grounded_prompt")
    chain: Runnable[dict[str, Any], Any] = asking | llm
    return chain if output_parser is None else chain | output_parser


def _attach(prompt: BasePromptTemplate[Any], key: str) -> Any:
    """The prompt as it is, with the documents put into its last human message."""

    def render(values: dict[str, Any]) -> ChatPromptValue:
        documents = _documents(values, key)
        messages = prompt.invoke({**values, key: _ELSEWHERE}).to_messages()
        last = max(
            (n for n, message in enumerate(messages) if isinstance(message, HumanMessage)),
            default=None,
        )
        if last is None:
            raise ValueError("the prompt has no human message to put the documents into")
        content = messages[last].content
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        messages[last] = _ground(list(blocks), documents)
        return ChatPromptValue(messages=messages)

    return render


def _ground(blocks: list[Any], documents: Sequence[Document]) -> HumanMessage:
    content = [*documents_to_content_blocks(documents), *blocks]
    return HumanMessage(content=content, additional_kwargs={GROUNDED: True})


def _documents(values: Mapping[str, Any], key: str) -> list[Document]:
    documents = values.get(key)
    if not isinstance(documents, list | tuple) or not all(
        isinstance(document, Document) for document in documents
    ):
        raise ValueError(
            f"{key!r} must be a list of documents, got {type(documents).__name__}; pass what the "
            "retriever returned, before any formatting"
        )
    return list(documents)


def _question(values: Mapping[str, Any], key: str | None) -> str:
    keys = _QUESTIONS if key is None else (key,)
    for name in keys:
        value = values.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, BaseMessage):
            return value.text
    raise ValueError(f"no question: one of {keys} must hold a string, got {sorted(values)}")
