"""Question, passages and history as token ids, with an exact map from tokens back to characters.

The prompt is built piece by piece. Trusted wording goes through the model's chat template with
placeholders where untrusted text belongs; each placeholder is then replaced by the separately
encoded text. So a template can't trim a passage, no token straddles a seam, nothing in a document
can act as a control token, and where each passage's tokens stand is known by construction.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recallm_core.decoding.constraint import ClosedSpan, ConstraintRules, build_index
from recallm_core.decoding.evidence_policy import EvidenceRules, SentenceTokens
from recallm_core.decoding.grammar import GrammarEngine, OutputRules, calls_grammar, schema_grammar
from recallm_core.decoding.spec import (
    AnswerForm,
    ConstraintSpec,
    GrammarSpec,
    Tag,
    hash_tokens,
)
from recallm_core.decoding.tags import control_tag, text_tag
from recallm_core.documents.document import Location, Passage
from recallm_core.errors import TokenizerError
from recallm_core.evidence.reader import default_reader
from recallm_core.evidence.reader_bias import ReaderScorer
from recallm_core.evidence.sentence_bias import Scorer, SentenceMap
from recallm_core.evidence.sentence_scorer import SentenceScorer
from recallm_core.locks import ForkSafeLock
from recallm_core.prompting.conversation import (
    Field,
    Fields,
    Turn,
    call_with_placeholders,
    checked,
    render,
    tool_with_placeholders,
)
from recallm_core.prompting.followup import search_question
from recallm_core.prompting.params import BASE, GenerationParams
from recallm_core.prompting.recipe import JSON_ANSWER, Recipe
from recallm_core.retrieval.embedding import default_embedder
from recallm_core.tokenization.boundary_tables import Limits, Placed, Run, copyable_runs, limits
from recallm_core.tokenization.tokenizer import PlainTokens, Tokenizer, encode_all

__all__ = ["Prompt", "PromptBuilder", "Run"]

Ints32 = NDArray[np.int32]

MESSAGE = "message:"  # ids of the user's messages where they may be quoted
_CACHED_SCORERS = 4
_PLACE = re.compile(r"\{(index|title|id|text)\}")


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What the model reads, and what its copies mean.

    Attributes:
        token_ids: The whole prompt.
        passages: What may be quoted, in prompt order.
        runs: Copyable runs, numbered as in the constraint.
        spec: The rules as one value.
        rules: The rules bound to their index.
        prefix_length: Tokens before the first message: what further questions over the same
            passages share (the passages too, where the question stands last).
        question: The last question asked.
        searched: The same with what the conversation is about, where the question leaves that out.
        recipe: How the model is driven.
        params: The settings, all filled in.
        sentences: What scores the places where spans may start, where that was asked for.
    """

    token_ids: Ints32
    passages: tuple[Passage, ...]
    runs: tuple[Run, ...]
    spec: ConstraintSpec
    rules: ConstraintRules
    prefix_length: int
    question: str
    searched: str
    recipe: Recipe
    params: GenerationParams
    sentences: SentenceMap | None = None

    def locate(self, run: int, position: int, length: int) -> tuple[int, int, int]:
        """Returns (passage, start, end) of copied tokens in that passage's text, trimmed."""
        found = self.runs[run]
        text = self.passages[found.passage].text
        start, end = int(found.starts[position]), int(found.ends[position + length - 1])
        quote = text[start:end]
        start += len(quote) - len(quote.lstrip())
        return found.passage, start, start + len(quote.strip())

    def recalled(self, spans: Sequence[ClosedSpan]) -> list[tuple[int, int, int]]:
        """Returns (passage, start, end) of closed spans, each at its first occurrence."""
        return [
            self.locate(run, position, len(span.tokens))
            for span in spans
            for run, position in span.occurrences[:1]
        ]

    def place(self, passage: int, start: int, end: int) -> Location:
        """Returns a passage's character range as a range of its document."""
        found = self.passages[passage]
        return Location(found.document_id, found.start + start, found.start + end)


class PromptBuilder:
    """Builds the prompts of one model; texts that were encoded once are remembered.

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
        self._tags: dict[tuple[str, str], tuple[Tag, Tag]] = {}
        self._cache = _Cache(tokenizer)
        self._scorers: OrderedDict[tuple[object, ...], Scorer] = OrderedDict()
        self._label_costs: dict[tuple[int, bool], int] = {}
        self._labels = _PLACE.split(recipe.document)
        self._think_close = self._thinking_tag()
        self._grammars: GrammarEngine | None = None
        self._sentence_tokens: SentenceTokens | None = None
        self._marks("")

    def _thinking_tag(self) -> Tag | None:
        mark = self.recipe.think_close
        if not mark:
            return None
        return control_tag(self.tokenizer, mark) or text_tag(self.tokenizer, mark)

    def _marks(self, suffix: str) -> tuple[Tag, Tag]:
        """The two marks around a span; prompted models get a variant that no passage holds."""
        opened, closed = _variant(self.recipe.open, suffix), _variant(self.recipe.close, suffix)
        key = (opened, closed)
        if key not in self._tags:
            if self.recipe.mode == "trained":
                found = [control_tag(self.tokenizer, mark) for mark in key]
                if found[0] is None or found[1] is None:
                    raise TokenizerError(
                        f"the tokenizer lacks the recall tokens {key}; add and train them "
                        "(recallm model create), or load the model with mode='prompted'"
                    )
                self._tags[key] = (found[0], found[1])
            else:
                self._tags[key] = (
                    text_tag(self.tokenizer, opened),
                    text_tag(self.tokenizer, closed),
                )
        return self._tags[key]

    def count(self, text: str) -> int:
        """Tokens of a text as the model will see it."""
        return len(self._cache.tokens(text).ids)

    def overhead(self, title: str | None, index: int = 1000, document_id: str = "") -> int:
        """Tokens that a passage's label costs, its own text not counted."""
        key = (len(str(index)), bool(title))
        if key not in self._label_costs:
            wording = self.recipe.document.replace("{index}", str(index))
            parts = re.split(r"\{(?:title|id|text)\}", wording)
            encode = self.tokenizer.encode_template
            self._label_costs[key] = sum(len(encode(part)) for part in parts)
        document = self.recipe.document
        own = document.count("{title}") * self.count(title or "")
        own += document.count("{id}") * self.count(document_id)
        return self._label_costs[key] + own + 4

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
        settings = self._filled(params, output)
        turns = checked(messages)
        in_scope = settings.scope == "prompt"
        quotable = [p.text for p in passages]
        if in_scope:
            _refuse_message_ids(passages)
            quotable += [turn["content"] for turn in turns if turn["role"] == "user"]
        suffix = self._free_suffix(quotable)
        fields = Fields()
        recalls = settings.recall_in != "none"
        content = self._contents(turns, passages, fields, suffix if recalls else None, in_scope)
        grammar = self._grammar(output)
        if output is not None and output.schema is not None:
            _ask_for_json(content, output.schema, fields)
        tools = _shown(output, fields)
        rendered = self._opened(self._rendered(content, fields, tools))
        ids, places, prefix = self._encoded(fields.split(rendered), str(settings.boundary))
        question = next(m["content"] for m in reversed(turns) if m["role"] == "user")
        searched = search_question(turns)
        prompt = self._assemble(ids, places, fields.passages, searched, settings, suffix, grammar)
        return replace(prompt, prefix_length=prefix, question=question)

    def _filled(self, params: GenerationParams, output: OutputRules | None) -> GenerationParams:
        """The settings, all filled in: the caller's, then the recipe's, then ours."""
        recipe = self.recipe
        prior = {"prior": recipe.prior, "prior_weight": recipe.prior_weight}
        settings = params.over(recipe.sampling).over({**prior, **BASE})
        evidence = _policy(settings, recipe, output)
        boundary = settings.boundary or ("sentence" if evidence == "first" else "word")
        return replace(settings, evidence=evidence, boundary=boundary)

    # wording

    def _contents(
        self,
        turns: Sequence[Turn],
        passages: Sequence[Passage],
        fields: Fields,
        suffix: str | None,
        in_scope: bool,
    ) -> list[Turn]:
        """The turns with wording in place and placeholders for everything untrusted."""
        system = "" if suffix is None else self._system_text(suffix)
        if system:
            system = fields.put("") + system  # shows whether the template renders system turns
        given = [fields.put(m["content"]) for m in turns if m["role"] == "system"]
        pieces = [piece for piece in (system, *given) if piece]
        out: list[Turn] = []
        if pieces:
            out.append({"role": "system", "content": "\n\n".join(pieces)})
        asked = 0
        for turn in turns:
            if turn["role"] == "user":
                own = Passage(f"{MESSAGE}{asked}", 0, len(turn["content"]), turn["content"])
                content = self._user_content(own, () if asked else passages, fields, in_scope)
                asked += 1
            elif turn["role"] != "system":
                content = fields.put(turn["content"], varies=True)
            else:
                continue
            out.append({"role": turn["role"], "content": content})
            if "tool_calls" in turn:
                out[-1]["tool_calls"] = [
                    {
                        "type": "function",
                        "function": call_with_placeholders(call["function"], fields),
                    }
                    for call in turn["tool_calls"]
                ]
        return out

    def _user_content(
        self, message: Passage, passages: Sequence[Passage], fields: Fields, in_scope: bool
    ) -> str:
        """A message, and the documents where the layout wants them; it is quotable once."""
        layout = self.recipe.layout if passages else "question-last"
        out = []
        if layout != "question-last":
            out.append(self._asked(message, fields, in_scope and layout == "question-first"))
            out.append("\n\n")
        if passages:
            out.append(self._documents(passages, fields))
        if layout != "question-first":
            out.append(self._asked(message, fields, in_scope))
        return "".join(out)

    def _asked(self, message: Passage, fields: Fields, quotable: bool) -> str:
        if quotable:
            place = fields.put_passage(message, varies=True)
        else:
            place = fields.put(message.text, varies=True)
        return self.recipe.question.replace("{question}", place)

    def _documents(self, passages: Sequence[Passage], fields: Fields) -> str:
        out = [self.recipe.documents_open]
        for index, passage in enumerate(passages, start=1):
            for place, part in enumerate(self._labels):
                if place % 2 == 0:
                    out.append(part)
                elif part == "index":
                    out.append(str(index))
                elif part == "text":
                    out.append(fields.put_passage(passage))
                else:
                    label = passage.title if part == "title" else passage.document_id
                    out.append(fields.put(label or ""))
        out.append(self.recipe.documents_close)
        return "".join(out)

    def _system_text(self, suffix: str) -> str:
        if not suffix:
            return self.recipe.system_text()
        marked = replace(
            self.recipe,
            open=_variant(self.recipe.open, suffix),
            close=_variant(self.recipe.close, suffix),
        )
        return marked.system_text()

    def _opened(self, rendered: str) -> str:
        """The rendered conversation with the thinking block opened."""
        opening = self.recipe.think_open
        if opening and not rendered.rstrip().endswith(opening):
            rendered += opening if self.recipe.mode == "trained" else opening + "\n"
        return rendered

    def _free_suffix(self, quotable: Sequence[str]) -> str:
        """The first variant of the marks that stands in no passage; control tokens need none."""
        if self.recipe.mode == "trained":
            return ""
        marks = (self.recipe.open, self.recipe.close)
        either = "|".join(f"{re.escape(m[:-1])}([0-9]*){re.escape(m[-1])}" for m in marks)
        pattern = re.compile(either)
        taken = {a or b for text in quotable for a, b in pattern.findall(text)}
        return next(s for n in count(1) if (s := "" if n == 1 else str(n)) not in taken)

    # tokens

    def _encoded(
        self, pieces: Sequence[str | Field], boundary: str
    ) -> tuple[Ints32, list[Placed], int]:
        """All ids, the passages among them, and the tokens before the first message."""
        arrays: list[Ints32] = [np.empty(0, np.int32)]
        places: list[Placed] = []
        length = 0
        prefix: int | None = None
        found = [piece for piece in pieces if isinstance(piece, Field)]
        tokens = self._cache.all_tokens([f.text for f in found])
        quotable = {f.text: tokens[f.text] for f in found if f.passage is not None}
        bits = self._cache.all_limits(quotable, boundary)
        for piece in pieces:
            if isinstance(piece, Field):
                if piece.varies and prefix is None:
                    prefix = length
                own = tokens[piece.text]
                if piece.passage is not None:
                    places.append(Placed(piece.passage, length, own, bits[piece.text]))
                ids = own.ids
            else:
                ids = self._cache.wording(piece)
            arrays.append(ids)
            length += len(ids)
        return np.concatenate(arrays), places, prefix or 0

    def _assemble(
        self,
        ids: Ints32,
        places: Sequence[Placed],
        passages: Sequence[Passage],
        searched: str,
        settings: GenerationParams,
        suffix: str,
        grammar: GrammarSpec | None,
    ) -> Prompt:
        runs, bits = copyable_runs(places)
        sentences: SentenceMap | None = None
        prior: NDArray[np.float32] | None = None
        if settings.prior in ("sentences", "reader"):
            sentences = SentenceMap(runs, passages, self._scorer(passages, str(settings.prior)))
            prior = sentences.scores(searched).astype(np.float32)
        spec = self._spec(ids, runs, bits, settings, suffix, prior, grammar)
        if spec.evidence is not None and sentences is not None:
            least = sentences.needed(searched, spec.evidence.most)
            spec = replace(spec, evidence=replace(spec.evidence, least=least))
        return Prompt(
            token_ids=ids,
            passages=tuple(passages),
            runs=runs,
            spec=spec,
            rules=ConstraintRules(
                spec, build_index(spec, ids), None if grammar is None else self._engine()
            ),
            prefix_length=0,
            question=searched,
            searched=searched,
            recipe=self.recipe,
            params=settings,
            sentences=sentences,
        )

    def _spec(
        self,
        ids: Ints32,
        runs: Sequence[Run],
        bits: Limits,
        settings: GenerationParams,
        suffix: str,
        prior: NDArray[np.float32] | None,
        grammar: GrammarSpec | None,
    ) -> ConstraintSpec:
        opened, closed = self._marks(suffix)
        calls = (grammar.call_open, grammar.call_close) if grammar else ()
        used = (opened, closed, self._think_close, *calls)
        marks = {i for tag in used if tag for i in tag.ids}
        ends = self.tokenizer.eos_ids
        return ConstraintSpec(
            prompt_length=len(ids),
            prompt_hash=hash_tokens(ids),
            vocab_size=self.vocab_size,
            runs=tuple((r.first, r.first + len(r.starts)) for r in runs),
            can_start=bits.can_start,
            can_end=bits.can_end,
            can_end_hard=bits.can_end_hard,
            open=opened,
            close=closed,
            think_close=self._think_close,
            thinking=self.recipe.thinks,
            eos=ends,
            forbidden=self._never(marks | set(ends)),
            recall_in=settings.recall_in or "thinking+answer",
            max_span_tokens=settings.max_span_tokens or 128,
            max_spans=64 if settings.max_spans is None else settings.max_spans,
            max_thinking_tokens=_thinking_budget(settings),
            prior=prior,
            grammar=grammar,
            answer_form=_form(settings, grammar),
            evidence=self._evidence_rules(settings, grammar) if runs else None,
            prior_weight=1.0 if settings.prior_weight is None else settings.prior_weight,
        )

    def _evidence_rules(
        self, settings: GenerationParams, grammar: GrammarSpec | None
    ) -> EvidenceRules | None:
        """What the output owes, in this model's tokens."""
        if settings.evidence == "first":
            words = grammar is None
            lead_in = self._cache.tokens(self.recipe.lead_in if words else "\n").ids.tolist()
            room = (settings.max_new_tokens or 1) // 2
            return EvidenceRules("first", tuple(lead_in), blank=self._sentences().blank, room=room)
        if settings.evidence != "required":
            return None
        sets = self._sentences()
        phrases = (phrase.rstrip(" .!") for phrase in self.recipe.abstain)
        spelled = (before + phrase for phrase in phrases for before in ("", " "))
        return EvidenceRules(
            "required",
            ends=sets.ends,
            points=sets.points,
            numbers=sets.numbers,
            abbreviations=sets.abbreviations,
            abstain=tuple(tuple(self._cache.tokens(text).ids.tolist()) for text in spelled),
        )

    def _sentences(self) -> SentenceTokens:
        """The tokens that end sentences, looked up when they are first needed."""
        if self._sentence_tokens is None:
            tokenizer = self.tokenizer
            pieces = ((i, tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size))
            self._sentence_tokens = SentenceTokens.of(pieces)
        return self._sentence_tokens

    def _grammar(self, output: OutputRules | None) -> GrammarSpec | None:
        """The grammar of the answer, if tools or a schema were given."""
        if output is None:
            return None
        if output.schema is not None:
            return GrammarSpec(answer=schema_grammar(output.schema))
        if not output.offered:
            return None
        opened, closed = (
            control_tag(self.tokenizer, mark) or text_tag(self.tokenizer, mark)
            for mark in (self.recipe.call_open, self.recipe.call_close)
        )
        return GrammarSpec(
            call=calls_grammar(output.offered),
            call_open=opened,
            call_close=closed,
            required=output.required,
            parallel=output.parallel,
        )

    def _engine(self) -> GrammarEngine:
        """The vocabulary as grammars need it, prepared when it is first used."""
        if self._grammars is None:
            self._grammars = GrammarEngine(self.tokenizer, vocab_size=self.vocab_size)
        return self._grammars

    def _rendered(
        self, content: Sequence[Turn], fields: Fields, tools: Sequence[Mapping[str, Any]]
    ) -> str:
        try:
            return render(self.tokenizer, content, fields, tools)
        except TokenizerError as error:
            if not tools:
                raise
            raise TokenizerError(
                "the model's chat template can't show tools to it; use a model whose template has "
                f"a branch for tools, or ask without them ({error})"
            ) from error

    def _scorer(self, passages: Sequence[Passage], prior: str) -> Scorer:
        """The sentences of these passages; the last few packs are remembered."""
        key = (prior, *((p.text, p.title) for p in passages))
        found = self._scorers.pop(key, None)
        if found is None:
            texts, titles = [p.text for p in passages], [p.title for p in passages]
            found = SentenceScorer(texts, titles, default_embedder())
            if prior == "reader":
                found = ReaderScorer(found, default_reader(), texts, titles)
        self._scorers[key] = found
        while len(self._scorers) > _CACHED_SCORERS:
            self._scorers.popitem(last=False)
        return found

    def _never(self, used: set[int]) -> tuple[int, ...]:
        """Control tokens that have no role in an output, and logits beyond the tokenizer."""
        beyond = range(self.tokenizer.vocab_size, self.vocab_size)
        never = (self.tokenizer.control_ids - used) | set(beyond)
        return tuple(sorted(i for i in never if i < self.vocab_size))


def _shown(output: OutputRules | None, fields: Fields) -> list[dict[str, Any]]:
    """The tools as templates expect them, their texts as placeholders."""
    tools = [tool.to_function() for tool in output.offered] if output else []
    return [tool | {"function": tool_with_placeholders(tool["function"], fields)} for tool in tools]


def _ask_for_json(content: list[Turn], schema: Any, fields: Fields) -> None:
    """Tells the model, in the last user turn, what its answer has to fit."""
    last = next(turn for turn in reversed(content) if turn["role"] == "user")
    wanted = fields.put(json.dumps(schema, ensure_ascii=False), varies=True)
    last["content"] += JSON_ANSWER.replace("{schema}", wanted)


class _Cache:
    """Encoded texts, the longest unused ones dropped when all take too many bytes.

    Encoding happens outside the lock: two threads may encode the same text, and get the same.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: OrderedDict[str, PlainTokens] = OrderedDict()
        self._limits: dict[tuple[str, str], Limits] = {}
        self._wording: dict[str, Ints32] = {}
        self._held = 0  # bytes of texts and arrays
        self._most = 192 << 20
        self._boundaries: set[str] = set()
        self._lock = ForkSafeLock()

    def tokens(self, text: str) -> PlainTokens:
        """The tokens of one text."""
        return self.all_tokens([text])[text]

    def all_tokens(self, texts: Iterable[str]) -> dict[str, PlainTokens]:
        """The tokens of some texts."""
        found: dict[str, PlainTokens] = {}
        missing: list[str] = []
        with self._lock:
            for text in dict.fromkeys(texts):
                known = self._texts.get(text)
                if known is None:
                    missing.append(text)
                else:
                    self._texts.move_to_end(text)
                    found[text] = known
        if missing:
            found.update(zip(missing, encode_all(self._tokenizer, missing), strict=True))
            with self._lock:
                for text in missing:
                    self._keep(text, found[text])
        return found

    def _keep(self, text: str, tokens: PlainTokens) -> None:
        if text not in self._texts:
            self._held += self._bytes(text, tokens)
            self._texts[text] = PlainTokens(  # not parts of the arrays of many texts
                tokens.ids.copy(), tokens.starts.copy(), tokens.ends.copy(), tokens.copyable.copy()
            )
        while self._held > self._most and len(self._texts) > 1:
            old, gone = self._texts.popitem(last=False)
            self._held -= self._bytes(old, gone)
            for key in [(boundary, old) for boundary in self._boundaries]:
                self._limits.pop(key, None)

    @staticmethod
    def _bytes(text: str, tokens: PlainTokens) -> int:
        """What a text takes with its tokens and limits; a token may be a third of a character."""
        per_token = 13 + 3 * 3  # ids, starts, ends, copyable; three limits by each boundary
        per_character = 1 if text.isascii() else 7  # with its UTF-8 form
        return per_character * len(text) + per_token * len(tokens.ids) + 1000

    def all_limits(self, tokens: Mapping[str, PlainTokens], boundary: str) -> dict[str, Limits]:
        """Where spans may begin and end in some texts."""
        known = {text: self._limits.get((boundary, text)) for text in tokens}
        found = {text: bits for text, bits in known.items() if bits is not None}
        missing = [text for text in tokens if text not in found]
        for text, bits in zip(
            missing, limits(missing, [tokens[t] for t in missing], boundary), strict=True
        ):
            found[text] = bits
            with self._lock:
                self._boundaries.add(boundary)
                if text in self._texts:
                    self._limits[boundary, text] = Limits(
                        bits.can_start.copy(), bits.can_end.copy(), bits.can_end_hard.copy()
                    )
        return found

    def wording(self, text: str) -> Ints32:
        """Our own words, in which control tokens are recognised."""
        found = self._wording.get(text)
        if found is None:
            found = np.array(self._tokenizer.encode_template(text), dtype=np.int32)
            if len(text) < 1000 and len(self._wording) < 20_000:
                self._wording[text] = found
        return found


def _refuse_message_ids(passages: Sequence[Passage]) -> None:
    taken = [p.document_id for p in passages if p.document_id.startswith(MESSAGE)]
    if taken:
        raise ValueError(
            f"scope='prompt' names the user's messages {MESSAGE}0 and so on, but a document has "
            f"the id {taken[0]!r}; give it another id, or use scope='documents'"
        )


def _thinking_budget(settings: GenerationParams) -> int:
    total = settings.max_new_tokens or 1
    spare = min(512, max(1, total // 4))
    default = max(0, total - spare)
    chosen = settings.max_thinking_tokens
    return default if chosen is None else min(chosen, default)


def _variant(mark: str, suffix: str) -> str:
    """``<recall>`` with suffix 2 is ``<recall2>``."""
    return f"{mark[:-1]}{suffix}{mark[-1]}" if suffix else mark


def _policy(
    settings: GenerationParams, recipe: Recipe, output: OutputRules | None
) -> Literal["required", "first", "free"]:
    """What the output owes, where that can be had at all."""
    asked = settings.evidence
    policy = recipe.policy if asked is None or asked == "auto" else asked
    if settings.recall_in == "none" or settings.max_spans == 0 or settings.answer_form == "quote":
        return "free"
    if policy == "free" or output is None:
        found = policy
    elif output.schema is not None:
        found = "first"
    else:  # a call is no answer, so it owes nothing
        found = "free" if output.required else "required"
    return "first" if found == "required" and settings.recall_in == "thinking" else found


def _form(settings: GenerationParams, grammar: GrammarSpec | None) -> AnswerForm:
    """The form of the answer: words wherever a quote can't be all of it."""
    quotable = "answer" in (settings.recall_in or "thinking+answer")
    return (settings.answer_form or "words") if quotable and grammar is None else "words"
