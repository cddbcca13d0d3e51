"""What an output is held to, in one model's tokens: marks, limits, grammar, what it owes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recallm_core.decoding.evidence_policy import EvidenceRules, SentenceTokens
from recallm_core.decoding.grammar import GrammarEngine, OutputRules, calls_grammar, schema_grammar
from recallm_core.decoding.likely_tokens import LikelyAnswerTokens, LikelyTokens
from recallm_core.decoding.spec import AnswerForm, ConstraintSpec, GrammarSpec, Tag, hash_tokens
from recallm_core.decoding.tags import control_tag, text_tag
from recallm_core.errors import TokenizerError
from recallm_core.evidence.protocol import AnswerFinder, Evidence, LikelyAnswer, Places
from recallm_core.prompting.encoding import EncodedPrompt, TokenCache
from recallm_core.prompting.params import ResolvedParams
from recallm_core.prompting.recipe import Recipe
from recallm_core.prompting.wording import variants
from recallm_core.tokenization.boundary_tables import Limits
from recallm_core.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A prompt before its evidence is scored.

    Attributes:
        encoded: Its tokens.
        places: Where spans may stand.
        limits: Where they may begin and end.
        suffix: Of the marks around a span.
        grammar: What the answer has to be, beyond words.
        owed: What the output owes before it may end.
    """

    encoded: EncodedPrompt
    places: Places
    limits: Limits
    suffix: str
    grammar: GrammarSpec | None
    owed: EvidenceRules | None


class SpecMaker:
    """Makes the constraint specs of one model.

    Args:
        tokenizer: The model's tokenizer.
        recipe: How the model is driven.
        vocab_size: Width of the model's logits.
        cache: Encodes.

    Raises:
        TokenizerError: The recipe's marks aren't in the tokenizer.
    """

    def __init__(
        self, tokenizer: Tokenizer, recipe: Recipe, *, vocab_size: int, cache: TokenCache
    ) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._vocab_size = vocab_size
        self._cache = cache
        self._tags: dict[tuple[str, str], tuple[Tag, Tag]] = {}
        self._think_close = self._tag(recipe.think_close) if recipe.think_close else None
        self._grammars: GrammarEngine | None = None
        self._sentence_tokens: SentenceTokens | None = None
        self._endings: dict[tuple[bytes, ...], frozenset[int]] = {}
        self._marks("")

    def _tag(self, mark: str) -> Tag:
        return control_tag(self._tokenizer, mark) or text_tag(self._tokenizer, mark)

    def _marks(self, suffix: str) -> tuple[Tag, Tag]:
        """The two marks around a span; prompted models get a variant that no passage holds."""
        key = variants(self._recipe, suffix)
        if key not in self._tags:
            trained = self._recipe.mode == "trained"
            self._tags[key] = self._control_tags(key) if trained else self._text_tags(key)
        return self._tags[key]

    def _text_tags(self, marks: tuple[str, str]) -> tuple[Tag, Tag]:
        return text_tag(self._tokenizer, marks[0]), text_tag(self._tokenizer, marks[1])

    def _control_tags(self, marks: tuple[str, str]) -> tuple[Tag, Tag]:
        opened, closed = (control_tag(self._tokenizer, mark) for mark in marks)
        if opened is None or closed is None:
            raise TokenizerError(
                f"the tokenizer lacks the recall tokens {marks}; add and train them "
                "(recallm model create), or load the model with mode='prompted'"
            )
        return opened, closed

    def grammar(self, output: OutputRules | None) -> GrammarSpec | None:
        """Returns the grammar of the answer, if tools or a schema were given."""
        if output is None:
            return None
        if output.schema is not None:
            return GrammarSpec(answer=schema_grammar(output.schema))
        if not output.offered_tools:
            return None
        return GrammarSpec(
            call=calls_grammar(output.offered_tools),
            call_open=self._tag(self._recipe.call_open),
            call_close=self._tag(self._recipe.call_close),
            required=output.requires_call,
            parallel=output.parallel,
        )

    def engine(self) -> GrammarEngine:
        """Returns the vocabulary as grammars need it, prepared when it is first used."""
        if self._grammars is None:
            self._grammars = GrammarEngine(self._tokenizer, vocab_size=self._vocab_size)
        return self._grammars

    def evidence_rules(
        self, params: ResolvedParams, grammar: GrammarSpec | None, recipe: Recipe
    ) -> EvidenceRules | None:
        """Returns what an output owes, in this model's tokens; None: nothing.

        Args:
            params: The settings.
            grammar: Of the answer, if it isn't just words.
            recipe: Has the phrases, in the language of the question.
        """
        if params.evidence == "first":
            lead_in = recipe.lead_in if grammar is None else "\n"
            ends = (recipe.lead_out, *recipe.imitations) if grammar is None else ()
            return EvidenceRules(
                "first",
                tuple(self._cache.tokens(lead_in).ids.tolist()),
                blank=self._sentences().blank | self._beginning_with({end[:1] for end in ends}),
                room=params.max_new_tokens * 5 // 8,  # marks and words need the rest
            )
        if params.evidence != "required":
            return None
        sets = self._sentences()
        phrases = (phrase.rstrip(" .!") for phrase in recipe.abstain)
        spelled = (before + phrase for phrase in phrases for before in ("", " "))
        return EvidenceRules(
            "required",
            ends=sets.ends,
            points=sets.points,
            numbers=sets.numbers,
            abbreviations=sets.abbreviations,
            abstain=tuple(tuple(self._cache.tokens(text).ids.tolist()) for text in spelled),
        )

    def _likely(self, layout: Layout, form: AnswerForm, evidence: Evidence) -> LikelyTokens | None:
        """Returns likely answers as the words of the answer would spell them; None: none are.

        The words are those behind the evidence, and what a trained model writes behind its prefix.
        """
        recipe, owed = self._recipe, layout.owed
        behind_evidence = owed is not None and owed.policy == "first"
        behind_prefix = owed is None and recipe.mode == "trained" and bool(recipe.answer_prefix)
        in_words = layout.grammar is None and form == "words"
        if not (recipe.answer_weight and in_words and (behind_evidence or behind_prefix)):
            return None
        answers = evidence.likely_answers() if isinstance(evidence, AnswerFinder) else ()
        lead, ending = (recipe.answer_prefix, "") if behind_prefix else ("", recipe.lead_out)
        return self._spelled(answers, lead, ending) if answers else None

    def _spelled(self, answers: Sequence[LikelyAnswer], lead: str, ending: str) -> LikelyTokens:
        """Some answers in tokens, as words that a mark ends, or a line or sentence."""
        before = "" if ending else " "
        spelled = ((self._cache.tokens(before + answer.text).ids, answer) for answer in answers)
        closing = {ending, f".{ending}", f",{ending}"} if ending else {"\n", "."}
        return LikelyTokens(
            tuple(LikelyAnswerTokens(tuple(ids.tolist()), a.share) for ids, a in spelled),
            closers=self._beginning_with(closing) | frozenset(self._tokenizer.eos_ids),
            skipped=self._sentences().articles,
            strength=self._recipe.answer_weight,
            lead=tuple(self._cache.tokens(lead).ids.tolist()),
        )

    def _beginning_with(self, marks: set[str]) -> frozenset[int]:
        """The tokens by which the words of an answer would end before they begin."""
        begins = tuple(sorted(mark.encode() for mark in marks if mark))
        if begins not in self._endings:
            self._endings[begins] = frozenset(
                i
                for i in range(self._tokenizer.vocab_size if begins else 0)
                if (self._tokenizer.token_bytes(i) or b"").lstrip().startswith(begins)
            )
        return self._endings[begins]

    def _sentences(self) -> SentenceTokens:
        """The tokens that end sentences, looked up when they are first needed."""
        if self._sentence_tokens is None:
            tokenizer = self._tokenizer
            pieces = ((i, tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size))
            self._sentence_tokens = SentenceTokens.of(pieces)
        return self._sentence_tokens

    def spec(
        self, layout: Layout, params: ResolvedParams, evidence: Evidence | None
    ) -> ConstraintSpec:
        """Returns all that a constraint needs.

        Args:
            layout: The prompt.
            params: The settings.
            evidence: What scores the places of the prompt, if anything does.
        """
        ids, bits, owed, grammar = (
            layout.encoded.ids,
            layout.limits,
            layout.owed,
            layout.grammar,
        )
        opened, closed = self._marks(layout.suffix)
        form = _form(params, grammar)
        if owed is not None and evidence is not None:
            owed = replace(owed, least=evidence.due)
        return ConstraintSpec(
            prompt_length=len(ids),
            prompt_hash=hash_tokens(ids),
            vocab_size=self._vocab_size,
            runs=tuple((r.first, r.first + len(r.starts)) for r in layout.places.runs),
            can_start=bits.can_start,
            can_end=bits.can_end,
            can_end_hard=bits.can_end_hard,
            open=opened,
            close=closed,
            think_close=self._think_close,
            thinking=self._recipe.thinks,
            eos=self._tokenizer.eos_ids,
            forbidden=self._never(opened, closed, grammar),
            recall_in=params.recall_in,
            max_span_tokens=params.max_span_tokens,
            max_spans=params.max_spans,
            max_thinking_tokens=params.max_thinking_tokens,
            prior=None if evidence is None else evidence.start_scores.astype(np.float32),
            grammar=grammar,
            answer_form=form,
            evidence=owed,
            likely=None if evidence is None else self._likely(layout, form, evidence),
            prior_weight=params.prior_weight,
        )

    def _never(self, opened: Tag, closed: Tag, grammar: GrammarSpec | None) -> tuple[int, ...]:
        """Control tokens that have no role in an output, and logits beyond the tokenizer."""
        calls = (grammar.call_open, grammar.call_close) if grammar else ()
        roles = (opened, closed, self._think_close, *calls)
        in_use = {i for tag in roles if tag for i in tag.ids} | set(self._tokenizer.eos_ids)
        beyond = range(self._tokenizer.vocab_size, self._vocab_size)
        never = (self._tokenizer.control_ids - in_use) | set(beyond)
        return tuple(sorted(i for i in never if i < self._vocab_size))


def _form(params: ResolvedParams, grammar: GrammarSpec | None) -> AnswerForm:
    """``answer_form``; words where answers may not quote, or a grammar applies."""
    return params.answer_form if "answer" in params.recall_in and grammar is None else "words"
