"""Question, passages and history as token ids, with an exact map from tokens back to characters.

The prompt is built piece by piece. Trusted wording goes through the model's chat template with
placeholders where untrusted text belongs; each placeholder is then replaced by the separately
encoded text. So a template can't trim a passage, no token straddles a seam, nothing in a document
can act as a control token, and where each passage's tokens stand is known by construction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recallm_core.decoding.constraint import ConstraintRules, build_index
from recallm_core.decoding.grammar import OutputRules
from recallm_core.documents.document import Passage
from recallm_core.evidence.memo import Memo
from recallm_core.evidence.protocol import Evidence, Places, Scorer
from recallm_core.evidence.registry import SCORERS, scorer_factory
from recallm_core.locks import ForkSafeLock
from recallm_core.prompting.conversation import Turn, checked_messages
from recallm_core.prompting.encoding import TokenCache, encode_pieces
from recallm_core.prompting.followup import search_question
from recallm_core.prompting.params import GenerationParams, ResolvedParams
from recallm_core.prompting.phrases import for_question
from recallm_core.prompting.prompt import MESSAGE, Prompt
from recallm_core.prompting.recipe import Recipe
from recallm_core.prompting.resolving import resolve
from recallm_core.prompting.specs import Layout, SpecMaker
from recallm_core.prompting.wording import Scope, Wording
from recallm_core.tokenization.boundary_tables import Run, copyable_runs
from recallm_core.tokenization.tokenizer import Tokenizer

__all__ = ["Prompt", "PromptBuilder", "Run"]

_REMEMBERED_PACKS = 4


class PromptBuilder:
    """Builds the prompts of one model; safe to use from many threads.

    Texts that were encoded once are remembered, and so are the scorers of the last few packs. What
    needs the tokenizer is done under one lock; evidence is scored outside of it, so the prompt of
    one question is built while an encoder still reads for another.

    Args:
        tokenizer: The model's tokenizer.
        recipe: How the model is driven.
        vocab_size: Width of the model's logits.

    Raises:
        TokenizerError: The recipe's marks aren't in the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe, *, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.vocab_size = vocab_size
        self._cache = TokenCache(tokenizer)
        self._wording = Wording(tokenizer, recipe)
        self._specs = SpecMaker(tokenizer, recipe, vocab_size=vocab_size, cache=self._cache)
        self._scorers: Memo[tuple[object, ...], Scorer] = Memo(_REMEMBERED_PACKS)
        self._label_costs: dict[tuple[int, bool], int] = {}
        self._building = ForkSafeLock()

    def count(self, text: str) -> int:
        """Tokens of a text as the model will see it."""
        with self._building:
            return len(self._cache.tokens(text).ids)

    def overhead(self, title: str | None, index: int = 1000, document_id: str = "") -> int:
        """Tokens that a passage's label costs, its own text not counted."""
        document = self.recipe.document
        with self._building:
            labels = document.count("{title}") * self.count(title or "")
            labels += document.count("{id}") * self.count(document_id)
            return self._label_cost(index, bool(title)) + labels + 4

    def _label_cost(self, index: int, titled: bool) -> int:
        key = (len(str(index)), titled)
        if key not in self._label_costs:
            encode = self.tokenizer.encode_template
            parts = self._wording.label_parts(index)
            self._label_costs[key] = sum(len(encode(part)) for part in parts)
        return self._label_costs[key]

    def build(
        self,
        messages: Sequence[Mapping[str, Any]],
        passages: Sequence[Passage],
        params: GenerationParams,
        output: OutputRules | None = None,
    ) -> Prompt:
        """Builds the prompt of a conversation over passages.

        Args:
            messages: ``{"role": ..., "content": ...}``, the last one from the user (or a tool).
            passages: What the model may read and quote; they stand in the first user message.
            params: The caller's settings.
            output: Tools or a schema, where the answer isn't just words.

        Raises:
            TokenizerError: The chat template, or a text, can't be handled exactly.
            ValueError: The messages aren't a conversation that ends with a question, or a document
                has an id that a message needs.
        """
        settings = resolve(params, self.recipe, output)
        turns = checked_messages(messages)
        searched = search_question(turns)
        question = next(m["content"] for m in reversed(turns) if m["role"] == "user")
        recipe = for_question(question, self.recipe)
        with self._building:
            layout = self._lay_out(turns, passages, settings, output, recipe)
        evidence = self._score(searched, layout, settings)  # may take an encoder a second
        with self._building:
            spec = self._specs.spec(layout, settings, evidence)
            engine = None if layout.grammar is None else self._specs.engine()
        return Prompt(
            token_ids=layout.encoded.ids,
            passages=layout.places.passages,
            runs=layout.places.runs,
            spec=spec,
            rules=ConstraintRules(spec, build_index(spec, layout.encoded.ids), engine),
            prefix_length=layout.encoded.prefix_length,
            question=question,
            searched=searched,
            recipe=recipe,
            params=settings,
            evidence=evidence,
        )

    def _lay_out(
        self,
        turns: Sequence[Turn],
        passages: Sequence[Passage],
        settings: ResolvedParams,
        output: OutputRules | None,
        recipe: Recipe,
    ) -> Layout:
        """The prompt in tokens, and what of it may be quoted."""
        grammar = self._specs.grammar(output)  # a schema is checked before it is written down
        quotable = [p.text for p in passages]
        messages_too = settings.scope == "prompt"
        if messages_too:
            _refuse_message_ids(passages)
            quotable += [turn["content"] for turn in turns if turn["role"] == "user"]
        wording = Wording(self.tokenizer, recipe)
        suffix = wording.free_suffix(quotable)
        scope = Scope(None if settings.recall_in == "none" else suffix, messages_too)
        rendered, fields = wording.render(turns, passages, scope, output)
        encoded = encode_pieces(fields.split(rendered), settings.boundary, self._cache)
        runs, bits = copyable_runs(encoded.places)
        owed = self._specs.evidence_rules(settings, grammar, recipe) if runs else None
        room = None if owed is None else owed.room
        return Layout(
            encoded=encoded,
            places=Places(tuple(fields.passages), runs, bits.can_start, bits.can_end, room),
            limits=bits,
            suffix=suffix,
            grammar=grammar,
            owed=owed,
        )

    def _score(self, question: str, layout: Layout, settings: ResolvedParams) -> Evidence | None:
        """What the scorer that was asked for says; its reading of a pack is remembered."""
        prior, places = settings.prior, layout.places
        if prior not in SCORERS:
            return None
        key = (prior, *((p.text, p.title) for p in places.passages))
        scorer = self._scorers.get(key, lambda: scorer_factory(prior)(places.passages))
        return scorer(question, places, None if layout.owed is None else layout.owed.count)


def _refuse_message_ids(passages: Sequence[Passage]) -> None:
    taken = [p.document_id for p in passages if p.document_id.startswith(MESSAGE)]
    if taken:
        raise ValueError(
            f"scope='prompt' names the user's messages {MESSAGE}0 and so on, but a document has "
            f"the id {taken[0]!r}; give it another id, or use scope='documents'"
        )
