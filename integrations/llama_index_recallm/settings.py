"""The fields of RecaLLM, and the model that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from llama_index.core.base.llms.types import (
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM

from recallm_core import GenerationParams
from recallm_core.adapting import (
    PARAMS,
    AbstainPolicy,
    AnswerForm,
    Boundary,
    Evidence,
    PriorName,
    RecallIn,
    Scope,
    core_names,
    load_arguments,
    load_shared,
    refuse_unknown,
    settings_of,
    without_secrets,
)

if TYPE_CHECKING:
    from recallm_core import RecaLLM as CoreLLM


RULES = frozenset({"tools", "tool_choice", "response_schema", "parallel_tool_calls"})


class ModelSettings(FunctionCallingLLM):
    """What a LlamaIndex LLM is told when it is made; what it does with it is ``RecaLLM``'s."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a key may be in it

    model: str = Field(
        default="recallm-mini",
        description="recallm-mini (shipped), a hub id, a local folder or a server's address.",
    )
    base_url: str | None = Field(
        default=None, description="A server's address; model is then its name there."
    )
    api_key: SecretStr | None = Field(
        default=None, description="The server's key; or RECALLM_API_KEY.", exclude=True
    )
    timeout: float | None = Field(
        default=None, description="Seconds that a server may say nothing (300)."
    )
    max_retries: int | None = Field(
        default=None, ge=0, description="Further tries where a server was too busy (2)."
    )
    mode: Literal["auto", "trained", "prompted"] = Field(
        default="auto", description="How the model is driven; auto looks at its tokenizer."
    )
    load_options: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of RecaLLM.load.", exclude=True
    )
    temperature: float | None = Field(default=None, description="0 is greedy.")
    top_p: float | None = Field(default=None, description="Nucleus.")
    max_tokens: int | None = Field(
        default=None, description="Output tokens at most, thinking included."
    )
    seed: int | None = Field(default=None, description="Makes a sampled answer reproducible.")
    stop: list[str] | None = Field(default=None, description="Strings that end the answer.")
    max_thinking_tokens: int | None = Field(default=None, description="Thinking tokens at most.")
    max_span_tokens: int | None = Field(default=None, description="Soft limit of one quote.")
    max_spans: int | None = Field(default=None, description="Quotes per output.")
    recall_in: RecallIn | None = None
    boundary: Boundary | None = None
    scope: Scope | None = Field(
        default=None, description="What may be quoted; None: documents where there are any."
    )
    abstain_policy: AbstainPolicy | None = None
    prior: PriorName | None = None
    prior_weight: float | None = None
    answer_form: AnswerForm | None = None
    evidence: Evidence | None = Field(
        default=None, description="What an output owes: free, required, first or auto."
    )
    citation_blocks: bool = Field(
        default=True, description="Off for a memory shared with models that refuse such blocks."
    )
    thinking_blocks: bool = Field(default=True, description="Whether the thinking is shown.")

    _engine: Any = PrivateAttr(default=None)
    _verbatim_engine: Any = PrivateAttr(default=None)
    _tools_shown: bool | None = PrivateAttr(default=None)

    def __init__(self, model: str | CoreLLM | None = None, **kwargs: Any) -> None:
        """Takes the fields by name; ``model`` may be a ready ``recallm_core.RecaLLM``."""
        engine = None if model is None or isinstance(model, str) else model
        if engine is not None and not hasattr(engine, "stream_chat"):
            raise TypeError(
                f"model must be a name, a folder or a recallm_core.RecaLLM, got "
                f"{type(model).__name__}"
            )
        if model is not None:
            kwargs["model"] = model if engine is None else engine.name
        super().__init__(**kwargs)
        self._engine = engine
        self._params({})

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict):
            refuse_unknown(set(values) - {"class_name"}, cls.model_fields)
        return values

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy of the settings; a loaded model is shared, never copied."""
        return self.model_copy()

    @field_validator("model", "base_url", "load_options")
    @classmethod
    def _check_secrets(cls, value: Any) -> Any:
        return without_secrets(value)

    @property
    def engine(self) -> CoreLLM:
        """The model, loaded when it is first needed and shared by all who ask for the same."""
        if self._engine is None:
            model, options = load_arguments(
                self.model if "model" in self.model_fields_set else None,
                base_url=self.base_url,
                api_key=None if self.api_key is None else self.api_key.get_secret_value(),
                timeout=self.timeout,
                max_retries=self.max_retries,
            )
            options |= self.load_options
            self._engine = load_shared(model or self.model, mode=self.mode, **options)
        engine: CoreLLM = self._engine
        return engine

    @property
    def metadata(self) -> LLMMetadata:
        """What is true of the model; ``num_output`` includes the thinking."""
        engine = self.engine
        return LLMMetadata(
            context_window=engine.backend.window,
            num_output=engine.resolve(max_new_tokens=self.max_tokens).max_new_tokens,
            is_chat_model=True,
            is_function_calling_model=self._has_tools(),
            model_name=self.model,
        )

    def _has_tools(self) -> bool:
        if self._tools_shown is None:
            self._tools_shown = _shows_tools(self.engine)
        return self._tools_shown

    def count_tokens(self, text: str) -> int:
        """Returns how many tokens a text has for this model."""
        return self.engine.count_tokens(text)

    def _verbatim(self) -> CoreLLM:
        """The same model, but ``Answer:`` stays in what it says: a ReAct agent looks for it."""
        engine = self.engine
        if engine.recipe.answer_prefix and self._verbatim_engine is None:
            recipe = replace(engine.recipe, answer_prefix="")
            verbatim = type(engine)(engine.tokenizer, engine.backend, recipe, name=engine.name)
            self._verbatim_engine = verbatim
        engine_in_use: CoreLLM = self._verbatim_engine or engine
        return engine_in_use

    def _params(self, options: Mapping[str, Any]) -> GenerationParams:
        """The settings of a call over those of this object.

        Raises:
            TypeError: A setting is unknown.
        """
        renamed = core_names(options)
        unknown = sorted(set(renamed) - PARAMS - RULES)
        if unknown:
            raise TypeError(f"unknown settings {unknown}; known: {sorted(PARAMS | RULES)}")
        return GenerationParams(**settings_of(self, renamed))


def _shows_tools(engine: CoreLLM) -> bool:
    """Whether the model's chat template has a place for tools."""
    name = "recallm_probe"
    tool = {"type": "function", "function": {"name": name, "description": "", "parameters": {}}}
    try:
        shown = engine.tokenizer.render_chat([{"role": "user", "content": "?"}], tools=[tool])
    except Exception:  # templates raise whatever Jinja lets them
        return False
    return name in shown
