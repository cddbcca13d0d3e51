"""The conditions of a comparison, by name: constraint on or off, each prior, and the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from recallm_core.evaluation.answering import ByFreeModel, ByHeuristic, ByModel, ByPrior, Way
from recallm_core.generator import RecaLLM
from recallm_core.prompting.params import GenerationParams

Kind = Literal["model", "free", "prior", "heuristic"]
HEURISTIC = "heuristic"
FREE = "no constraint"


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to answer.

    Attributes:
        name: As it stands in rows and tables.
        kind: ``model`` (constraint on), ``free`` (constraint off), ``prior`` (a prior alone) or
            ``heuristic``.
        prior: The prior's name; ``none`` where there is none.
    """

    name: str
    kind: Kind
    prior: str = "none"

    def way(self, llm: RecaLLM, params: GenerationParams) -> Way:
        """Returns what answers under this condition.

        Raises:
            ValueError: The library knows no prior of this name.
        """
        if self.kind == "heuristic":
            return ByHeuristic()
        name: Any = self.prior  # checked by the params themselves
        settings = replace(params, prior=name)
        if self.kind == "free":
            return ByFreeModel(llm, settings)
        return ByModel(llm, settings) if self.kind == "model" else ByPrior(llm, settings)


def under_constraint(prior: str) -> Condition:
    """Returns the condition of a model as users run it, with a prior."""
    name = "constraint" if prior == "none" else f"constraint, prior {prior}"
    return Condition(name, "model", prior)


def prior_alone(prior: str) -> Condition:
    """Returns the condition in which a prior answers without the model."""
    return Condition(f"prior {prior} alone", "prior", prior)


def conditions(priors: Sequence[str], constraint: Sequence[str]) -> tuple[Condition, ...]:
    """Returns all conditions, the first prior's first: it is the one that is held to the bars.

    Args:
        priors: Names of priors; ``none`` is one of them.
        constraint: ``on``, ``off`` or both.
    """
    result: list[Condition] = []
    if "on" in constraint:
        result += [under_constraint(prior) for prior in priors]
    if "off" in constraint:
        result.append(Condition(FREE, "free"))
    result += [prior_alone(prior) for prior in priors if prior != "none"]
    return (*result, Condition(HEURISTIC, "heuristic"))
