"""A prior over where a span may start: scores of sentences, by their words and meaning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from recallm_core.retrieval.embedding import Embedder
from recallm_core.text.lexical import BM25, terms, units

_HEADING = re.compile(r"#{1,6}\s|[^.!?|]{1,60}:?$")
_BARE_HEADING = re.compile(r"\s*#{1,6}\s")
CONTEXT_WEIGHT = 0.4
TEMPERATURE = 1.0
MEANING_WEIGHT = 4.0  # points of BM25 for the same meaning, cosine 1
FULL_SUPPORT = 2.0  # points of ``support`` where all words and the meaning are shared

ScoredSpan = tuple[int, int, float]


def sentence_prior(
    question: str,
    texts: Sequence[str],
    titles: Sequence[str | None] | None = None,
    *,
    recalled: Sequence[str] = (),
    temperature: float = TEMPERATURE,
    embedder: Embedder | None = None,
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
        embedder: Adds how near a sentence's meaning is to the question's; None: words alone.

    Raises:
        ValueError: ``titles`` and ``texts`` differ in number, or ``temperature`` isn't above 0.
    """
    scorer = SentenceScorer(texts, titles, embedder)
    logs = scorer.scores(question, recalled, temperature=temperature)
    return _as_spans(scorer.spans, logs)


class SentenceScorer:
    """The sentences of some texts, taken apart once to be scored for many questions.

    Args:
        texts: The passages.
        titles: Their titles, if they have any.
        embedder: Adds nearness of meaning to the scores; None: words alone.

    Attributes:
        spans: Character ranges of each text's sentences.
        begins: For each text, the number of its first sentence, all texts counted through, and
            where the words of its sentences begin, after marks of its layout.

    Raises:
        ValueError: ``titles`` and ``texts`` differ in number.
    """

    def __init__(
        self,
        texts: Sequence[str],
        titles: Sequence[str | None] | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        if titles is not None and len(titles) != len(texts):
            raise ValueError(f"{len(texts):,} texts need as many titles, got {len(titles):,}")
        apart = [units(text) for text in texts]
        self.spans = [unit.spans for unit in apart]
        self.begins: list[tuple[int, np.ndarray]] = []
        words: list[list[str]] = []
        context: list[list[str]] = []
        for number, unit in enumerate(apart):
            self.begins.append((len(words), np.array(unit.begins, dtype=np.int64)))
            title = (titles[number] if titles is not None else None) or ""
            _collect(unit.text, unit.spans, terms(title), words, context)
        self._texts = texts
        self._plain = [unit.text for unit in apart]
        self._index = BM25(words)
        self._embedder = embedder
        self._worded = np.array(
            [bool(sentence_words) for sentence_words in words], dtype=np.float64
        )
        self._around: dict[str, list[int]] = {}
        for row, sentence_words in enumerate(context):
            for term in set(sentence_words).difference(words[row]) if sentence_words else ():
                self._around.setdefault(term, []).append(row)

    @cached_property
    def _meanings(self) -> np.ndarray:
        """A unit vector for each sentence; 0 for headings and lines without words."""
        assert self._embedder is not None
        flat = [
            text[a:b] for text, spans in zip(self._plain, self.spans, strict=True) for a, b in spans
        ]
        vectors = np.asarray(self._embedder.encode_documents(flat), dtype=np.float64)
        return np.asarray(vectors * self._worded[:, None])

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """The numbers of the sentences that read so."""
        rows: dict[str, list[int]] = {}
        for text, spans, (first, begins) in zip(self._texts, self.spans, self.begins, strict=True):
            for row, ((_, end), begin) in enumerate(zip(spans, begins, strict=True), first):
                rows.setdefault(text[begin:end], []).append(row)
        return rows

    def scores(
        self, question: str, recalled: Sequence[str] = (), *, temperature: float = TEMPERATURE
    ) -> np.ndarray:
        """Returns a log probability for each sentence of all texts; see ``sentence_prior``.

        Raises:
            ValueError: ``temperature`` isn't above 0.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        return log_softmax(self.totals(question, recalled) / temperature)

    def shares(self, question: str) -> np.ndarray:
        """Returns the probability of each sentence to be the evidence; they sum to 1."""
        return np.asarray(np.exp(self.scores(question)))

    def totals(self, question: str, recalled: Sequence[str] = ()) -> np.ndarray:
        """Returns a score for each sentence, in points of BM25."""
        query = terms(question)
        total = self._index.scores(query)
        nearby = np.zeros(len(total))
        for term in sorted(set(query).intersection(self._around)):
            nearby[self._around[term]] += self._index.idf(term)
        total += CONTEXT_WEIGHT * nearby
        if self._embedder is not None and len(total):
            nearness = self._meanings @ np.asarray(self._embedder.encode_query(question))
            total += MEANING_WEIGHT * nearness
        for text in recalled:
            fresh = [term for term in terms(text) if term not in query]
            total += 0.5 * self._index.scores(fresh)
        for text in {text.strip() for text in recalled}:
            total[self._rows.get(text, [])] -= 10.0
        return total


def _collect(
    text: str,
    spans: list[tuple[int, int]],
    title: list[str],
    words: list[list[str]],
    context: list[list[str]],
) -> None:
    """Adds the terms of each sentence, and those of the title and heading above it."""
    heading: list[str] = []
    for start, end in spans:
        sentence = text[start:end]
        sentence_words = terms(sentence)
        is_heading = bool(_BARE_HEADING.match(sentence))
        words.append([] if is_heading else sentence_words)
        if is_heading or (end - start <= 60 and _HEADING.fullmatch(sentence)):
            heading = sentence_words
        context.append([*title, *heading])


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Returns the scores less the logarithm of their exponentials' sum."""
    if not len(scores):
        return scores
    shifted = scores - scores.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _as_spans(spans: list[list[tuple[int, int]]], logs: np.ndarray) -> list[list[ScoredSpan]]:
    result: list[list[ScoredSpan]] = []
    at = 0
    for sentences in spans:
        row = zip(sentences, logs[at : at + len(sentences)].tolist(), strict=True)
        result.append([(a, b, log) for (a, b), log in row])
        at += len(sentences)
    return result


def support(
    question: str, evidence: Sequence[str], title: str | None = None, *, embedder: Embedder
) -> float:
    """Returns how well recalled evidence fits a question, from about 0 to 2.

    The share of the question's content words that the evidence or its document's title holds,
    plus how near the meaning of the nearest piece of evidence is (cosine). Unrelated pages score
    below 0.4, questions in the words of their page above 1; paraphrases lie between.
    """
    words = dict.fromkeys(terms(question))
    if not words or not evidence:
        return 0.0
    known = set(terms(title or "")).union(*(terms(text) for text in evidence))
    shared = sum(word in known for word in words) / len(words)
    vectors = np.asarray(embedder.encode_documents(list(evidence)))
    return float(shared + max(vectors @ np.asarray(embedder.encode_query(question))))
