"""A prior over where a span may start: lexical scores of the sentences of the passages."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from recallm_core.lexical import BM25, sentences, terms

_HEADING = re.compile(r"#{1,6}\s|[^.!?|]{1,60}:?$")
_BARE_HEADING = re.compile(r"\s*#{1,6}\s")
CONTEXT_WEIGHT = 0.4
TEMPERATURE = 1.0

ScoredSpan = tuple[int, int, float]


def sentence_prior(
    question: str,
    texts: Sequence[str],
    titles: Sequence[str | None] | None = None,
    *,
    recalled: Sequence[str] = (),
    temperature: float = TEMPERATURE,
) -> list[list[ScoredSpan]]:
    """Returns, for each text, its sentences with the log probability that one holds the evidence.

    A sentence is scored by BM25 against the question; words found only in its passage's title or
    in the heading above it count for less. The probabilities of all sentences of all texts sum to
    1; without any word in common they are equal. The scores tilt a choice, they never forbid one.

    Args:
        question: What is asked.
        texts: The passages.
        titles: The passages' titles, if they have any.
        recalled: Evidence recalled so far: its words count as part of the question for the next
            hop, and a sentence that equals one of these is put last.
        temperature: Larger is flatter; must be above 0.

    Raises:
        ValueError: ``titles`` and ``texts`` differ in number, or ``temperature`` isn't above 0.
    """
    if titles is not None and len(titles) != len(texts):
        raise ValueError(f"{len(texts):,} texts need as many titles, got {len(titles):,}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    spans = [sentences(text) for text in texts]
    own: list[list[str]] = []
    context: list[list[str]] = []
    for number, text in enumerate(texts):
        title = (titles[number] if titles is not None else None) or ""
        _collect(text, spans[number], terms(title), own, context)
    scores = _scores(terms(question), [terms(text) for text in recalled], own, context)
    seen = {text.strip() for text in recalled}
    flat = [texts[n][a:b] in seen for n, found in enumerate(spans) for a, b in found]
    scores[np.array(flat, dtype=bool)] -= 10.0
    return _as_spans(spans, _log_softmax(scores / temperature))


def _collect(
    text: str,
    spans: list[tuple[int, int]],
    title: list[str],
    own: list[list[str]],
    context: list[list[str]],
) -> None:
    """Adds the terms of each sentence, and those of the title and heading above it."""
    heading: list[str] = []
    for start, end in spans:
        sentence = text[start:end]
        found = terms(sentence)
        is_heading = bool(_BARE_HEADING.match(sentence))
        own.append([] if is_heading else found)
        if is_heading or (end - start <= 60 and _HEADING.fullmatch(sentence)):
            heading = found
        context.append([*title, *heading])


def _scores(
    query: list[str], hops: list[list[str]], own: list[list[str]], context: list[list[str]]
) -> np.ndarray:
    """Scores sentences: own words in full, words of title or heading for less."""
    index = BM25(own)
    total = index.scores(query)
    for number, found in enumerate(context):
        missing = (set(query) & set(found)) - set(own[number])
        total[number] += CONTEXT_WEIGHT * sum(index.idf(term) for term in sorted(missing))
    for hop in hops:
        fresh = [term for term in hop if term not in query]
        total += 0.5 * index.scores(fresh)
    return total


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    if not len(scores):
        return scores
    shifted = scores - scores.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _as_spans(spans: list[list[tuple[int, int]]], logs: np.ndarray) -> list[list[ScoredSpan]]:
    result: list[list[ScoredSpan]] = []
    at = 0
    for found in spans:
        row = zip(found, logs[at : at + len(found)].tolist(), strict=True)
        result.append([(a, b, log) for (a, b), log in row])
        at += len(found)
    return result
