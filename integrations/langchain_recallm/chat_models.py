"""ChatRecaLLM: a LangChain chat model whose answers carry checked citations."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import (
    BaseChatModel,
    LangSmithParams,
    LanguageModelInput,
    ModelProfile,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.block_translators import register_translator
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils import from_env
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)

from langchain_recallm import answers, conversation, engines, structured, tool_calls
from langchain_recallm.calls import Call, parts_of
from langchain_recallm.streaming import ChunkWriter, EventWriter
from recallm_core import __version__
from recallm_core.backends.vllm.connect import loading, without_secrets
from recallm_core.backends.vllm.connection import KEY_VARIABLE
from recallm_core.decoding.spec import RecallIn
from recallm_core.prompting.params import (
    AbstainPolicy,
    AnswerForm,
    Boundary,
    Evidence,
    GenerationParams,
    PriorName,
    Scope,
)

if TYPE_CHECKING:
    from recallm_core.answering.stream import Event
    from recallm_core.generator import RecaLLM

register_translator(answers.PROVIDER, answers.v0_blocks, answers.v0_blocks)

_PARAMS = frozenset(GenerationParams.__slots__)
_RENAMED = {"max_tokens": "max_new_tokens", "stop_sequences": "stop"}
_NO_EFFECT = frozenset(
    {"stream", "model", "strict"}
)  # asked of a call by frameworks; always strict


class ChatRecaLLM(BaseChatModel):
    """Answers from documents, with quotes that are exact slices of them.

    Documents are given beside the messages, in them, or by tools:

    ```python
    from langchain_core.documents import Document
    from langchain_recallm import ChatRecaLLM, message_citations

    model = ChatRecaLLM(model="recallm-mini")
    message = model.invoke("When does the ferry leave?", documents=[Document("It leaves at 9.")])
    message.text
    message_citations(message)
    ```

    The content is a ``reasoning`` block, whose ``extras["recalls"]`` are the quotes made while
    thinking, and a ``text`` block, whose ``annotations`` are citations. In a citation,
    ``start_index`` and ``end_index`` are a range of the answer; the range of the source is in
    ``extras``: ``documents[document_index].page_content[start_char_index:end_char_index]`` is
    ``cited_text``, always. ``response_metadata["documents"]`` lists the ids that
    ``document_index`` counts.

    Without any document, the messages of the user may be quoted, as documents ``message:0`` and so
    on. Documents that are given and empty, such as a search that found nothing, are an abstention.
    """

    model_config = ConfigDict(
        populate_by_name=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,  # a key may be in it
    )

    model: str = Field(default="recallm-mini", alias="model_name")
    """``recallm-mini`` (shipped), a hub id, a local folder, or the address of a server
    (``recallm serve``); or a ready ``RecaLLM``."""
    base_url: str | None = None
    """The address of a server; ``model``, if given, is then the name that it is served under."""
    api_key: SecretStr | None = None
    """The server's key; None: the environment's ``RECALLM_API_KEY``."""
    max_retries: int | None = Field(default=None, ge=0)
    """How often a request is sent again that the server was too busy for (2)."""
    mode: Literal["auto", "trained", "prompted"] = "auto"
    """How the model is driven; ``auto`` looks what its tokenizer has."""
    load_options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of ``RecaLLM.load``, such as ``device`` and ``dtype``."""
    temperature: float | None = None
    """0 is greedy; None: the model's own default, as for all settings below."""
    top_p: float | None = None
    """Nucleus."""
    max_tokens: int | None = Field(default=None, alias="max_new_tokens")
    """Output tokens at most, thinking included."""
    seed: int | None = None
    """Makes a sampled answer reproducible."""
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    """Strings that end the answer; those of a call are added."""
    max_thinking_tokens: int | None = None
    """The end of thinking is forced from here on."""
    max_span_tokens: int | None = None
    """Soft limit of one quote."""
    max_spans: int | None = None
    """Quotes per output."""
    recall_in: RecallIn | None = None
    """Where quotes may be opened."""
    boundary: Boundary | None = None
    """At which boundaries quotes begin and end."""
    scope: Scope | None = None
    """What may be quoted; None: the documents, or the user's messages where there are none."""
    abstain_policy: AbstainPolicy | None = None
    """When ``response_metadata["abstained"]`` is set."""
    prior: PriorName | None = None
    """Scores that tilt where a quote starts."""
    prior_weight: float | None = None
    """Strength of that tilt."""
    answer_form: AnswerForm | None = None
    """``quote``: thinking is nothing but quotes, and the answer is one."""
    evidence: Evidence | None = None
    """What an output owes before it may end: ``free``, ``required``, ``first`` or ``auto``."""
    streaming: bool = False
    """Whether ``invoke`` streams inside, for callbacks that want tokens."""
    timeout: float | None = None
    """Seconds after which a call is stopped, at the next token, with ``TimeoutError``; also how
    long a server may say nothing."""
    output_version: str | None = Field(default_factory=from_env("LC_OUTPUT_VERSION", default="v1"))
    """``v1``: standard content blocks; ``v0``: plain text, the rest in ``additional_kwargs``."""

    engine: Any = Field(default=None, exclude=True, repr=False)
    """A ready ``RecaLLM``, which is used instead of loading ``model``; it may be given as that."""

    _loaded: Any = PrivateAttr(default=None)

    def __init__(self, model: str | RecaLLM | None = None, **kwargs: Any) -> None:
        """Takes the fields by name; ``model`` may be a ready ``RecaLLM``."""
        if model is not None and not isinstance(model, str):
            if not hasattr(model, "stream_chat"):
                raise TypeError(
                    f"model must be a name, a folder or a RecaLLM, got {type(model).__name__}"
                )
            kwargs["engine"], model = model, model.name
        elif model is None and kwargs.get("engine") is not None and "model_name" not in kwargs:
            model = kwargs["engine"].name
        if model is not None:
            kwargs["model"] = model
        super().__init__(**kwargs)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = {*cls.model_fields, *(f.alias for f in cls.model_fields.values() if f.alias)}
            unknown = sorted(set(values) - known)
            if unknown:
                raise ValueError(f"unknown settings {unknown}; known: {sorted(known)}")
        return values

    @model_validator(mode="after")
    def _set_recallm_version(self) -> Self:
        self._loading()  # refuses two addresses
        self._add_version("langchain-recallm", __version__)
        return self

    # identity

    @property
    def _llm_type(self) -> str:
        return "chat-recallm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = (
            "model",
            "base_url",
            "mode",
            "max_tokens",
            *sorted(_PARAMS & set(type(self).model_fields)),
        )
        values = {name: getattr(self, name) for name in dict.fromkeys(names)}
        return {name: value for name, value in values.items() if value is not None}

    @field_validator("model", "base_url", "load_options")
    @classmethod
    def _check_secrets(cls, value: Any) -> Any:
        return without_secrets(value)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """The settings can be saved; the model is loaded again by its name."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """A key is saved as the name of the environment's variable."""
        return {"api_key": KEY_VARIABLE}

    def to_json(self) -> Any:
        """Saves the settings; a ready model that was handed over can't be."""
        return super().to_json() if self.engine is None else self.to_json_not_implemented()

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        documents = kwargs.pop("documents", None)
        key = super()._get_llm_string(stop=stop, **kwargs)
        if self.engine is not None:
            named = engines.name_of(self.engine)
            key += f"---{named}---{sorted(self._identifying_params.items())}"
        return key if documents is None else f"{key}---{_digest(documents)}"

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if kwargs.get("documents") is not None:  # traces don't need their texts
            kwargs["documents"] = _summary(kwargs["documents"])
        return super()._get_invocation_params(stop=stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = answers.PROVIDER
        stops = _merged_stops(self.stop, stop)
        if stops:
            params["ls_stop"] = list(stops)
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        engine = self.engine
        loaded, _ = self._loading()
        length = engine.backend.window if engine is not None else engines.window(loaded)
        tools = engine is not None or engines.knows_tools(loaded)
        profile = ModelProfile(
            name=self.model,
            open_weights=True,
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            reasoning_output=True,
            tool_calling=tools,
            tool_choice=tools,
            structured_output=True,
            temperature=True,
        )
        if length is not None:
            profile["max_input_tokens"] = length
        if self.max_tokens is not None:
            profile["max_output_tokens"] = self.max_tokens
        return profile

    # the model

    @property
    def llm(self) -> RecaLLM:
        """The model, loaded when it is first needed."""
        if self.engine is None and self._loaded is None:
            from recallm_core.generator import load_shared

            model, options = self._loading()
            self._loaded = load_shared(model, mode=self.mode, **{**options, **self.load_options})
        engine: RecaLLM = self._loaded if self.engine is None else self.engine
        return engine

    def _loading(self) -> tuple[str, dict[str, Any]]:
        """What is loaded, and with which options."""
        key = None if self.api_key is None else self.api_key.get_secret_value()
        model, options = loading(
            self.model if "model" in self.model_fields_set else None,
            base_url=self.base_url,
            api_key=key,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )
        return model or self.model, options

    def get_token_ids(self, text: str) -> list[int]:
        """Returns the token ids of a text; nothing in it is a control token."""
        ids: list[int] = self.llm.tokenizer.encode_plain(text).ids.tolist()
        return ids

    def get_num_tokens(self, text: str) -> int:
        """Returns how many tokens a text has for this model."""
        return self.llm.count_tokens(text)

    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Any] | None = None,
    ) -> int:
        """Returns about how many tokens messages have, their documents included."""
        llm = self.llm
        total = 0
        for number, message in enumerate(messages):
            content = conversation.content_of(message, number)
            texts = [content.text, *(document.page_content for document in content.documents)]
            total += 4 + sum(llm.count_tokens(text) for text in texts)
        return total

    # one call

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Returns this model with tools that it may call; calls fit their schemas by decoding.

        Args:
            tools: Functions, tools, Pydantic classes, or descriptions of them.
            tool_choice: ``any``, ``auto``, ``none``, a tool's name, or True for ``any``.
            parallel_tool_calls: Whether several may be called at once; they may by default.
            kwargs: Further settings of a call.
        """
        bound: dict[str, Any] = {"tools": [convert_to_openai_tool(tool) for tool in tools]}
        choice = tool_calls.choice(tool_choice)
        if choice is not None:
            bound["tool_choice"] = choice
        if parallel_tool_calls is not None:
            bound["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(**bound, **kwargs)

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Returns a model whose answers are values of a schema, enforced while decoding.

        Args:
            schema: A Pydantic class, a ``TypedDict``, a JSON schema or a tool.
            method: ``json_schema`` (the answer is the value, and its text keeps citations),
                ``function_calling`` (a tool call is) or ``json_mode``.
            include_raw: Return ``raw``, ``parsed`` and ``parsing_error``.
            strict: Not needed; schemas are always enforced.
            kwargs: Further settings of a call.
        """
        return structured.structured(
            self, schema, method=method, include_raw=include_raw, options=kwargs
        )

    def _call(
        self, messages: list[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]
    ) -> Call:
        """Reads a call's messages and settings.

        Raises:
            TypeError: A setting is unknown.
            ValueError: The messages or a setting can't be used.
        """
        renamed = {_RENAMED.get(key, key): value for key, value in options.items()}
        self._check(renamed)
        documents = renamed.pop("documents", None)
        version = str(renamed.pop("output_version", None) or self.output_version or "v1")
        timeout = renamed.pop("timeout", self.timeout)
        settings = {name: getattr(self, _field(name)) for name in _PARAMS if name != "stop"}
        settings.update({name: value for name, value in renamed.items() if name in _PARAMS})
        settings["stop"] = _merged_stops(self.stop, stop, renamed.get("stop"))
        parts = parts_of(messages, documents, settings["scope"], tool_calls.to_core(renamed))
        settings["scope"] = "prompt" if parts[0].talk.flat else "documents"
        deadline = None if timeout is None else time.monotonic() + timeout
        return Call(self.llm, parts, GenerationParams(**settings), version, deadline)

    def _check(self, options: Mapping[str, Any]) -> None:
        model = options.get("model")
        if model is not None and model != self.model:
            raise ValueError(
                f"a call can't change the model from {self.model!r} to {model!r}; make another "
                "ChatRecaLLM"
            )
        fine = {
            *_PARAMS,
            *_NO_EFFECT,
            *tool_calls.OPTIONS,
            "documents",
            "output_version",
            "timeout",
        }
        unknown = sorted(set(options) - fine)
        if unknown:
            raise TypeError(f"unknown settings {unknown}; known: {sorted(_PARAMS)}, documents")

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(messages, stop, kwargs)
        with closing(call.events()) as events:
            *_, last = events
        return self._result(call, last)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = await asyncio.to_thread(self._call, messages, stop, kwargs)
        last = None
        async with aclosing(call.aevents()) as events:
            async for event in events:
                last = event
        return await asyncio.to_thread(self._result, call, last)

    def _result(self, call: Call, last: Any) -> ChatResult:
        """The message of a call whose last event this is, which is ``Finished``."""
        message = answers.to_message(
            last.answer, call.sources, model=self.model, version=call.version
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs)
        writer = ChunkWriter(call.sources, model=self.model, version=call.version)
        yield from self._written(call, writer.chunks)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = await asyncio.to_thread(self._call, messages, stop, kwargs)
        writer = ChunkWriter(call.sources, model=self.model, version=call.version)
        async with aclosing(self._awritten(call, writer.chunks)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _stream_chat_model_events(
        self,
        messages: list[BaseMessage],
        *,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """The events of ``stream_events(version="v3")``; langchain-core looks for this name."""
        call = self._call(messages, stop, kwargs)
        writer = EventWriter(call.sources, model=self.model)
        yield from writer.start()
        yield from self._written(call, writer.events)

    async def _astream_chat_model_events(
        self,
        messages: list[BaseMessage],
        *,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """The same for asynchronous code; looked for apart from the other."""
        call = await asyncio.to_thread(self._call, messages, stop, kwargs)
        writer = EventWriter(call.sources, model=self.model)
        for first in writer.start():
            yield first
        async with aclosing(self._awritten(call, writer.events)) as events:
            async for event in events:
                yield event

    @staticmethod
    def _written(call: Call, write: Callable[[Event], Iterator[Any]]) -> Iterator[Any]:
        """What a writer makes of a call's events; closing it stops the model."""
        with closing(call.events()) as events:
            for event in events:
                yield from write(event)

    @staticmethod
    async def _awritten(
        call: Call, write: Callable[[Event], Iterator[Any]]
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(call.aevents()) as events:
            async for event in events:
                for chunk in write(event):
                    yield chunk


def _field(name: str) -> str:
    return "max_tokens" if name == "max_new_tokens" else name


def _merged_stops(*stops: Sequence[str] | None) -> tuple[str, ...] | None:
    """All stop strings, each once; None where nobody gave any."""
    listed = [
        [several] if isinstance(several, str) else several
        for several in stops
        if several is not None
    ]
    return tuple(dict.fromkeys(s for several in listed for s in several)) if listed else None


def _summary(documents: Any) -> str:
    try:
        return f"{len(documents)} documents"
    except TypeError:
        return type(documents).__name__


def _digest(documents: Any) -> str:
    """A hash of what may be quoted, for the key of a cache."""
    from langchain_recallm.sources import to_core

    texts = documents.documents.values() if hasattr(documents, "pack_report") else documents
    digest = hashlib.blake2b(digest_size=16)
    for document in texts:
        core = to_core(document)
        for part in (core.id, core.title or "", core.text):
            data = part.encode("utf-8")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
