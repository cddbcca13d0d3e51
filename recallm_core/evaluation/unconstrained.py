"""The condition "constraint off": spans that may hold anything, for measuring only.

No setting leads here. The span rules (where a span opens, how long it may be, how thinking ends)
are the true ones; only the index is another one, by which every token continues every copy. What
comes of it is text, never a citation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.constraint import ConstraintRules, Effect
from recallm_core.decoding.occurrences import Occurrences
from recallm_core.decoding.recall_index import RecallIndex
from recallm_core.decoding.recall_matcher import RecallMatcher
from recallm_core.prompting.prompt import Prompt
from recallm_core.tokenization.tokenizer import Tokenizer

Ints = NDArray[np.int64]


class FreeIndex(RecallIndex):
    """An index by which every token but the reserved ones may follow.

    Args:
        vocab_size: Width of the logits.
        reserved: Ids that can't stand inside a span: control tokens, ends of sequence.
    """

    def __init__(self, vocab_size: int, reserved: set[int]) -> None:
        super().__init__([], vocab_size=vocab_size)
        ids = np.arange(vocab_size, dtype=np.int64)
        self.free: Ints = ids[~np.isin(ids, sorted(reserved))]

    @property
    def copyable(self) -> bool:
        """Whether a span may be opened: always."""
        return True

    def matcher(
        self,
        max_span_tokens: int = 128,
        start_log_prior: object = None,
        end_log_odds: object = None,
        starts: object = None,
    ) -> RecallMatcher:
        """Returns a matcher that lets everything through; a prior has nothing to tilt."""
        return FreeMatcher(self, max_span_tokens)


class FreeMatcher(RecallMatcher):
    """Remembers what was written in a span, and forbids nothing but length."""

    __slots__ = ("_free",)

    def __init__(self, index: FreeIndex, max_span_tokens: int) -> None:
        super().__init__(index, max_span_tokens, None)
        self._free = index

    @property
    def can_close(self) -> bool:
        """Whether anything was written."""
        return bool(self._tokens)

    def allowed_tokens(self) -> Ints:
        """Everything, until the span is as long as it may be."""
        return self._free.free if len(self._tokens) < self._max else self._free.free[:0]

    def sole_choice(self) -> None:
        """None: there are always several."""

    def consume_token(self, token: int) -> None:
        """Takes note of a token."""
        self._tokens.append(token)

    def extend(self, token: int) -> bool:
        """Takes note of a token that may follow, and says whether it may."""
        may_follow = bool((self.allowed_tokens() == token).any())
        if may_follow:
            self._tokens.append(token)
        return may_follow

    def rollback(self, count: int) -> None:
        """Forgets the last tokens."""
        del self._tokens[len(self._tokens) - count :]

    def copy(self) -> RecallMatcher:
        """Returns an independent matcher at the same place."""
        other = FreeMatcher(self._free, self._max)
        other._tokens = list(self._tokens)
        return other

    def closing_occurrences(self) -> Occurrences:
        """Nothing: no place of the documents is behind what was written."""
        return self._free.occurrences(self._free.free[:0], 0)

    def draft(self, count: int) -> Ints:
        """Nothing: no token is forced."""
        return self._free.free[:0]


def free_rules(prompt: Prompt) -> ConstraintRules:
    """Returns a prompt's rules without the one that makes quotes verbatim."""
    spec = prompt.spec
    reserved = {i for tag in spec.tags if tag.control for i in tag.ids}
    rules = ConstraintRules(spec, prompt.rules.index, prompt.rules.engine)
    rules.index = FreeIndex(spec.vocab_size, reserved | set(spec.eos) | set(spec.forbidden))
    return rules


@dataclass(frozen=True, slots=True)
class FreeOutput:
    """What was written without the constraint.

    Attributes:
        answer: The answer, its spans included.
        spans: The text of each span, outer white space trimmed.
        tokens: Output tokens.
    """

    answer: str
    spans: tuple[str, ...]
    tokens: int


class FreeReader:
    """Reads the output of ``free_rules`` apart: spans, and the answer."""

    def __init__(self, prompt: Prompt, rules: ConstraintRules, tokenizer: Tokenizer) -> None:
        self._recipe = prompt.recipe
        self._spec = prompt.spec
        self._state = rules.start()
        self._tokenizer = tokenizer
        self._piece: list[int] = []
        self._answer: list[str] = []
        self._spans: list[str] = []

    def read(self, tokens: Iterable[int]) -> FreeOutput:
        """Returns what a whole output says."""
        for token in tokens:
            if self._state.done:
                break
            answering = self._state.section == "answer"
            self._take(token, self._state.consume(token), answering)
        if self._state.section != "thinking":
            self._end_piece("")
        text = "".join(self._answer).strip()
        return FreeOutput(self._strip_prefix(text), tuple(self._spans), self._state.length)

    def _take(self, token: int, effect: Effect, answering: bool) -> None:
        if effect is Effect.CLOSED:
            text = self._text(self._state.spans[-1].tokens).strip()
            self._spans.append(text)
            if answering:
                self._answer.append(text)
            return
        if effect is Effect.TEXT:
            self._piece.append(token)
        elif effect is Effect.OPENED:
            self._piece.append(token)
            self._end_piece(self._spec.open.text if answering else None)
        elif effect is Effect.THINKING_ENDED:
            self._piece.clear()

    def _end_piece(self, mark: str | None) -> None:
        """Lets words of the answer out, without the mark that ends them; None drops them."""
        if mark is not None:
            self._answer.append(self._text(self._piece).removesuffix(mark))
        self._piece.clear()

    def _text(self, tokens: Iterable[int]) -> str:
        decoder = self._tokenizer.detokenizer()
        return "".join([decoder.feed(token) for token in tokens]) + decoder.flush()

    def _strip_prefix(self, text: str) -> str:
        """The final line where the model was to begin it with a prefix; as in the true trace."""
        prefix = self._recipe.answer_prefix
        return text.replace(prefix, "").strip() if prefix else text
