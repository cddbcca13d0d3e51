"""An evaluator of LlamaIndex that checks every quote of a response against its contexts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.prompts.mixin import PromptDictType

import recallm_core as recallm


class QuoteEvaluator(BaseEvaluator):
    """Passes a response whose quotes are all verbatim, or the same words in other writing.

    No model is asked, so a result is reproducible. The score is the part of the quotes that are
    sound (1.0 where there are none: use ``claims`` then); the feedback lists the verdicts, with
    what the contexts say instead. ``[2]`` beside a quote means the second context.

    Args:
        claims: Whether sentences without a quote are looked up as well, by their words; those that
            no context holds count as unsound.
    """

    def __init__(self, claims: bool = False) -> None:
        self.claims = claims

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """There are none."""

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Checks the quotes of a response.

        Raises:
            ValueError: The response or the contexts are missing.
        """
        if response is None or contexts is None:
            raise ValueError("both response and contexts are needed, as evaluate_response has them")
        report = recallm.check_quotes(response, contexts, claims=self.claims)
        every = len(report.quotes) + len(report.claims)
        unsound = len(report.problems) + len(report.unsupported)
        return EvaluationResult(
            query=query,
            contexts=contexts,
            response=response,
            passing=unsound == 0,
            score=1.0 - unsound / every if every else 1.0,
            feedback=str(report),
        )
