"""A question or a conversation as it was asked; the signatures that all ways of asking share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, cast

from recallm_core.answering.context import Documents, Message
from recallm_core.decoding.grammar import OutputRules, tool_spec
from recallm_core.errors import DocumentError
from recallm_core.prompting.params import GenerationParams, Settings, with_settings

Asked = ParamSpec("Asked")
Model = TypeVar("Model")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a caller asks for, as it was given.

    Attributes:
        messages: The conversation.
        documents: What may be quoted; None: it has no documents.
        tools: What the model may call.
        tool_choice: Whether it must, and which.
        response_schema: What the answer has to fit; None: words.
        parallel_tool_calls: Whether more than one tool may be called at once.
        params: Settings.
        settings: Single ones, which come before those.
    """

    messages: Sequence[Message]
    documents: Documents | None = None
    tools: Sequence[Any] | None = None
    tool_choice: str | None = None
    response_schema: Any = None
    parallel_tool_calls: bool = True
    params: GenerationParams | None = None
    settings: Settings | None = None

    def all_settings(self) -> GenerationParams:
        """Returns the settings given in either way.

        Raises:
            TypeError: A setting isn't known.
            ValueError: A setting is out of range.
        """
        return with_settings(self.params, self.settings or {})

    def output(self) -> OutputRules | None:
        """Returns what the answer has to look like; None: words.

        Raises:
            ValueError: Tools, choice and schema don't fit together.
        """
        tools, choice = self.tools, self.tool_choice
        if not tools and self.response_schema is None:
            if choice not in (None, "auto", "none"):
                raise ValueError(f"tool_choice {choice!r} needs tools")
            return None
        if tools is not None and not isinstance(tools, Iterable):
            raise ValueError(f"tools must be a list, got {type(tools).__name__}")
        specs = tuple(tool_spec(tool) for tool in tools or ())
        return OutputRules(specs, choice or "auto", self.response_schema, self.parallel_tool_calls)


def chat_request(
    messages: Sequence[Message],
    documents: Documents | None = None,
    *,
    tools: Sequence[Any] | None = None,
    tool_choice: str | None = None,
    response_schema: Any = None,
    parallel_tool_calls: bool = True,
    params: GenerationParams | None = None,
    **settings: Unpack[Settings],
) -> ChatRequest:
    """Returns a conversation as a request; nothing is checked before it is answered."""
    return ChatRequest(
        messages,
        documents,
        tools,
        tool_choice,
        response_schema,
        parallel_tool_calls,
        params,
        settings,
    )


def question_request(
    question: str,
    documents: Documents,
    *,
    params: GenerationParams | None = None,
    **settings: Unpack[Settings],
) -> ChatRequest:
    """Returns a question over documents as a request.

    Raises:
        ValueError: The question is no text.
        DocumentError: There are no documents: here, they are never left out.
    """
    if not isinstance(question, str):
        raise ValueError(
            f"the question must be a str, got {type(question).__name__}; a call looks like "
            "answer(question, documents)"
        )
    if documents is None:
        raise DocumentError(
            "documents must be a list of Document or str, got None; an empty list says that a "
            "search found nothing, and chat(messages) asks without documents"
        )
    message = {"role": "user", "content": question}
    return ChatRequest([message], documents, params=params, settings=settings)


def takes(
    make: Callable[Asked, ChatRequest],
) -> Callable[
    [Callable[[Model, ChatRequest], Result]], Callable[Concatenate[Model, Asked], Result]
]:
    """Gives a method that answers a request the signature of what makes one.

    Args:
        make: ``chat_request`` or ``question_request``; a coroutine calls it when it is awaited.
    """

    def decorate(
        method: Callable[[Model, ChatRequest], Result],
    ) -> Callable[Concatenate[Model, Asked], Result]:
        def call(self: Model, *args: Asked.args, **kwargs: Asked.kwargs) -> Result:
            return method(self, make(*args, **kwargs))

        async def coroutine(self: Model, *args: Asked.args, **kwargs: Asked.kwargs) -> Any:
            answered: Any = method(self, make(*args, **kwargs))
            return await answered

        awaited = inspect.iscoroutinefunction(method)
        taking: Any = wraps(method)(coroutine if awaited else call)
        signature = inspect.signature(method)
        first = next(iter(signature.parameters.values()))
        others = inspect.signature(make).parameters.values()
        taking.__signature__ = signature.replace(parameters=[first, *others])
        result = {"return": method.__annotations__["return"]}
        taking.__annotations__ = make.__annotations__ | result
        return cast("Callable[Concatenate[Model, Asked], Result]", taking)

    return decorate


def pairs(questions: Any) -> Iterator[tuple[str, Documents]]:
    """Returns the pairs of a batch, checked before the model runs.

    Args:
        questions: What a caller gave as a batch.

    Raises:
        ValueError: It isn't a list of pairs.
    """
    expected = "questions must be a list of (question, documents) pairs"
    if isinstance(questions, str | bytes | Mapping) or not isinstance(questions, Iterable):
        raise ValueError(f"{expected}, got one {type(questions).__name__}")
    batch = list(questions)
    for number, pair in enumerate(batch):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            size = f" of {len(pair)}" if isinstance(pair, list | tuple) else ""
            raise ValueError(f"{expected}; number {number} is a {type(pair).__name__}{size}")
    return iter(batch)
