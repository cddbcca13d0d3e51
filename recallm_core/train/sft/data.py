"""Rows of a run by number, and batches of them as tensors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from recallm_core.errors import RecallmError
from recallm_core.train.tasks.curriculum import Curriculum, drawn_size
from recallm_core.train.tasks.tokenized import IGNORED, Row, RowMaker
from recallm_core.train.tasks.training_example import TrainingExample

_TRIES = 60
_SAMPLE = "The quick survey of the harbour, made in 1987, lists 42 boats and their owners. "


class TrainingSet(Dataset[Row]):
    """A fixed number of rows; each follows from the seed and its number.

    Args:
        curriculum: Draws the examples.
        maker: Renders them.
        count: How many.
        seed: Of all of them.
        context_tokens: Shortest and longest documents, about.
        max_tokens: Longest row.
        working: Share of the rows with working before their first quote.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        maker: RowMaker,
        *,
        count: int,
        seed: int,
        context_tokens: tuple[int, int],
        max_tokens: int,
        working: float = 0.0,
    ) -> None:
        self._curriculum, self._maker = curriculum, maker
        self._count, self._seed = count, seed
        self._context, self._limit, self._working = context_tokens, max_tokens, working
        sampled = len(maker.tokenizer.encode_plain(_SAMPLE * 4).ids)
        self._characters_per_token = 4 * len(_SAMPLE) / max(1, sampled)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Row:
        return self.pair(number)[1]

    def pair(self, number: int) -> tuple[TrainingExample, Row]:
        """Returns an example and its row; one that doesn't fit is drawn again, shorter.

        Raises:
            RecallmError: None fits.
        """
        rng = random.Random(f"{self._seed}:{number}")
        tokens = drawn_size(rng, *self._context)
        is_worked = self._working > 0 and rng.random() < self._working
        for _ in range(_TRIES):
            size = round(tokens * self._characters_per_token)
            example = self._curriculum.draw(rng, size, is_worked=is_worked)
            row = self._maker.row(example, limit=self._limit)
            if row is not None and row.learnt:
                return example, row
            tokens = max(self._context[0], tokens * 3 // 4)
        raise RecallmError(
            f"none of {_TRIES} examples fits {self._limit:,} tokens, or this tokenizer can't show "
            "their quotes; raise max_tokens or lower context_tokens"
        )


def collate(rows: Sequence[Row], pad: int) -> dict[str, Tensor]:
    """Returns a batch, padded on the left, so that all completions stand at the end.

    ``support`` has the legal ids of each constrained place, filled up with -1; ``choice`` says
    where these places are: row, and position in the labels.
    """
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    choices: list[tuple[int, int]] = []
    supports: list[Tensor] = []
    for number, row in enumerate(rows):
        ids[number, width - len(row.ids) :] = torch.from_numpy(row.ids)
        mask[number, width - len(row.ids) :] = 1
        first = width - len(row.labels)
        labels[number, first:] = torch.from_numpy(row.labels)
        choices += [(number, first + place) for place in row.choices]
        supports += [torch.from_numpy(support).long() for support in row.supports]
    padded: Tensor = torch.zeros((0, 1), dtype=torch.long)
    if supports:
        padded = torch.nn.utils.rnn.pad_sequence(supports, batch_first=True, padding_value=-1)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp_min(0),
        "labels": labels,
        "choice": torch.tensor(choices, dtype=torch.long).reshape(-1, 2),
        "support": padded,
    }


def completion_loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns summed losses of a batch: ``words`` and ``recall``, with their counts.

    Inside a span the softmax is over the tokens that the constraint allows there; where it allows
    one only there is no loss. Logits are made for completions alone.
    """
    labels, choice, support = batch["labels"], batch["choice"], batch["support"]
    width = labels.shape[1]
    first = int((labels != IGNORED).any(0).nonzero()[0])
    out = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=width - first + 1,
        use_cache=False,
    )
    logits = out.logits[:, :-1]  # the last predicts what follows the row
    targets = labels[:, first:].clone()
    where, at = choice[:, 0], choice[:, 1] - first
    goals = targets[where, at]
    targets[where, at] = IGNORED
    plain = targets != IGNORED
    words = summed_loss(logits[plain], targets[plain])
    scores = logits[where, at].float().gather(1, support.clamp_min(0))
    scores = scores.masked_fill(support < 0, float("-inf"))
    right = (support == goals[:, None]).long().argmax(1)
    recall = summed_loss(scores, right)
    return {
        "words": words,
        "recall": recall,
        "words_count": plain.sum(),
        "recall_count": torch.tensor(len(where), device=labels.device),
    }


def summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the summed loss in 32 bits; 0 where there is nothing to sum."""
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
