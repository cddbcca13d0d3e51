"""Whether an answer is one: what the model said, what it showed, and how well that fits.

An abstention is a verdict that nobody can take for an answer: its text is the recipe's phrase, it
has no citations, what would have been cited is ``answer.nearest``, and what the model wrote is in
the trace. Two things are left as they are: JSON that a schema asked for, so that it parses (the
verdict is in ``abstained``, and there are no citations), and answers that call tools. Where nothing
was given to answer from but the conversation (``scope="prompt"`` without documents), evidence isn't
owed; there, only a model that says so abstains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from recallm_core.answers.anchoring import latest_first
from recallm_core.answers.answer import Citation
from recallm_core.answers.attribution import cite, in_order, placed_by, resolve
from recallm_core.answers.matching import Matcher, Spot
from recallm_core.answers.trace import AnswerText, RecallSpan, Segment, Trace
from recallm_core.documents.document import Document, Location
from recallm_core.evidence.protocol import AnswerJudge, Recall
from recallm_core.evidence.registry import least_fit
from recallm_core.prompting.prompt import MESSAGE, Prompt
from recallm_core.text.lexical import terms


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer comes to.

    Attributes:
        text: What it says: the model's words, or the phrase of abstention.
        citations: What supports it.
        abstained: Whether the documents hold no answer, as the model said or showed.
        nearest: Of an abstention: what would have been cited, else what was recalled.
        support: How probable it is that the answer is right, where that can be said of a quoted
            answer; else ``evidence_support``.
    """

    text: str
    citations: tuple[Citation, ...]
    abstained: bool
    nearest: tuple[Citation, ...]
    support: float | None


class Judge:
    """Decides one output: what supports its answer, and whether it is one.

    Args:
        prompt: What was asked.
        documents: The texts by id, that quotes are resolved in.
    """

    def __init__(self, prompt: Prompt, documents: Mapping[str, Document]) -> None:
        self._prompt = prompt
        self._documents = documents
        self._fit: list[float | None] = []
        self._matcher: Matcher | None = None
        grammar = prompt.spec.grammar
        self._json = grammar is not None and grammar.answer is not None

    @property
    def replaces(self) -> bool:
        """Whether an abstention's text is the phrase; JSON stays what the schema asked for."""
        return not self._json

    @property
    def needs_support(self) -> bool:
        """Whether an answer without evidence is none."""
        owed = self._prompt.params.recall_in != "none" and not _is_plain_chat(self._prompt)
        return owed and self._prompt.params.abstain_policy != "said"

    def says_nothing(self, trace: Trace) -> bool:
        """Whether the model says so, in its own words."""
        return says_nothing(trace, self._prompt.recipe.abstain)

    def may_say_nothing(self, words: str) -> bool:
        """Whether an answer that begins so has said that there is none, or is about to."""
        if self._prompt.params.abstain_policy == "unsupported" and not self.needs_support:
            return False
        begun = _comparable_form(words)
        phrases = [_comparable_form(phrase) for phrase in self._prompt.recipe.abstain]
        return any(phrase and (phrase.startswith(begun) or phrase in begun) for phrase in phrases)

    def fits(self, trace: Trace) -> bool:
        """Whether what was recalled before the answer fits the question as the recipe asks."""
        prompt, fit = self._prompt, self._support(trace)
        threshold = least_fit(prompt.params.prior, prompt.recipe)
        return not self.needs_support or not threshold or fit is None or fit >= threshold

    def supports(self, text: str) -> bool:
        """Whether the documents hold what stands in ``text``, that no quote supports."""
        return bool(self._match_sentences(text, ()))

    def verdict(self, trace: Trace, *, calls: bool) -> Verdict:
        """Returns what a complete output comes to.

        Args:
            trace: The output.
            calls: Whether it calls tools.

        Raises:
            CitationError: A quote isn't the slice of its document that it claims to be.
        """
        prompt = self._prompt
        states_none, support = self.says_nothing(trace), self._confidence(trace)
        citations = self._supporting_quotes(trace, states_none=states_none)
        none = not calls and self._abstains(trace, citations, states_none=states_none)
        if not none:
            return Verdict(trace.answer, citations, none, (), support)
        text = prompt.recipe.abstain[0] if self.replaces else trace.answer
        return Verdict(text, (), none, self._nearest(trace, citations), support)

    def _supporting_quotes(self, trace: Trace, *, states_none: bool) -> tuple[Citation, ...]:
        """The quotes that support the answer; what is matched; the last quote where neither is."""
        citations = self._resolve_quotes(trace, fallback=False)
        if not (states_none or self._json):
            matched = self._match_sentences(trace.answer, citations, self._recalled(trace))
            citations = in_order(placed_by(citations, matched), trace.answer)
        return citations or self._resolve_quotes(trace, fallback=not states_none)

    def _resolve_quotes(self, trace: Trace, *, fallback: bool) -> tuple[Citation, ...]:
        prompt = self._prompt
        return resolve(
            trace,
            prompt.passages,
            self._documents,
            question=prompt.question,
            fallback=fallback,
        )

    def _abstains(self, trace: Trace, citations: Sequence[Citation], *, states_none: bool) -> bool:
        if not trace.answer:
            return True
        policy = self._prompt.params.abstain_policy
        unsupported = self.needs_support and not (citations and self.fits(trace))
        return unsupported or (states_none and policy != "unsupported")

    def _support(self, trace: Trace) -> float | None:
        """``evidence_support``, measured once: what it looks at is over when the answer begins."""
        if not self._fit:
            self._fit.append(evidence_support(self._prompt, trace))
        return self._fit[0]

    def _confidence(self, trace: Trace) -> float | None:
        """How probable it is that the answer is right; else what it would have to rest on."""
        fit, evidence, places = self._support(trace), self._prompt.evidence, self._places(trace)
        if fit is None or not places or not isinstance(evidence, AnswerJudge):
            return fit
        confidence = evidence.confidence(places[:-1], places[-1])
        return fit if confidence is None else min(fit, confidence)

    def _places(self, trace: Trace) -> list[Spot]:
        """Where all quotes stand in their passages, of an output whose answer is one quote."""
        spans = trace.spans
        if not spans or spans[-1].text != trace.answer.strip() or spans[-1].section != "answer":
            return []
        spots = [spot for span in spans if (spot := self._spot(span))]
        return spots if len(spots) == len(spans) else []

    def _match_sentences(
        self, text: str, citations: Sequence[Citation], recalled: Sequence[Spot] = ()
    ) -> tuple[Citation, ...]:
        """What the passages hold of the sentences that no quote shares words with."""
        prompt = self._prompt
        if prompt.params.recall_in == "none" or _is_plain_chat(prompt):
            return ()
        ranges = ((c.answer_start, c.answer_end) for c in citations)
        covered = [(a, b) for a, b in ranges if a is not None and b is not None]
        if self._matcher is None:
            self._matcher = Matcher(prompt.passages, self._documents, question=prompt.question)
        return self._matcher.match(text, covered=covered, recalled=recalled)

    def _recalled(self, trace: Trace) -> list[Spot]:
        """Where what was recalled stands in the passages, in the order of ``anchoring``."""
        return [spot for span in latest_first(trace.spans) if (spot := self._spot(span))]

    def _spot(self, span: RecallSpan) -> Spot | None:
        """Where a quote stands in its passage; None: it counts as taken from a copy of it."""
        passage = self._prompt.passages[span.passage]
        if span.document_id != passage.document_id or span.start < passage.start:
            return None
        start = span.start - passage.start
        return span.passage, start, start + len(span.text)

    def _nearest(self, trace: Trace, citations: Sequence[Citation]) -> tuple[Citation, ...]:
        candidates = [replace(c, answer_start=None, answer_end=None) for c in citations] or [
            cite(
                Location(span.document_id, span.start, span.end),
                span.passage,
                self._prompt.passages,
                self._documents,
                text=span.text,
                also=span.occurrences,
            )
            for span in trace.spans
        ]
        distinct = {(c.document_id, c.start, c.end): c for c in candidates}.values()
        return tuple(c for c in distinct if not any(_within(c, other) for other in distinct))


def _within(one: Citation, other: Citation) -> bool:
    """Whether a quote is part of a longer one."""
    same = one.document_id == other.document_id and one.text != other.text
    return same and other.start <= one.start and one.end <= other.end


def _is_plain_chat(prompt: Prompt) -> bool:
    """Whether nothing was given to answer from but the messages themselves."""
    documents = [p for p in prompt.passages if not p.document_id.startswith(MESSAGE)]
    return prompt.params.scope == "prompt" and not documents


def says_nothing(trace: Trace, phrases: Sequence[str]) -> bool:
    """Whether the model says, in its own words, that the documents hold no answer.

    What it quotes doesn't count, and neither does what follows a quote of the answer: an answer
    that quotes and then says what is missing is an answer.
    """
    before = takewhile(_is_in_words, (s for s in trace.segments if not _of_thinking(s)))
    folded = _comparable_form("\0".join(s.text for s in before))
    return any(_comparable_form(phrase) in folded for phrase in phrases if _comparable_form(phrase))


def _of_thinking(segment: Segment) -> bool:
    if isinstance(segment, RecallSpan):
        return segment.section != "answer"
    return not isinstance(segment, AnswerText)


def _is_in_words(segment: Segment) -> bool:
    return isinstance(segment, AnswerText)


def _comparable_form(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").casefold().rstrip(" .!").split())


def evidence_support(prompt: Prompt, trace: Trace) -> float | None:
    """Returns how well the evidence fits the question, from 0 to 1; None: nothing measures that.

    That is ``Evidence.fit`` of the prior in use, for what was recalled before the answer.
    """
    if prompt.params.recall_in == "none" or not terms(prompt.searched) or prompt.evidence is None:
        return None
    spans = [s for s in trace.segments if isinstance(s, RecallSpan) and s.section != "answer"]
    return prompt.evidence.fit([Recall(span.passage, span.text) for span in spans])
