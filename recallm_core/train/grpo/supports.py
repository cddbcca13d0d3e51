"""Log-probabilities under the constraint: masked and renormalised over what was legal.

The trainer sees ids only. What was legal at each of them is computed again by replaying the
constraint, which is deterministic and cheap, so that policy, old policy and reference, and with
them ratio and divergence, are all of the same distribution that the attempt was drawn from. Where
one token alone was legal its log-probability is exactly 0, and nothing flows back from it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recallm_core.decoding.constraint import Constraint, ConstraintRules, Mask
from recallm_core.errors import RecallmError

_REMEMBERED = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Legal:
    """What was legal at each place of one completion.

    Attributes:
        outside: Places at which nearly everything was legal.
        forbidden: Pairs of such a place (its number among ``outside``) and an illegal id.
        inside: Places at which a few ids were legal.
        supports: Their ids, a row each, filled up with -1.
    """

    outside: Tensor
    forbidden: Tensor
    inside: Tensor
    supports: Tensor


def legal_places(rules: ConstraintRules, completion: Sequence[int]) -> Legal:
    """Replays a completion.

    Raises:
        ConstraintError: A token of it is illegal where it stands.
    """
    constraint = Constraint(rules)
    outside: list[int] = []
    forbidden: list[NDArray[np.int64]] = []
    inside: list[int] = []
    supports: list[Tensor] = []
    for place, token in enumerate(completion):
        mask = constraint.mask()
        if mask.only is None:
            forbidden.append(_pairs(len(outside), mask))
            outside.append(place)
        elif len(mask.only) > 1:
            inside.append(place)
            supports.append(torch.from_numpy(mask.only.astype(np.int64)))
        constraint.consume(int(token))
    padded = torch.zeros((0, 1), dtype=torch.long)
    if supports:
        padded = torch.nn.utils.rnn.pad_sequence(supports, batch_first=True, padding_value=-1)
    pairs = np.concatenate([*forbidden, np.zeros((0, 2), np.int64)])
    return Legal(torch.tensor(outside), torch.from_numpy(pairs), torch.tensor(inside), padded)


def _pairs(row: int, mask: Mask) -> NDArray[np.int64]:
    ids = np.zeros(0, np.int64) if mask.forbid is None else mask.forbid.astype(np.int64)
    return np.stack([np.full(len(ids), row, np.int64), ids], axis=1)


def constrained_logps(logits: Tensor, completion: Tensor, legal: Legal) -> tuple[Tensor, Tensor]:
    """Returns the log-probability of each token of a completion, and the entropy at its place.

    Args:
        logits: One row for each token, by which it was chosen, over the temperature already.
        completion: The ids.
        legal: What was legal.
    """
    logps = torch.zeros(len(completion), dtype=torch.float32, device=logits.device)
    entropies = torch.zeros_like(logps)
    for places, scores, goals in (
        _outside(logits, completion, legal),
        _inside(logits, completion, legal),
    ):
        if len(places):
            log_probs = scores.log_softmax(-1)
            logps = logps.index_put((places,), log_probs.gather(1, goals[:, None])[:, 0])
            with torch.no_grad():
                entropies[places] = -(log_probs.exp() * log_probs).nan_to_num(0.0).sum(-1)
    return logps, entropies


def _outside(logits: Tensor, completion: Tensor, legal: Legal) -> tuple[Tensor, Tensor, Tensor]:
    places = legal.outside.to(logits.device, torch.long)
    scores = logits[places].float()
    row, token = legal.forbidden.to(logits.device).unbind(1)
    return (
        places,
        scores.index_put((row, token), scores.new_tensor(float("-inf"))),
        completion[places],
    )


def _inside(logits: Tensor, completion: Tensor, legal: Legal) -> tuple[Tensor, Tensor, Tensor]:
    places = legal.inside.to(logits.device, torch.long)
    support = legal.supports.to(logits.device)
    scores = logits[places[:, None], support.clamp_min(0)].float()
    scores = scores.masked_fill(support < 0, float("-inf"))
    goals = (support == completion[places][:, None]).long().argmax(1)
    return places, scores, goals


class Supports:
    """Remembers the rules of prompts, and what was legal in completions of them."""

    def __init__(self) -> None:
        self._rules: OrderedDict[bytes, ConstraintRules] = OrderedDict()
        self._legal: OrderedDict[bytes, Legal] = OrderedDict()

    def add(self, prompt_ids: Sequence[int], rules: ConstraintRules) -> None:
        """Takes the rules of a prompt."""
        self._rules[_digest(prompt_ids)] = rules
        _cut(self._rules)

    def of(self, prompt_ids: Sequence[int], completion: Sequence[int]) -> Legal:
        """Returns what was legal in a completion.

        Raises:
            RecallmError: The rules of the prompt aren't known.
        """
        prompt = _digest(prompt_ids)
        if prompt not in self._rules:
            raise RecallmError(
                "the trainer has a prompt that no attempt was made for, so nothing is known of "
                "what was legal; prompts must not be cut or padded on the way"
            )
        key = prompt + _digest(completion)
        if key not in self._legal:
            self._legal[key] = legal_places(self._rules[prompt], completion)
            _cut(self._legal)
        return self._legal[key]


def _digest(ids: Sequence[int]) -> bytes:
    return hashlib.blake2b(np.asarray(ids, dtype=np.int64).tobytes(), digest_size=16).digest()


def _cut(remembered: OrderedDict[bytes, Any]) -> None:
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
