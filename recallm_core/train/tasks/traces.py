"""One trace: passages, a question, evidence, an answer; and the token rows a model learns from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from recallm_core.errors import TokenizerError
from recallm_core.evidence.sentence_scorer import sentence_prior

DOC, TEXT, QUESTION, EOS, PAD = "<|doc|>", "<|text|>", "<|q|>", "<|eos|>", "<|pad|>"
START_RECALL, END_RECALL, THINK, END_THINK = (
    "<|start_recall|>",
    "<|end_recall|>",
    "<think>",
    "</think>",
)
STRUCTURAL = (DOC, TEXT, QUESTION, EOS, PAD)
RECALL = (START_RECALL, END_RECALL, THINK, END_THINK)
ABSTAIN = "The documents don't say."
PRIOR_FLOOR = 0.02
_JOINS_LETTERS = "._'\u2019:\u00b7"
_JOINS_DIGITS = ".,:/'"

Ids = npt.NDArray[np.int64]
Masses = list[npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Example:
    """What one trace is made of.

    Attributes:
        passages: Pairs of title and text, as the prompt shows them.
        question: The question.
        evidence: (passage, start, end) of what is recalled while thinking, in order.
        answer: (passage, start, end) inside the last evidence; None: the documents don't say.
        task: Where it comes from, for the curves.
    """

    passages: tuple[tuple[str, str], ...]
    question: str
    evidence: tuple[tuple[int, int, int], ...]
    answer: tuple[int, int, int] | None
    task: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A step at which the constraint leaves a choice: only the support's tokens are legal.

    Attributes:
        position: Index of the token whose successor is chosen.
        target: Index of the right token within ``support``.
        support: Legal next tokens.
        tilt: What the decoder adds to their logits.
        weight: Share in the loss.
        kind: ``evidence``, ``answer`` for the first token of a span, ``inside`` for later ones.
    """

    position: int
    target: int
    support: Ids
    tilt: npt.NDArray[np.float32]
    weight: float
    kind: str


@dataclass(slots=True)
class EncodedTrace:
    """A trace as token ids with everything that the losses need.

    Attributes:
        ids: Prompt and output.
        prompt_length: Tokens of the prompt.
        plain: (position, target, weight) of ordinary next-token losses.
        choices: Constrained steps.
        copies: (query position, source position, weight) for the copying head.
        answers: The same for the head that points at the answer.
        retrievals: (query position, first, end) for the head that points at the evidence.
    """

    ids: Ids
    prompt_length: int
    task: str
    plain: list[tuple[int, int, float]] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    copies: list[tuple[int, int, float]] = field(default_factory=list)
    answers: list[tuple[int, int, float]] = field(default_factory=list)
    retrievals: list[tuple[int, int, int]] = field(default_factory=list)


def is_boundary(text: str, at: int) -> bool:
    """Says whether a word may start or end at offset ``at``; numbers like 7:30 are one word."""
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if before.isalnum() and after.isalnum():
        return False
    if before.isalnum() and at + 1 < len(text):
        return not _is_joined(before, after, text[at + 1])
    if after.isalnum() and at >= 2:
        return not _is_joined(text[at - 2], before, after)
    return True


def _is_joined(before: str, middle: str, after: str) -> bool:
    if before.isdigit() and after.isdigit():
        return middle in _JOINS_DIGITS
    return before.isalnum() and after.isalnum() and middle in _JOINS_LETTERS


@dataclass(frozen=True, slots=True)
class Run:
    """The tokens of one passage's text: where they are in the prompt, and in the text."""

    first: int
    ids: Ids
    starts: Ids
    ends: Ids
    can_start: npt.NDArray[np.bool_]
    can_end: npt.NDArray[np.bool_]

    def cut(self, start: int, end: int) -> tuple[int, int] | None:
        """Returns the token range of a character range, or None where tokens don't allow it."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.ends, end, side="left"))
        if last >= len(self.ids) or self.ends[last] != end or first > last:
            return None
        if not (self.can_start[first] and self.can_end[last]):
            return None
        return first, last + 1


def make_run(text: str, tokenizer: Tokenizer, first: int) -> Run:
    """Tokenises a passage's text once, and finds the word boundaries between its tokens."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    offsets = encoding.offsets
    starts = np.array([a for a, _ in offsets], dtype=np.int64)
    ends = np.array([b for _, b in offsets], dtype=np.int64)
    can_start, can_end = [], []
    for number, (a, b) in enumerate(offsets):
        whole = number + 1 == len(offsets) or offsets[number + 1][0] >= b
        shown = a
        while shown < b and text[shown].isspace():
            shown += 1
        fresh = number == 0 or offsets[number - 1][1] <= a
        blank = shown == b
        can_start.append(fresh and is_boundary(text, shown))
        can_end.append(whole and not blank and is_boundary(text, b))
    ids = np.array(encoding.ids, dtype=np.int64)
    return Run(first, ids, starts, ends, np.array(can_start, bool), np.array(can_end, bool))


class Encoder:
    """Turns examples into token rows, in the fixed format of the prompt.

    ``<|doc|>title<|text|>text`` for each passage, ``<|q|>question<think>``, then the evidence
    between recall markers, ``</think>``, and the answer between recall markers or the words of
    ``ABSTAIN``.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        names = (*STRUCTURAL, *RECALL)
        numbers = {name: tokenizer.token_to_id(name) for name in names}
        absent = [name for name, number in numbers.items() if number is None]
        if absent:
            raise TokenizerError(f"the tokenizer lacks {absent}; make it with train_tokenizer")
        self.id = {name: int(number) for name, number in numbers.items() if number is not None}
        self.abstain = self._plain(ABSTAIN)

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(
        self, example: Example, rng: random.Random, *, tilted: bool = True, limit: int = 4096
    ) -> EncodedTrace | None:
        """Returns the rows of one example; None where its spans don't fall on token ends."""
        ids, runs = self.prompt(example)
        if len(ids) > limit:
            return None
        spans = []
        for passage, start, end in example.evidence:
            cut = runs[passage].cut(start, end)
            if cut is None or cut[1] - cut[0] > 120:
                return None
            spans.append((passage, *cut))
        result = EncodedTrace(np.zeros(0, np.int64), len(ids), example.task)
        prior = self.masses(example, runs, tilted)
        out = list(ids)
        sources: list[int] = []
        for hop, span in enumerate(spans):
            if hop and tilted:
                done = [example.passages[p][1][a:b] for p, a, b in example.evidence[:hop]]
                prior = self.masses(example, runs, tilted, done)
            result.plain.append((len(out) - 1, self.id[START_RECALL], 1.0))
            out.append(self.id[START_RECALL])
            sources.append(len(out))
            self._evidence(result, out, runs, span, prior, rng)
        result.plain.append((len(out) - 1, self.id[END_THINK], 1.0))
        out.append(self.id[END_THINK])
        if not self._finish(result, out, runs, example, spans, sources):
            return None
        result.ids = np.array(out, dtype=np.int64)
        return result

    def prompt(self, example: Example) -> tuple[list[int], list[Run]]:
        """Returns the ids of the prompt and the run of each passage's text."""
        ids: list[int] = []
        runs = []
        for title, text in example.passages:
            ids += [self.id[DOC], *self._plain(title), self.id[TEXT]]
            runs.append(make_run(text, self.tokenizer, len(ids)))
            ids += runs[-1].ids.tolist()
        ids += [self.id[QUESTION], *self._plain(example.question), self.id[THINK]]
        return ids, runs

    def masses(
        self, example: Example, runs: Sequence[Run], tilted: bool, recalled: Sequence[str] = ()
    ) -> Masses:
        """Returns for each run the prior mass of a span that starts at each of its tokens."""
        masses = [run.can_start.astype(np.float64) for run in runs]
        if not tilted:
            return masses
        legal = sum(float(mass.sum()) for mass in masses)
        masses = [mass * PRIOR_FLOOR / max(legal, 1.0) for mass in masses]
        texts = [text for _, text in example.passages]
        titles = [title for title, _ in example.passages]
        prior = sentence_prior(example.question, texts, titles, recalled=recalled)
        for run, mass, row in zip(runs, masses, prior, strict=True):
            for start, _, log in row:
                at = int(np.searchsorted(run.ends, start, side="right"))
                if at < len(mass) and run.can_start[at]:
                    mass[at] += (1.0 - PRIOR_FLOOR) * np.exp(log)
        return masses

    def _evidence(
        self,
        result: EncodedTrace,
        out: list[int],
        runs: Sequence[Run],
        span: tuple[int, int, int],
        prior: Masses,
        rng: random.Random,
    ) -> None:
        passage, first, end = span
        run = runs[passage]
        begin = len(out)
        result.retrievals.append((begin - 1, run.first + first, run.first + end))
        copying = Copying(runs, prior)
        tokens, tilt = copying.choices(-1)
        target = int(np.searchsorted(tokens, run.ids[first]))
        result.choices.append(Choice(begin - 1, target, tokens, tilt, 1.0, "evidence"))
        out += run.ids[first:end].tolist()
        for at in range(end - first):
            here = begin - 1 + at
            result.copies.append((here, run.first + first + at, 1.0))
            if rng.random() < 0.35:
                result.plain.append((here, int(run.ids[first + at]), 0.5))
        out.append(self.id[END_RECALL])
        result.plain.append((len(out) - 2, self.id[END_RECALL], 0.3))
        self._inside(result, copying, run.ids[first:end], begin, 0.5)

    def _inside(
        self, result: EncodedTrace, copying: Copying, span: Ids, begin: int, weight: float
    ) -> None:
        """Adds the steps inside a span at which more than one token is legal."""
        copying.take(int(span[0]))
        for at in range(len(span)):
            target = int(span[at + 1]) if at + 1 < len(span) else self.id[END_RECALL]
            support, tilt = copying.choices(self.id[END_RECALL])
            if len(support) > 1:
                where = int(np.searchsorted(support, target))
                row = Choice(begin + at, where, support, tilt, weight, "inside")
                result.choices.append(row)
            if at + 1 < len(span):
                copying.take(target)

    def _finish(
        self,
        result: EncodedTrace,
        out: list[int],
        runs: Sequence[Run],
        example: Example,
        spans: Sequence[tuple[int, int, int]],
        sources: Sequence[int],
    ) -> bool:
        """Adds the answer; False where it isn't a legal piece of the last evidence."""
        if example.answer is None:
            for number, token in enumerate([*self.abstain, self.id[EOS]]):
                result.plain.append((len(out) - 1, token, 4.0 if number == 0 else 0.3))
                out.append(token)
            return True
        passage, first, end = spans[-1]
        cut = runs[passage].cut(example.answer[1], example.answer[2])
        if example.answer[0] != passage or cut is None or cut[0] < first or cut[1] > end:
            return False
        piece = runs[passage].ids[cut[0] : cut[1]]
        result.plain.append((len(out) - 1, self.id[START_RECALL], 4.0))
        out.append(self.id[START_RECALL])
        recalled = [piece_of(runs[p], a, b) for p, a, b in spans]
        source = sources[-1] + cut[0] - first
        begin = len(out)
        copying = Copying(recalled, [run.can_start.astype(np.float64) for run in recalled])
        tokens, tilt = copying.choices(-1)
        target = int(np.searchsorted(tokens, piece[0]))
        result.choices.append(Choice(begin - 1, target, tokens, tilt, 3.0, "answer"))
        result.answers.append((begin - 1, source, 1.0))
        for at, token in enumerate(piece.tolist()):
            result.plain.append((begin - 1 + at, token, 0.7))
            if at:
                result.copies.append((begin - 1 + at, source + at, 1.0))
        out += [*piece.tolist(), self.id[END_RECALL], self.id[EOS]]
        result.plain.append((len(out) - 3, self.id[END_RECALL], 0.5))
        result.plain.append((len(out) - 2, self.id[EOS], 0.5))
        self._inside(result, copying, piece, begin, 2.0)
        return True


def piece_of(run: Run, first: int, end: int) -> Run:
    """Returns a stretch of a run as a run."""
    cut = slice(first, end)
    return Run(
        run.first + first,
        run.ids[cut],
        run.starts[cut],
        run.ends[cut],
        run.can_start[cut],
        run.can_end[cut],
    )


class Copying:
    """The copies still alive inside a span, and what may come next."""

    def __init__(self, runs: Sequence[Run], masses: Masses) -> None:
        self.runs = runs
        self.alive = [np.flatnonzero(run.can_start) for run in runs]  # next token of each copy
        self.mass = [mass[at] for mass, at in zip(masses, self.alive, strict=True)]
        self.started = False

    def choices(self, close: int) -> tuple[Ids, npt.NDArray[np.float32]]:
        """Returns the legal tokens, sorted, and the log of the prior share of each.

        Closing has no share: its tilt is 0. So is every tilt where only one token can be copied.
        """
        pairs = [
            (run.ids[at[at < len(run.ids)]], mass[at < len(run.ids)])
            for run, at, mass in zip(self.runs, self.alive, self.mass, strict=True)
        ]
        tokens, total = _sum(
            np.concatenate([ids for ids, _ in pairs]), np.concatenate([m for _, m in pairs])
        )
        tilt = np.log(np.maximum(total, 1e-12) / max(float(total.sum()), 1e-12))
        if self.closable():
            tokens, tilt = np.append(tokens, close), np.append(tilt, 0.0)
            order = np.argsort(tokens)
            tokens, tilt = tokens[order], tilt[order]
        return tokens, tilt.astype(np.float32)

    def closable(self) -> bool:
        """Says whether a copy may end before the next token."""
        pairs = zip(self.runs, self.alive, strict=True)
        return self.started and any(bool(run.can_end[at - 1].any()) for run, at in pairs)

    def take(self, token: int) -> None:
        """Moves on by one token."""
        self.started = True
        for number, run in enumerate(self.runs):
            at = self.alive[number]
            keep = at < len(run.ids)
            keep[keep] = run.ids[at[keep]] == token
            self.alive[number] = at[keep] + 1
            self.mass[number] = self.mass[number][keep]


def _sum(tokens: Ids, values: npt.NDArray[np.float64]) -> tuple[Ids, npt.NDArray[np.float64]]:
    """Returns the distinct tokens and the sums of their values."""
    distinct, inverse = np.unique(tokens, return_inverse=True)
    sums = np.bincount(inverse, weights=values, minlength=len(distinct))
    return distinct, sums.astype(np.float64)
