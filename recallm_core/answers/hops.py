"""Which recalled evidence led to evidence that is cited: the hops of a chain.

Models recall more than they use. A span that shares no words with the answer is cited all the same
where a chain of content words goes from the question through it to the answer:

- It *begins at the question*: it, or its passage's title, holds a content word of the question; or
  a span before it that does leads to it.
- It *leads to* a later span that is cited: what it says is taken up there. They share a name or a
  number, or two other content words, that the question doesn't hold already (the bridge); the
  later span's title counts too, for "He was born in Ohio" says its name nowhere else.
- Or it *stands beside* the chain: the question names it ("Which is older, A or B?"), and no span
  that is cited holds that name. Of several such spans, the one that shares most with the question.

Spans that do neither stay in the trace alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recallm_core.answers.trace import RecallSpan
from recallm_core.documents.document import Passage
from recallm_core.text.lexical import sentences, terms

AnswerRange = tuple[int | None, int | None]

_WORD = re.compile(r"[^\W_]+(?:['\u2019.,:/][^\W_]+)*")
_BRIDGE = 2  # plain words that two spans must share; one name or number is enough


@dataclass(frozen=True, slots=True)
class _Hop:
    """What a span says: its content words, those of its title, its names and numbers."""

    words: frozenset[str]
    title: frozenset[str]
    names: frozenset[str]

    @property
    def all_words(self) -> frozenset[str]:
        return self.words | self.title


def hops(
    spans: Sequence[RecallSpan],
    cited: Mapping[int, AnswerRange],
    question: str,
    passages: Sequence[Passage],
) -> dict[int, AnswerRange]:
    """Returns the spans, by number, that led to those cited, each with what it supports.

    Args:
        spans: What was recalled, in order.
        cited: The numbers of those that are cited for their own words, with the ranges of the
            answer that they support.
        question: What was asked.
        passages: What the spans were recalled from.

    Returns:
        For a hop, the range that the span it led to supports; for one beside the chain, the whole
        answer.
    """
    question_words = frozenset(terms(question))
    if not question_words or not cited:
        return {}
    links = [_hop(span, passages[span.passage].title) for span in spans]
    begun = _begun(links, question_words)
    supported: dict[int, AnswerRange] = {}
    for number in range(max(cited) - 1, -1, -1):
        if number in cited or not begun[number]:
            continue
        for later in range(number + 1, len(spans)):
            reached = supported.get(later) or cited.get(later)
            if reached is not None and _leads(links[number], links[later], question_words):
                supported[number] = reached
                break
    return supported | _of_missing_names(links, {*cited, *supported}, question, question_words)


def _begun(links: Sequence[_Hop], question_words: frozenset[str]) -> list[bool]:
    """Which spans a chain reaches from the question."""
    begun: list[bool] = []
    for number, hop in enumerate(links):
        before = (links[k] for k in range(number) if begun[k])
        begun.append(
            bool(hop.all_words & question_words)
            or any(_leads(k, hop, question_words) for k in before)
        )
    return begun


def _leads(one: _Hop, other: _Hop, question_words: frozenset[str]) -> bool:
    """Whether a later span takes up what one says."""
    bridge = (one.words & other.all_words) - question_words
    return len(bridge) >= _BRIDGE or bool(bridge & (one.names | other.names))


def _of_missing_names(
    links: Sequence[_Hop], cited: set[int], question: str, question_words: frozenset[str]
) -> dict[int, AnswerRange]:
    """Spans that hold what the question names and nothing cited holds, for the whole answer."""
    missing = names(question) - frozenset().union(*(links[number].all_words for number in cited))
    supported: dict[int, AnswerRange] = {}
    for name in sorted(missing):
        holding = [n for n, hop in enumerate(links) if name in hop.all_words and n not in cited]
        if holding and not any(name in links[n].all_words for n in supported):
            supported[max(holding, key=lambda n: (len(links[n].all_words & question_words), n))] = (
                None,
                None,
            )
    return supported


def _hop(span: RecallSpan, title: str | None) -> _Hop:
    label = title or ""
    return _Hop(
        words=frozenset(terms(span.text)),
        title=frozenset(terms(label)),
        names=names(span.text) | frozenset(terms(label)),
    )


def names(text: str) -> frozenset[str]:
    """Returns the content words of ``text`` that look like names or numbers.

    Words with a capital or a digit; a capital at a sentence's start counts only before another.
    """
    likely: set[str] = set()
    for start, end in sentences(text):
        words = _WORD.findall(text, start, end)
        for number, word in enumerate(words):
            following = words[number + 1 : number + 2]
            begins = number == 0 and not (following and following[0][0].isupper())
            if any(map(str.isdigit, word)) or (word[0].isupper() and not begins):
                likely.update(terms(word))
    return frozenset(likely)
