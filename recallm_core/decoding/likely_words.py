"""Words that an answer is likely to have: they are preferred where it goes like one of those.

Whoever scored the evidence may know pieces of it that are likely to be the answer. They are token
sequences with shares, held as a tree. Where an answer begins, behind what leads to it if anything
does, and as long as it has been written as one of them begins, the tokens by which one of them goes
on are raised, and where one is complete, what ends an answer. An answer that leaves the tree is the
model's own from there on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recallm_core.decoding.likely_tokens import LikelyTokens
from recallm_core.decoding.state import Floats, Ints

LEFT = -1  # the place of an answer that goes its own way
DOUBT = 5e-4  # the share of a token that is raised by the logarithm of two


@dataclass(slots=True)
class _Branch:
    """The likely answers that begin alike.

    Attributes:
        share: Of all of them together.
        complete: Of the one that ends here.
        branches: Where each next token leads.
    """

    share: float = 0.0
    complete: float = 0.0
    branches: dict[int, int] = field(default_factory=dict)


class LikelyWords:
    """The likely answers to one prompt, and how much each token is raised; never changes.

    Args:
        likely: The answers, and what ends one.
        weight: What the tilt is multiplied with.
    """

    def __init__(self, likely: LikelyTokens, weight: float) -> None:
        self._skipped = likely.skipped
        self._closers = likely.closers
        self._strength = likely.strength * weight
        self._lead = likely.lead
        self._tree = [_Branch() for _ in range(len(likely.lead) + 1)]  # the last one is the root
        for answer in likely.answers:
            self._grow(answer.ids, answer.share)

    def _grow(self, ids: tuple[int, ...], share: float) -> None:
        place = len(self._lead)
        for token in ids:
            branches = self._tree[place].branches
            if token not in branches:
                branches[token] = len(self._tree)
                self._tree.append(_Branch())
            place = branches[token]
            self._tree[place].share += share
        self._tree[place].complete += share

    def step(self, place: int, token: int) -> int:
        """Returns the place that a token of the answer leads to.

        Args:
            place: Where the output stands; 0 where nothing of the answer, nor what leads to it, was
                written.
            token: What is written next. An article at the answer's beginning leads nowhere.
        """
        if place == LEFT:
            return LEFT
        if place < len(self._lead):
            return self._lead_step(place, token)
        stays = place == len(self._lead) and token in self._skipped
        return self._tree[place].branches.get(token, place if stays else LEFT)

    def _lead_step(self, place: int, token: int) -> int:
        """How much of the lead the output ends with, one token further."""
        ending = (*self._lead[:place], token)
        return next(
            n for n in range(place + 1, -1, -1) if ending[place + 1 - n :] == self._lead[:n]
        )

    def tilt(self, place: int) -> tuple[Ints, Floats] | None:
        """Returns the ids that are raised, none of them twice, and by how much; None: none is.

        The share of a token is that of all likely answers which go on with it, of those which begin
        as the answer does. At the beginning it is of everything, so that a scorer which is sure of
        little raises little.
        """
        if place < len(self._lead):  # or it has left
            return None
        branch = self._tree[place]
        whole = branch.share if place > len(self._lead) else 1.0
        shares = {token: self._tree[n].share / whole for token, n in branch.branches.items()}
        if branch.complete:
            shares = dict.fromkeys(self._closers, branch.complete / whole) | shares
        if not shares:
            return None
        ids = np.array(list(shares), dtype=np.int64)
        return ids, self._strength * np.log1p(np.array(list(shares.values())) / DOUBT)
