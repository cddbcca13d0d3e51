"""A model's attempt at a problem, read from its tokens: what a reward is a function of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recallm_core.answers.trace import RecallSpan, Trace
from recallm_core.answers.trace_parser import TraceParser
from recallm_core.decoding.constraint import Constraint, Effect
from recallm_core.prompting.prompt import Prompt
from recallm_core.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Response:
    """One attempt.

    Attributes:
        trace: What was written and quoted; the answer still holds its line "Answer: ...".
        tokens: Output tokens.
        thinking_ends: How often thinking was ended.
        opened, closed: Marks around spans; one more is opened where the output was cut off.
    """

    trace: Trace
    tokens: int
    thinking_ends: int = 1
    opened: int = 0
    closed: int = 0

    @property
    def spans(self) -> tuple[RecallSpan, ...]:
        """The spans that were closed."""
        return self.trace.spans[: self.closed]


def read_response(prompt: Prompt, tokenizer: Tokenizer, tokens: Sequence[int]) -> Response:
    """Returns what output tokens say.

    Raises:
        GenerationError: A token was illegal where it stands.
    """
    # the parser drops the prefix of the answer's line, and the reward asks whether it is there
    whole = replace(prompt, recipe=replace(prompt.recipe, answer_prefix=""))
    parser = TraceParser(whole, tokenizer)
    parser.feed(tokens)
    parser.finish()
    effects = _effects(prompt, tokens)
    return Response(
        trace=parser.trace,
        tokens=len(tokens),
        thinking_ends=effects.count(Effect.THINKING_ENDED) + (not prompt.spec.thinking),
        opened=effects.count(Effect.OPENED),
        closed=effects.count(Effect.CLOSED),
    )


def _effects(prompt: Prompt, tokens: Sequence[int]) -> list[Effect]:
    constraint = Constraint(prompt.rules)
    return [constraint.consume(int(token)) for token in tokens]
