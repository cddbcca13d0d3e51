"""A plain constrained decoder for watching a run; the library's own is far faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recallm_core.train.mini_model import Mini
from recallm_core.train.traces import (
    END_RECALL,
    END_THINK,
    START_RECALL,
    Encoder,
    Example,
    Run,
    merged,
    piece_of,
)

_MOST_SPANS = 3


@dataclass(frozen=True, slots=True)
class Watched:
    """What the model did.

    Attributes:
        evidence: (passage, start, end) of each recalled span.
        answer: The answer's text; empty where the model abstained.
        margin: Logit of answering minus logit of abstaining.
    """

    evidence: tuple[tuple[int, int, int], ...]
    answer: str
    margin: float


class Decoder:
    """Greedy decoding under the constraint; answers lie inside the evidence."""

    def __init__(self, model: Mini, encoder: Encoder) -> None:
        self.model, self.encoder = model.eval(), encoder

    @torch.no_grad()
    def _logits(self, ids: Sequence[int]) -> np.ndarray:
        row = torch.tensor([list(ids)])
        states, _ = self.model(row, torch.arange(row.shape[1])[None])
        return np.asarray(self.model.logits(states[0, -1:])[0].float().numpy())

    def answer(
        self,
        passages: Sequence[tuple[str, str]],
        question: str,
        *,
        prior: bool = True,
        forced: tuple[int, int, int] | None = None,
        abstains: bool = True,
    ) -> Watched:
        """Answers one question; ``forced`` is evidence to use instead of the model's own."""
        encoder = self.encoder
        example = Example(tuple(passages), question, (), None, "")
        ids, runs = encoder.prompt(example)
        spans: list[tuple[int, int, int]] = []
        while len(spans) < _MOST_SPANS:
            if spans:
                logits = self._logits(ids)
                if logits[encoder.id[END_THINK]] >= logits[encoder.id[START_RECALL]]:
                    break
            ids.append(encoder.id[START_RECALL])
            done = [passages[p][1][_chars(runs[p], a, b)] for p, a, b in spans]
            tilt = encoder.tilts(example, runs, prior, done)
            if forced is not None:
                cut = runs[forced[0]].cut(forced[1], forced[2])
                span = (forced[0], *cut) if cut else self._span(ids, runs, tilt)
            else:
                span = self._span(ids, runs, tilt)
            ids += [*runs[span[0]].ids[span[1] : span[2]].tolist(), encoder.id[END_RECALL]]
            spans.append(span)
            if forced is not None:
                break
        ids.append(encoder.id[END_THINK])
        return self._finish(passages, ids, runs, spans, abstains)

    def _finish(
        self,
        passages: Sequence[tuple[str, str]],
        ids: list[int],
        runs: list[Run],
        spans: list[tuple[int, int, int]],
        abstains: bool,
    ) -> Watched:
        encoder = self.encoder
        evidence = []
        for p, a, b in spans:
            cut = _chars(runs[p], a, b)
            evidence.append((p, cut.start, cut.stop))
        logits = self._logits(ids)
        margin = float(logits[encoder.id[START_RECALL]] - logits[encoder.abstain[0]])
        if margin < 0 and abstains:
            return Watched(tuple(evidence), "", margin)
        ids.append(encoder.id[START_RECALL])
        recalled = [piece_of(runs[p], a, b) for p, a, b in spans]
        tokens, tilt = merged(
            np.concatenate([r.ids[r.can_start] for r in recalled]),
            np.concatenate([np.ones(int(r.can_start.sum())) for r in recalled]),
        )
        p, a, b = self._span(ids, recalled, (tokens, tilt * 0))
        text = passages[spans[p][0]][1]
        return Watched(tuple(evidence), text[_chars(recalled[p], a, b)].strip(), margin)

    def _span(
        self, ids: list[int], runs: list[Run], tilt: tuple[np.ndarray, np.ndarray]
    ) -> tuple[int, int, int]:
        """Returns (run, first, end) of one copy."""
        tokens, added = tilt
        first = int(tokens[np.argmax(self._logits(ids)[tokens] + added)])
        copied = [first]
        close = self.encoder.id[END_RECALL]
        alive = [
            (n, int(i))
            for n, r in enumerate(runs)
            for i in np.flatnonzero(r.can_start & (r.ids == first))
        ]
        while True:
            last = len(copied) - 1
            following = {
                int(runs[n].ids[i + last + 1]) for n, i in alive if i + last + 1 < len(runs[n].ids)
            }
            ending = [(n, i) for n, i in alive if runs[n].can_end[i + last]]
            legal = sorted(following) + ([close] if ending else [])
            if not legal or len(copied) > 160:
                return (alive[0][0], alive[0][1], alive[0][1] + len(copied))
            chosen = legal[0]
            if len(legal) > 1:
                logits = self._logits([*ids, *copied])
                chosen = max(legal, key=lambda t: logits[t])
            if chosen == close:
                return (ending[0][0], ending[0][1], ending[0][1] + len(copied))
            copied.append(chosen)
            alive = [
                (n, i)
                for n, i in alive
                if i + last + 1 < len(runs[n].ids) and runs[n].ids[i + last + 1] == chosen
            ]


def _chars(run: Run, first: int, end: int) -> slice:
    return slice(int(run.starts[first]), int(run.ends[end - 1]))
