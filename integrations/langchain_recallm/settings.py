"""The fields of ChatRecaLLM, what it is known by, and the model that they stand for."""

from __future__ import annotations

import hashlib
from collections.abc import (
    Sequence,
)
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.language_models import (
    BaseChatModel,
    LangSmithParams,
    ModelProfile,
)
from langchain_core.utils import from_env
from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)

from langchain_recallm import answers, engines
from recallm_core import __version__
from recallm_core.adapting import (
    KEY_VARIABLE,
    PARAMS,
    AbstainPolicy,
    AnswerForm,
    Boundary,
    Evidence,
    PriorName,
    RecallIn,
    Scope,
    load_arguments,
    load_shared,
    refuse_unknown,
    unloaded_context_length,
    unloaded_shows_tools,
    without_secrets,
)

if TYPE_CHECKING:
    from recallm_core import RecaLLM


class ChatSettings(BaseChatModel):
    """What a chat model is told when it is made; what it does with it is ``ChatRecaLLM``'s."""

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
            aliases = {field.alias for field in cls.model_fields.values() if field.alias}
            refuse_unknown(values, {*cls.model_fields, *aliases})
        return values

    @model_validator(mode="after")
    def _set_recallm_version(self) -> Self:
        self._load_arguments()  # refuses two addresses
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
            *sorted(PARAMS & set(type(self).model_fields)),
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
        stops = merged_stops(self.stop, stop)
        if stops:
            params["ls_stop"] = list(stops)
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        engine = self.engine
        loaded, _ = self._load_arguments()
        length = engine.backend.window if engine is not None else unloaded_context_length(loaded)
        tools = engine is not None or unloaded_shows_tools(loaded)
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
            model, options = self._load_arguments()
            self._loaded = load_shared(model, mode=self.mode, **{**options, **self.load_options})
        engine: RecaLLM = self._loaded if self.engine is None else self.engine
        return engine

    def _load_arguments(self) -> tuple[str, dict[str, Any]]:
        """What is loaded, and with which options."""
        key = None if self.api_key is None else self.api_key.get_secret_value()
        model, options = load_arguments(
            self.model if "model" in self.model_fields_set else None,
            base_url=self.base_url,
            api_key=key,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )
        return model or self.model, options


def merged_stops(*stops: Sequence[str] | None) -> tuple[str, ...] | None:
    """Returns all stop strings, each once; None where nobody gave any."""
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
