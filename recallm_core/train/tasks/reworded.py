"""Questions in other words and about other things, so that a reader doesn't only match words."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from recallm_core.retrieval.embedding import default_embedder
from recallm_core.text.lexical import terms
from recallm_core.train.tasks.datasets import Fact

_PLAIN = re.compile(r"(?<![\w'-])[a-z]{4,}(?![\w'-])")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*")
_QUESTION_WORDS = frozenset(("what", "when", "where", "which", "whom", "whose", "does", "many"))
_SMALL = frozenset(
    "a|an|the|of|in|on|at|to|for|by|did|does|do|is|was|were|are|has|have".split("|")  # noqa: SIM905
)
_MOST_WORDS = 9000
_LIKE = 0.55  # below this cosine, neighbours are as often opposites as synonyms
_MOST_LIKE = 4
_TRIES = 20


class Thesaurus:
    """Common words, and others that mean much the same by the shipped embedder.

    Args:
        texts: What the words are taken from.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(set(_PLAIN.findall(text)))
        words = [word for word, _ in counts.most_common(_MOST_WORDS) if terms(word)]
        self._like: dict[str, list[str]] = {}
        if not words:
            return
        vectors = np.asarray(default_embedder().encode_documents(words), dtype=np.float32)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        for low in range(0, len(words), 1000):
            likeness = vectors[low : low + 1000] @ vectors.T
            for word, row in zip(words[low : low + 1000], likeness, strict=True):
                near = np.flatnonzero(row >= _LIKE)
                near = near[np.argsort(-row[near], kind="stable")]
                others = [words[n] for n in near if _differ(words[n], word)]
                if others:
                    self._like[word] = others[:_MOST_LIKE]

    def like(self, word: str) -> Sequence[str]:
        """Returns words that mean much the same, the likest first; none if it isn't known."""
        return self._like.get(word, ())

    def reword(self, question: str, rng: random.Random) -> str:
        """Returns the question with about half of its plain words in others that mean the same."""

        def other(match: re.Match[str]) -> str:
            known = self.like(match.group())
            is_kept = match.group() in _QUESTION_WORDS or not known or rng.random() < 0.5
            return match.group() if is_kept else rng.choice(known)

        return _PLAIN.sub(other, question)


def shorten(question: str, rng: random.Random) -> str:
    """Returns a question without about half of its small words, as in a search box.

    Args:
        question: In whole words.
        rng: The choices follow from it.
    """
    words = question.split()
    shorter = [word for word in words if word.lower() not in _SMALL or rng.random() < 0.5]
    return " ".join(shorter if len(shorter) > 2 else words)


def _differ(one: str, other: str) -> bool:
    """Whether two words are more than forms of one."""
    return terms(one) != terms(other) and one not in other and other not in one


def names_in(texts: Iterable[str]) -> list[str]:
    """Returns the names in some texts, as far as capitals within a sentence tell."""
    return sorted({name for text in texts for name in _NAME.findall(text)})


def rename(fact: Fact, names: Sequence[str], rng: random.Random) -> Fact | None:
    """Asks the same of another thing: a name of the question gives way to one from elsewhere.

    Its passage then answers nearly, but doesn't answer. None where the question names nothing that
    stands in its passage.

    Args:
        fact: An answerable question; those typed in small letters, too.
        names: What may take a name's place.
        rng: The choices follow from it.
    """
    known = f"{fact.title}. {fact.text}"
    replaceable = {name for name in names_in([known]) if name != fact.answer}
    places = [
        match.span()
        for name in replaceable
        if (match := re.search(rf"\b{re.escape(name)}\b", fact.question, re.IGNORECASE))
    ]
    if not places:
        return None
    start, end = rng.choice(sorted(places))
    old = fact.question[start:end]
    for _ in range(_TRIES):
        name = rng.choice(names)
        if name.casefold() not in known.casefold() and name.count(" ") == old.count(" "):
            name = name.lower() if old.islower() else name
            question = fact.question[:start] + name + fact.question[end:]
            return replace(fact, question=question, answer="", start=-1)
    return None
