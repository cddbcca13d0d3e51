"""The evaluator: quotes of any response against its contexts."""

from __future__ import annotations

import pytest
from llama_index.core.base.response.schema import Response
from llama_index.core.evaluation import BaseEvaluator
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_recallm import QuoteEvaluator

NODES = [
    NodeWithScore(node=TextNode(text="The annual leave is 30 days.")),
    NodeWithScore(node=TextNode(text="Remote work is allowed on two days a week.")),
]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("It says “The annual leave is 30 days” [1].", 1.0),
        ("It says “the ANNUAL leave is 30 days”.", 1.0),
        ("It says “The annual leave is 30 days” [2].", 0.0),
        ("“The annual leave is 30 days” and “Remote work is allowed on ten days a week”", 0.5),
        ("Nothing is quoted.", 1.0),
    ],
)
def test_a_response_passes_if_all_its_quotes_are_sound(text: str, score: float) -> None:
    result = QuoteEvaluator().evaluate_response("?", Response(text, NODES))
    assert isinstance(QuoteEvaluator(), BaseEvaluator)
    assert (result.passing, result.score) == (score == 1.0, score)
    assert result.feedback is not None
    assert result.feedback.rstrip().rpartition("\n")[2].startswith(("1 quote", "2 quotes", "no"))


async def test_claims_count_when_asked_for() -> None:
    text = "Remote work is allowed on two days every week. Cheese is free for all."
    result = await QuoteEvaluator(claims=True).aevaluate_response("?", Response(text, NODES))
    assert (result.passing, result.score) == (False, 0.5)
    with pytest.raises(ValueError, match="both response and contexts are needed"):
        await QuoteEvaluator().aevaluate("?", text)
