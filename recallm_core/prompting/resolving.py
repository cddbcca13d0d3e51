"""The settings of one generation, all filled in: the caller's, then the recipe's, then ours."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from recallm_core.decoding.grammar import OutputRules
from recallm_core.prompting.params import BASE, GenerationParams, Owed, ResolvedParams
from recallm_core.prompting.recipe import Recipe

_MOST_FOR_ANSWER = 512  # of the output's tokens; the rest may be thinking


def resolve(
    params: GenerationParams, recipe: Recipe, output: OutputRules | None = None
) -> ResolvedParams:
    """Returns what holds for one generation.

    Args:
        params: The caller's settings.
        recipe: The model's; its settings hold where the caller says nothing.
        output: Tools or a schema, where the answer isn't just words.
    """
    of_recipe = {"prior": recipe.prior, "prior_weight": recipe.prior_weight}
    filled = params.over(recipe.sampling).over({**of_recipe, **BASE})
    values: dict[str, Any] = {f.name: getattr(filled, f.name) for f in fields(ResolvedParams)}
    evidence = _owed_evidence(filled, recipe, output)
    by_default = "sentence" if evidence == "first" else "word"
    values |= {
        "evidence": evidence,
        "boundary": filled.boundary or by_default,
        "max_thinking_tokens": _thinking_budget(
            values["max_new_tokens"], filled.max_thinking_tokens
        ),
    }
    return ResolvedParams(**values)


def _thinking_budget(max_new_tokens: int, asked_for: int | None) -> int:
    """What leaves a quarter of the output, at most 512 tokens, for the answer; or less."""
    for_answer = min(_MOST_FOR_ANSWER, max(1, max_new_tokens // 4))
    room = max(0, max_new_tokens - for_answer)
    return room if asked_for is None else min(asked_for, room)


def _owed_evidence(params: GenerationParams, recipe: Recipe, output: OutputRules | None) -> Owed:
    """What the output owes, where that can be had at all."""
    named = params.evidence
    policy: Owed = recipe.policy if named is None or named == "auto" else named
    if params.recall_in == "none" or params.max_spans == 0 or params.answer_form == "quote":
        return "free"
    if policy != "free" and output is not None:
        of_calls: Owed = "free" if output.requires_call else "required"  # a call is no answer
        policy = of_calls if output.schema is None else "first"
    return "first" if policy == "required" and params.recall_in == "thinking" else policy
