"""Training examples as token rows of one model, rendered by the model's own prompt builder.

Every row is replayed through the decoding constraint: a row exists only if each of its tokens is
legal where it stands, and inside recall spans it knows which tokens were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.constraint import Constraint
from recallm_core.documents.document import Passage
from recallm_core.errors import CheckpointError, ConstraintError
from recallm_core.prompting.builder import Prompt, PromptBuilder
from recallm_core.prompting.params import GenerationParams
from recallm_core.prompting.recipe import Recipe
from recallm_core.tokenization.tokenizer import Tokenizer
from recallm_core.train.tasks.training_example import Part, Quote, TrainingExample

Ints = NDArray[np.int32]
IGNORED = -100
_MOST_WIDENED = 12  # tokens by which a quote may grow to reach a legal start or end


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One training example as ids.

    Attributes:
        ids: Prompt and completion.
        prompt_length: Tokens of the prompt.
        labels: What each completion token is learnt from: its id; -100 where the constraint leaves
            one choice only, as there is nothing to learn, and in working that is given.
        choices: Places in the completion at which the constraint leaves a choice.
        supports: For each of them, the legal ids.
        task: Of the example.
    """

    ids: Ints
    prompt_length: int
    labels: Ints
    choices: tuple[int, ...]
    supports: tuple[Ints, ...]
    task: str

    @property
    def learnt(self) -> int:
        """Tokens that carry loss."""
        return int((self.labels != IGNORED).sum())


class RowMaker:
    """Renders examples for one model.

    Args:
        tokenizer: The model's tokenizer.
        recipe: How the model is driven; it must be a trained one.
        vocab_size: Width of the model's logits.
        quote_answer: Whether the final answer is a recall as well, where it stands word for word.

    Raises:
        CheckpointError: The recipe isn't a trained one.
    """

    def __init__(
        self, tokenizer: Tokenizer, recipe: Recipe, *, vocab_size: int, quote_answer: bool = False
    ) -> None:
        if recipe.mode != "trained":
            raise CheckpointError(
                "this model is driven by text marks; training wants the four recall tokens: make a "
                "checkpoint that has them with recallm model create BASE OUT"
            )
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.builder = PromptBuilder(tokenizer, recipe, vocab_size=vocab_size)
        self.quote_answer = quote_answer

    def row(self, example: TrainingExample, *, limit: int) -> Row | None:
        """Returns an example as ids.

        None where it has more than ``limit`` tokens, or a quote that no legal span can show (the
        tokens of its passage don't allow it, or it is longer than a span may be).
        """
        prompt = self.prompt(example, limit)
        if len(prompt.token_ids) >= limit:
            return None
        out = self.completion(example, prompt)
        if out is None or len(prompt.token_ids) + len(out) > limit:
            return None
        row = replay(prompt, out, example.task)
        if row is not None:
            row.labels[: len(self._working(example, prompt))] = IGNORED
        return row

    def prompt(self, example: TrainingExample, limit: int) -> Prompt:
        """Returns what the model reads."""
        passages = [
            Passage(f"d{number}", 0, len(text), text, title=title or None)
            for number, (title, text) in enumerate(example.passages)
        ]
        params = GenerationParams(max_new_tokens=4 * limit, prior="none")
        return self.builder.build([{"role": "user", "content": example.question}], passages, params)

    def completion(self, example: TrainingExample, prompt: Prompt) -> list[int] | None:
        """Returns the ids of thinking and answer, or None where a quote can't be shown."""
        ids: list[int] = []
        spec = prompt.spec
        if spec.think_close is not None:
            ids += self._working(example, prompt)
            if not self._say(ids, example.thinking, prompt):
                return None
            ids += spec.think_close.ids
        if not self._say(ids, self._answer(example), prompt):
            return None
        if not spec.eos:
            raise CheckpointError("the tokenizer names no end-of-sequence token; set eos_token")
        return [*ids, spec.eos[0]]

    def _working(self, example: TrainingExample, prompt: Prompt) -> list[int]:
        """The ids that the thinking begins with; none for a model that doesn't think."""
        if prompt.spec.think_close is None:
            return []
        ids: list[int] = self.tokenizer.encode_plain(example.working).ids.tolist()
        return ids

    def _answer(self, example: TrainingExample) -> list[Part]:
        lead = "\n\n" if self.recipe.answer_prefix else ""
        parts: list[Part] = [lead + (f"{example.reason}\n" if example.reason else "")]
        if self.recipe.answer_prefix:
            parts.append(f"{self.recipe.answer_prefix} ")
        if example.answer is None:
            parts.append(self.recipe.abstain[0])
        elif example.answer_at is not None and self.quote_answer:
            parts.append(example.answer_at)
        else:
            parts.append(example.answer)
        return _merge(parts)

    def _say(self, ids: list[int], parts: Sequence[Part], prompt: Prompt) -> bool:
        """Appends words and quotes; False where a quote can't be shown."""
        for part in _merge(parts):
            if isinstance(part, str):
                ids += self.tokenizer.encode_plain(part).ids.tolist()
                continue
            place = quote_range(prompt, part)
            if place is None:
                return False
            first, end = place
            copied = prompt.token_ids[first:end].tolist()
            ids += [*prompt.spec.open.ids, *copied, *prompt.spec.close.ids]
        return True


def _merge(parts: Sequence[Part]) -> list[Part]:
    """Joins neighbouring words: they are encoded together, as a model would write them."""
    out: list[Part] = []
    for part in parts:
        if isinstance(part, str) and out and isinstance(out[-1], str):
            out[-1] += part
        elif part != "":
            out.append(part)
    return out


def quote_range(prompt: Prompt, quote: Quote) -> tuple[int, int] | None:
    """Returns the token range in the prompt of a quote, widened to where a span may begin and end.

    None where the passage's tokens have no such range around it.
    """
    base = 0
    for run in prompt.runs:
        size = len(run.starts)
        if run.passage == quote.passage and run.starts[0] <= quote.start < run.ends[-1]:
            can_start = prompt.spec.can_start[base : base + size]
            can_end = prompt.spec.can_end[base : base + size]
            first = int(np.searchsorted(run.ends, quote.start, side="right"))
            last = int(np.searchsorted(run.ends, quote.end, side="left"))
            begins = np.flatnonzero(can_start[max(0, first - _MOST_WIDENED) : first + 1])
            finishes = np.flatnonzero(can_end[last : last + _MOST_WIDENED])
            if last >= size or not len(begins) or not len(finishes):
                return None
            first = max(0, first - _MOST_WIDENED) + int(begins[-1])
            return run.first + first, run.first + last + int(finishes[0]) + 1
        base += size
    return None


def replay(prompt: Prompt, completion: Sequence[int], task: str) -> Row | None:
    """Returns the row with its legal sets; None where a token isn't legal.

    That happens to quotes that are longer than a span may be.
    """
    constraint = Constraint(prompt.rules)
    labels = np.array(completion, dtype=np.int32)
    choices: list[int] = []
    supports: list[Ints] = []
    for place, token in enumerate(completion):
        only = constraint.mask().only
        if only is not None and len(only) == 1:
            labels[place] = IGNORED
        elif only is not None:
            choices.append(place)
            supports.append(only.astype(np.int32))
        try:
            constraint.consume(token)
        except ConstraintError:
            return None
    if not constraint.done:
        return None
    ids = np.concatenate([prompt.token_ids, np.array(completion, dtype=np.int32)])
    return Row(ids, len(prompt.token_ids), labels, tuple(choices), tuple(supports), task)
