"""Training examples made of plain text alone: any folder of passages teaches where words stand."""

from __future__ import annotations

import random
from collections.abc import Sequence

from recallm_core.text.lexical import sentences
from recallm_core.train.tasks.cloze import make_cloze
from recallm_core.train.tasks.facts import lead
from recallm_core.train.tasks.training_example import Quote, TrainingExample

Passage = tuple[str, str]
_WORDS = 5  # in a row that tell one sentence from all others
_LONGEST = 420  # characters of a sentence that is quoted whole
_ASK_REST = (
    'Which sentence begins with "{w}"?',
    'Quote the sentence that starts "{w}".',
    'How does the sentence that begins "{w}" go on?',
)
_ASK_NEXT = ('What comes right after "{w}"?', 'Quote the sentence that follows "{w}".')


def cloze(
    rng: random.Random, passages: Sequence[Passage], *, size: int = 2000
) -> TrainingExample | None:
    """Returns a rough question made of one sentence by cutting its answer out."""
    sample = _sample(rng, passages, size)
    number = rng.randrange(len(sample))
    text = sample[number][1]
    units = sentences(text)
    if not units:
        return None
    a, b = rng.choice(units)
    question = make_cloze(text[a:b], rng)
    if question is None:
        return None
    at = Quote(number, a + question.start, a + question.end)
    answer = text[at.start : at.end]
    thinking = (
        lead(rng, "goal", q=question.question),
        lead(rng, "find"),
        Quote(number, a, b),
        "\n",
        lead(rng, "end", a=answer),
    )
    return TrainingExample(sample, question.question, thinking, answer, "cloze", at)


def sentence_with(
    rng: random.Random, passages: Sequence[Passage], *, size: int = 2000
) -> TrainingExample | None:
    """Returns the task to quote the sentence that begins with some words."""
    sample = _sample(rng, passages, size)
    place = _distinctive(rng, sample)
    if place is None:
        return None
    quote, words, _ = place
    return _quote(rng, sample, rng.choice(_ASK_REST).replace("{w}", words), (quote,), "sentence")


def next_sentence(
    rng: random.Random, passages: Sequence[Passage], *, size: int = 2000
) -> TrainingExample | None:
    """Returns the task to find a sentence by its first words and quote the one after it."""
    sample = _sample(rng, passages, size)
    place = _distinctive(rng, sample)
    if place is None:
        return None
    quote, words, after = place
    if after is None:
        return None
    question = rng.choice(_ASK_NEXT).replace("{w}", words)
    return _quote(rng, sample, question, (quote, after), "next_sentence")


def _quote(
    rng: random.Random,
    sample: tuple[Passage, ...],
    question: str,
    quotes: tuple[Quote, ...],
    task: str,
) -> TrainingExample:
    last = quotes[-1]
    answer = sample[last.passage][1][last.start : last.end]
    parts: list[str | Quote] = [lead(rng, "find"), quotes[0], "\n"]
    for quote in quotes[1:]:
        parts += ["After it stands:", quote, "\n"]
    return TrainingExample(sample, question, tuple(parts), answer, task, last)


def _sample(rng: random.Random, passages: Sequence[Passage], size: int) -> tuple[Passage, ...]:
    """Returns different passages of about ``size`` characters together."""
    sample: dict[Passage, None] = {}
    for _ in range(2 * len(passages)):
        title, text = rng.choice(passages)
        sample[title, text[: max(size, 400)]] = None
        size -= len(text)
        if size < 200:
            break
    return tuple(sample)


def _distinctive(
    rng: random.Random, sample: tuple[Passage, ...]
) -> tuple[Quote, str, Quote | None] | None:
    """Returns a sentence whose first words stand nowhere else, those words, and what follows it."""
    number = rng.randrange(len(sample))
    text = sample[number][1]
    units = sentences(text)
    everything = "\n".join(t for _, t in sample)
    for index in rng.sample(range(len(units)), len(units)):
        a, b = units[index]
        words = " ".join(text[a:b].split(" ")[:_WORDS])
        if not 40 <= b - a <= _LONGEST or "\n" in words or everything.count(words) != 1:
            continue
        following = units[index + 1] if index + 1 < len(units) else None
        after = None
        if following is not None and 15 <= following[1] - following[0] <= _LONGEST:
            after = Quote(number, *following)
        return Quote(number, a, b), words, after
    return None
