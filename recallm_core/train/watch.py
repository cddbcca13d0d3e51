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
    Copying,
    Encoder,
    Example,
    Masses,
    Run,
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
            tilt = encoder.masses(example, runs, prior, done)
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
        even = [run.can_start.astype(np.float64) for run in recalled]
        p, a, b = self._span(ids, recalled, even)
        text = passages[spans[p][0]][1]
        return Watched(tuple(evidence), text[_chars(recalled[p], a, b)].strip(), margin)

    def _span(self, ids: list[int], runs: list[Run], masses: Masses) -> tuple[int, int, int]:
        """Returns (run, first, end) of one copy."""
        copied: list[int] = []
        close = self.encoder.id[END_RECALL]
        copying = Copying(runs, masses)
        while True:
            legal, tilt = copying.choices(close)
            best = 0
            if len(legal) > 1:
                best = int(np.argmax(self._logits([*ids, *copied])[legal] + tilt))
            if not len(legal) or legal[best] == close or len(copied) > 160:
                break
            copied.append(int(legal[best]))
            copying.take(copied[-1])
        for number, (run, at) in enumerate(zip(runs, copying.alive, strict=True)):
            ending = at[run.can_end[at - 1]]
            if len(ending):
                return number, int(ending[0]) - len(copied), int(ending[0])
        number = next(n for n, at in enumerate(copying.alive) if len(at))
        end = int(copying.alive[number][0])
        return number, end - len(copied), end


def _chars(run: Run, first: int, end: int) -> slice:
    return slice(int(run.starts[first]), int(run.ends[end - 1]))
