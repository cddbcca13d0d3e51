"""Which family a checkpoint belongs to, seen from its template and config, and what it wants.

One table: a family is a row. What can be observed isn't written down. Whether a template takes a
system turn shows when it is rendered (``conversation.render``), and which token ends a turn shows
in what it writes after one (``tokenizer.HFTokenizer``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from recallm_core.inputs.model_config import weights_of_layers
from recallm_core.prompting.recipe import LEAD_IN, Recipe, prompted_recipe
from recallm_core.tokenization.tokenizer import HFTokenizer

THINKING = ("<think>", "</think>")
ANSWER_WEIGHTS = ((2e8, 2.0), (5e8, 1.0))
"""``Recipe.answer_weight`` of models with fewer weights in their layers, by measurement
(``docs/results/cited.md``); what helps larger ones wasn't measured, and they have none."""

_MOST_THOUGHT = 2048  # output tokens of a model that thinks: a quarter is kept for the answer

PLAIN = """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}{{ ' ' + message.content + '\\n\\n' }}
{%- elif message.role == 'user' %}{{ message.content + '\\nAnswer:' }}
{%- else %}{{ message.content + '\\n\\n' }}{% endif %}
{%- endfor %}
{%- if messages[-1].role != 'user' %}{{ 'Answer:' }}{% endif %}"""
"""For base models: documents, question, and the word after which an answer follows."""


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of a family differ from others.

    Attributes:
        name: For people.
        signs: What its chat template holds, all of them.
        kinds: The ``model_type`` of its config, one of them; empty: any.
        thinks: The marks around thinking; None where its models don't.
        system_turn: Whether instructions belong in a system turn; otherwise, and where the
            template refuses one, they stand in the first user turn.
        switches: What its template is told.
        sampling: Defaults that its makers advise, and strings that end an answer.
        in_marks: Whether its models close the quotation mark that an answer begins behind.
    """

    name: str
    signs: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    thinks: tuple[str, str] | None = None
    system_turn: bool = True
    switches: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    in_marks: bool = True


def _sampling(temperature: float, top_p: float | None = None, **more: Any) -> dict[str, Any]:
    nucleus = {} if top_p is None else {"top_p": top_p}
    return {"temperature": temperature, **nucleus, **more}


_THOUGHT = _sampling(0.6, 0.95, max_new_tokens=_MOST_THOUGHT)
_SWITCHED = {"enable_thinking": True}

FAMILIES = (
    Family(
        "DeepSeek-R1-Distill",
        ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "</think>"),
        thinks=THINKING,
        system_turn=False,  # "avoid adding a system prompt": its model card
        sampling=_THOUGHT,
    ),
    Family("SmolLM3", ("reasoning_mode", "/no_think"), (), THINKING, True, _SWITCHED, _THOUGHT),
    Family("SmolLM2", ("<|im_start|>", "named SmolLM"), sampling=_sampling(0.2, 0.9)),
    Family(
        "Qwen3, thinking",
        ("<|im_start|>", "</think>"),
        ("qwen3", "qwen3_moe"),
        THINKING,
        True,
        _SWITCHED,
        _THOUGHT,
    ),
    Family(
        "Qwen3, thinking",
        ("<|im_start|>", "</think>", "enable_thinking", "<tool_call>"),
        (),
        THINKING,
        True,
        _SWITCHED,
        _THOUGHT,
    ),
    Family("Qwen3", ("<|im_start|>",), ("qwen3", "qwen3_moe"), sampling=_sampling(0.7, 0.8)),
    Family("QwQ", ("<|im_start|>", "<think>"), ("qwen2",), THINKING, sampling=_THOUGHT),
    Family("Qwen2.5", ("<|im_start|>", "You are Qwen"), sampling=_sampling(0.7, 0.8)),
    Family("Llama 3", ("<|start_header_id|>", "<|eot_id|>"), sampling=_sampling(0.6, 0.9)),
    Family("Gemma", ("<start_of_turn>", "<end_of_turn>"), sampling=_sampling(1.0, 0.95)),
    Family("Mistral Small", ("[INST]", "[SYSTEM_PROMPT]"), sampling=_sampling(0.15)),
    Family("Mistral", ("[INST]",)),
    Family(
        "Phi-4, reasoning",
        ("<|im_sep|>", "</think>"),
        thinks=THINKING,
        sampling=_sampling(0.8, 0.95, max_new_tokens=_MOST_THOUGHT),
    ),
    Family("Phi-4", ("<|im_sep|>",), sampling=_sampling(0.0)),
    Family("Phi-3", ("<|end|>", "<|user|>"), sampling=_sampling(0.0)),
    Family(
        "Phi-3-small, Phi-4-mini", ("<|end|>", "'<|' + message['role']"), sampling=_sampling(0.0)
    ),
)
"""The families; the first that fits counts.

Temperatures and nuclei are those that model cards advised when this was written; a recipe saved
beside the weights, and a caller's params, go before them.
"""

BASE = Family(
    "base",
    switches={"chat_template": PLAIN},
    sampling={"stop": ("\nQuestion:", "\nAnswer:", "Long answer:", "\n\n", "\n<document")},
    in_marks=False,
)
"""A model without a chat template."""

UNKNOWN = Family("unknown")
"""A template like no other; whether its model thinks shows in it."""


def detect(tokenizer: HFTokenizer, config: Mapping[str, Any], template: str | None) -> Family:
    """Returns the family that a checkpoint belongs to; its name isn't looked at.

    Args:
        tokenizer: The checkpoint's.
        config: Its ``config.json``; may be empty.
        template: Its chat template, if it has one.
    """
    if not template:
        return BASE
    kind = config.get("model_type")
    for family in FAMILIES:
        fits = not family.kinds or kind in family.kinds
        if fits and all(sign in template for sign in family.signs):
            return family
    if THINKING[1] in template or _opens_thinking(tokenizer):
        return replace(UNKNOWN, thinks=THINKING, sampling={"max_new_tokens": _MOST_THOUGHT})
    return UNKNOWN


def _opens_thinking(tokenizer: HFTokenizer) -> bool:
    """Whether the template begins the reply with thinking."""
    try:
        rendered = tokenizer.render_chat([{"role": "user", "content": "x"}])
    except Exception:  # templates raise whatever Jinja lets them
        return False
    return rendered.rstrip().endswith(THINKING[0])


def family_of(tokenizer: HFTokenizer, config: Mapping[str, Any]) -> Family:
    """Returns ``detect`` for the template that the tokenizer has for a conversation."""
    try:
        template = tokenizer.tokenizer.get_chat_template()
    except ValueError:  # none, or several without a default
        template = None
    return detect(tokenizer, config, template)


def recipe_of(family: Family, config: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of a prompted model of a family.

    Args:
        family: The family.
        config: The model's; its sizes tell whether the words of its answers are drawn to what the
            reader takes for the answer.
    """
    opened, closed = family.thinks or ("", "")
    base = prompted_recipe(think_open=opened, think_close=closed)
    if not family.in_marks:
        base = replace(base, lead_in=LEAD_IN, lead_out="")
    sampling = {**base.sampling, **family.sampling}
    return replace(base, sampling=sampling, answer_weight=_answer_weight(family, config))


def _answer_weight(family: Family, config: Mapping[str, Any]) -> float:
    """How strongly a model's words are drawn; those of one that thinks aren't."""
    count = inf if family.thinks else weights_of_layers(config)
    return next((weight for limit, weight in ANSWER_WEIGHTS if count < limit), 0.0)


def apply_family(tokenizer: HFTokenizer, family: Family) -> HFTokenizer:
    """Returns the tokenizer, rendering conversations as the family wants them."""
    return tokenizer.rendering(family.switches, system_turn=family.system_turn)
