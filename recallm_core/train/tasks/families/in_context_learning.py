"""In-context learning: utterances with their labels, and one more to label."""

from __future__ import annotations

import functools
import random

from recallm_core.train.tasks.families.problem import Draw, Family, Gold, Key, Problem, Scoring
from recallm_core.train.tasks.families.sources import Sources, plain_words
from recallm_core.train.tasks.training_example import Quote

_LAYOUTS = (
    "{text}\nlabel: {label}\n\n",
    "Text: {text}\nlabel: {label}\n",
    "- {text} (label: {label})\n",
    "label: {label} | {text}\n",
)
_SCORING = Scoring("top", 0.95, top=2, free_spans=2, least_characters=7)
_DEMONSTRATION = 75  # characters, about
_MOST_LABELS = 40


def _classify(name: str, rng: random.Random, sources: Sources, size: int) -> Problem | None:
    by_label = _by_label(name, sources, rng)
    count = max(2, min(_MOST_LABELS, size // (2 * _DEMONSTRATION)))
    labels = rng.sample(sorted(by_label), min(count, len(by_label)))
    shown = _shown_labels(rng, labels)
    target = rng.choice(labels)
    shots = max(2, size // (_DEMONSTRATION * len(labels)))
    text, *rest = rng.sample(by_label[target], min(shots + 1, len(by_label[target])))
    demonstrations = [
        (t, label)
        for label in labels
        if label != target
        for t in rng.sample(by_label[label], min(shots, len(by_label[label])))
    ]
    demonstrations += [(t, target) for t in rest]
    rng.shuffle(demonstrations)
    passage, golds = _laid_out(demonstrations, shown, target, rng.choice(_LAYOUTS))
    question = f"{text}\n\nWhich label does this text get? Answer with the label alone."
    key = Key("label", ((shown[target],),))
    passages = (("Examples", passage),)
    return Problem("in_context_learning", name, passages, question, key, golds, _SCORING)


def _by_label(name: str, sources: Sources, rng: random.Random) -> dict[str, list[str]]:
    by_label: dict[str, list[str]] = {}
    for row in sources.rows(name):
        if plain_words(row["text"]) not in sources.check.questions:
            by_label.setdefault(row["label"], []).append(" ".join(row["text"].split()))
    return {label: texts for label, texts in by_label.items() if len(texts) > 2}


def _shown_labels(rng: random.Random, labels: list[str]) -> dict[str, str]:
    """The labels' own names, or numbers that say nothing."""
    if rng.random() < 0.5:
        return {label: label for label in labels}
    numbers = rng.sample(range(len(labels)), len(labels))
    return {label: str(n) for label, n in zip(labels, numbers, strict=True)}


def _laid_out(
    demonstrations: list[tuple[str, str]], shown: dict[str, str], target: str, layout: str
) -> tuple[str, tuple[Gold, ...]]:
    text, golds = "", []
    for utterance, label in demonstrations:
        mark = f"label: {shown[label]}"
        entry = layout.replace("label: {label}", "\0").replace("{text}", utterance)
        start, at = len(text), len(text) + entry.index("\0")
        text += entry.replace("\0", mark)
        if label == target:
            end = start + len(text[start:].rstrip())
            golds.append(Gold(Quote(0, start, end), Quote(0, at, at + len(mark))))
    return text, tuple(golds)


def _draw(name: str) -> Draw:
    return functools.partial(_classify, name)


_CHECKED = ("nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev")

FAMILY = Family(
    name="in_context_learning",
    what="labelled utterances, and one more to label",
    kinds=(("banking77", 0.5, _draw("banking77")), ("clinc150", 0.5, _draw("clinc150"))),
    needs=(("banking77", ("banking77", *_CHECKED)), ("clinc150", ("clinc150", *_CHECKED))),
    stand_in="CLINC150 where the paper takes MASSIVE",
)
