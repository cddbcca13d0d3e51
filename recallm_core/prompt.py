"""Question, passages and history as token ids, with an exact map from tokens back to characters.

The prompt is built piece by piece. Trusted wording goes through the model's chat template with
placeholders where untrusted text belongs; each placeholder is then replaced by the separately
encoded text. So a template can't trim a passage, no token straddles a seam, nothing in a document
can act as a control token, and where each passage's tokens stand is known by construction.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from recallm_core.boundaries import grapheme_boundaries, word_boundaries
from recallm_core.constraint import ClosedSpan, ConstraintRules, Section, build_index
from recallm_core.constraint_spec import ConstraintSpec, Tag, hash_tokens
from recallm_core.documents import Location, Passage
from recallm_core.errors import TokenizerError
from recallm_core.params import BASE, GenerationParams
from recallm_core.prior import sentence_prior
from recallm_core.recipe import Recipe
from recallm_core.tokenizer import PlainTokens, Tokenizer, control_tag, text_tag

Bools = NDArray[np.bool_]
Ints32 = NDArray[np.int32]

WITHIN_SENTENCE = -6.0  # a start inside a sentence, against a start at its beginning
WITHIN_EVIDENCE = -8.0  # an answer's quote from outside the evidence, against inside
NO_SENTENCE = -30.0
_ROLES = ("system", "user", "assistant", "tool")
_CACHED_CHARACTERS = 32_000_000
_WHITE = np.array(
    [c for c in range(0x3001) if chr(c).isspace()],
    dtype=np.uint32,
)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """An unbroken stretch of copyable tokens of one passage.

    Attributes:
        passage: Number of the passage.
        first: Token position in the prompt of the run's first token.
        starts, ends: Character range of each token in the passage's text.
    """

    passage: int
    first: int
    starts: Ints32
    ends: Ints32


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What the model reads, and what its copies mean.

    Attributes:
        token_ids: The whole prompt.
        passages: What may be quoted, in prompt order.
        runs: Copyable runs, numbered as in the constraint.
        spec: The rules as one value.
        rules: The rules bound to their index.
        prefix_length: Tokens up to the end of the last passage: what further questions share.
        question: The last question asked.
        recipe: How the model is driven.
        params: The settings, all filled in.
    """

    token_ids: Ints32
    passages: tuple[Passage, ...]
    runs: tuple[Run, ...]
    spec: ConstraintSpec
    rules: ConstraintRules
    prefix_length: int
    question: str
    recipe: Recipe
    params: GenerationParams

    def locate(self, run: int, position: int, length: int) -> tuple[int, int, int]:
        """Returns (passage, start, end) of copied tokens in that passage's text, trimmed."""
        found = self.runs[run]
        text = self.passages[found.passage].text
        start, end = int(found.starts[position]), int(found.ends[position + length - 1])
        quote = text[start:end]
        start += len(quote) - len(quote.lstrip())
        return found.passage, start, start + len(quote.strip())

    def place(self, passage: int, start: int, end: int) -> Location:
        """Returns a passage's character range as a range of its document."""
        found = self.passages[passage]
        return Location(found.document_id, found.start + start, found.start + end)


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """One passage's tokens with their boundaries."""

    tokens: PlainTokens
    can_start: Bools
    can_end: Bools
    can_end_hard: Bools


@dataclass(frozen=True, slots=True)
class _Field:
    """Untrusted text that a placeholder stands for."""

    text: str
    passage: int | None = None


@dataclass(slots=True)
class _Fields:
    """Hands out placeholders that occur in none of the texts."""

    mark: str
    fields: list[_Field] = field(default_factory=list)

    def put(self, text: str, passage: int | None = None) -> str:
        self.fields.append(_Field(text, passage))
        return f"{self.mark}{len(self.fields) - 1}Z"

    def split(self, rendered: str) -> list[str | _Field]:
        """The rendered template as wording and fields, in order.

        Raises:
            TokenizerError: The template dropped, repeated or reordered a passage.
        """
        pieces = re.split(f"{self.mark}([0-9]+)Z", rendered)
        order = [int(n) for n in pieces[1::2]]
        passages = [n for n in order if self.fields[n].passage is not None]
        expected = [n for n, f in enumerate(self.fields) if f.passage is not None]
        if passages != expected or len(set(order)) != len(order):
            raise TokenizerError(
                "the chat template doesn't render every message exactly once and in order; give "
                "the model a template that does (tokenizer.chat_template)"
            )
        out: list[str | _Field] = []
        for number, piece in enumerate(pieces):
            out.append(self.fields[int(piece)] if number % 2 else piece)
        return out


class PromptBuilder:
    """Builds the prompts of one model.

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
        self._think_close = self._thinking_tag()
        self._encoded: OrderedDict[tuple[str, str], _Encoded] = OrderedDict()
        self._held = 0
        if recipe.mode == "trained":
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
        return len(self._encode(text, "word").tokens.ids)

    def overhead(self, title: str | None, index: int = 1000) -> int:
        """Tokens that a passage's label costs, its own text not counted."""
        wording = self.recipe.document.replace("{text}", "").replace("{title}", "")
        wording = wording.replace("{index}", str(index)).replace("{id}", "")
        return len(self.tokenizer.encode_template(wording)) + self.count(title or "") + 4

    def build(
        self,
        messages: Sequence[Mapping[str, str]],
        passages: Sequence[Passage],
        params: GenerationParams,
    ) -> Prompt:
        """Builds the prompt of a conversation over passages.

        Args:
            messages: ``{"role": ..., "content": ...}``, the last one from the user (or a tool).
            passages: What the model may read and quote; they stand in the first user message.
            params: The caller's settings.

        Raises:
            TokenizerError: The chat template, or a text, can't be handled exactly.
            ValueError: The messages aren't a conversation that ends with a question.
        """
        settings = params.over(self.recipe.sampling).over(
            {"prior": self.recipe.prior, "prior_weight": self.recipe.prior_weight, **BASE}
        )
        turns = _checked(messages)
        if settings.scope == "prompt":
            passages = [*passages, *_message_passages(turns)]
        suffix = self._free_suffix(passages)
        fields = _Fields(_free_mark([m["content"] for m in turns], passages))
        content = self._contents(turns, passages, fields, suffix, settings)
        rendered = self._render(content, fields)
        ids, places = self._encode_pieces(fields.split(rendered), str(settings.boundary))
        question = next(m["content"] for m in reversed(turns) if m["role"] == "user")
        return self._assemble(ids, places, passages, question, settings, suffix)

    # wording

    def _contents(
        self,
        turns: Sequence[Mapping[str, str]],
        passages: Sequence[Passage],
        fields: _Fields,
        suffix: str,
        settings: GenerationParams,
    ) -> list[dict[str, str]]:
        """The turns with wording in place and placeholders for everything untrusted."""
        system = self._system_text(suffix) if settings.recall_in != "none" else ""
        given = [m for m in turns if m["role"] == "system"]
        pieces = [p for p in (system, *(fields.put(m["content"]) for m in given)) if p]
        out = [{"role": "system", "content": "\n\n".join(pieces)}] if pieces else []
        asked = False
        last = max(i for i, m in enumerate(turns) if m["role"] == "user")
        in_scope = settings.scope == "prompt"
        numbers = iter(range(len(passages)))
        if in_scope:
            passages = [p for p in passages if not p.document_id.startswith("message:")]
        for number, turn in enumerate(turns):
            if turn["role"] == "system":
                continue
            text = turn["content"]
            if turn["role"] == "user":
                first, asked = not asked, True
                content = self._user_content(
                    text, passages if first else (), fields, numbers, in_scope, number == last
                )
            else:
                content = fields.put(text)
            out.append({"role": turn["role"], "content": content})
        return out

    def _user_content(
        self,
        text: str,
        passages: Sequence[Passage],
        fields: _Fields,
        numbers: Iterator[int],
        in_scope: bool,
        last: bool,
    ) -> str:
        layout = self.recipe.layout
        before = layout != "question-last" and bool(passages)
        after = layout != "question-first" or not passages
        asked = []
        head = self.recipe.question.replace("{question}", fields.put(text)) if before else ""
        documents = self._documents(passages, fields, numbers) if passages else ""
        if after:
            number = next(numbers) if in_scope else None
            asked.append(self.recipe.question.replace("{question}", fields.put(text, number)))
        elif in_scope:
            next(numbers)
        return "".join([head + "\n\n" if head else "", documents, *asked])

    def _documents(
        self, passages: Sequence[Passage], fields: _Fields, numbers: Iterator[int]
    ) -> str:
        out = [self.recipe.documents_open]
        for index, passage in enumerate(passages, start=1):
            number = next(numbers)
            parts = re.split(r"\{(index|title|id|text)\}", self.recipe.document)
            for place, part in enumerate(parts):
                if place % 2 == 0:
                    out.append(part)
                elif part == "index":
                    out.append(str(index))
                elif part == "text":
                    out.append(fields.put(passage.text, number))
                else:
                    label = passage.title if part == "title" else passage.document_id
                    out.append(fields.put(label or ""))
        out.append(self.recipe.documents_close)
        return "".join(out)

    def _system_text(self, suffix: str) -> str:
        marked = replace(
            self.recipe,
            open=_variant(self.recipe.open, suffix),
            close=_variant(self.recipe.close, suffix),
        )
        return marked.system_text()

    def _render(self, content: list[dict[str, str]], fields: _Fields) -> str:
        rendered = _render_tolerant(self.tokenizer, content)
        opening = self.recipe.think_open
        if opening and not rendered.rstrip().endswith(opening):
            rendered += opening if self.recipe.mode == "trained" else opening + "\n"
        return rendered

    # tokens

    def _free_suffix(self, passages: Sequence[Passage]) -> str:
        """The first variant of the marks that stands in no passage; control tokens need none."""
        if self.recipe.mode == "trained":
            return ""
        for number in range(1, 10_000):
            suffix = "" if number == 1 else str(number)
            marks = (_variant(self.recipe.open, suffix), _variant(self.recipe.close, suffix))
            if not any(mark in p.text for mark in marks for p in passages):
                return suffix
        raise TokenizerError("the documents hold every variant of the recall marks")

    def _encode(self, text: str, boundary: str) -> _Encoded:
        key = (boundary, text)
        found = self._encoded.get(key)
        if found is not None:
            self._encoded.move_to_end(key)
            return found
        tokens = self.tokenizer.encode_plain(text)
        found = _Encoded(tokens, *_boundaries(text, tokens, boundary))
        self._encoded[key] = found
        self._held += len(text)
        while self._held > _CACHED_CHARACTERS and len(self._encoded) > 1:
            (_, old), _ = self._encoded.popitem(last=False)
            self._held -= len(old)
        return found

    def _encode_pieces(
        self, pieces: Sequence[str | _Field], boundary: str
    ) -> tuple[Ints32, list[tuple[int, int, _Encoded]]]:
        """All ids, and (passage, first token, encoding) for each passage."""
        arrays: list[Ints32] = []
        places: list[tuple[int, int, _Encoded]] = []
        length = 0
        for piece in pieces:
            if isinstance(piece, str):
                ids = np.array(self.tokenizer.encode_template(piece), dtype=np.int32)
            elif piece.passage is None:
                ids = self.tokenizer.encode_plain(piece.text).ids
            else:
                encoded = self._encode(piece.text, boundary)
                places.append((piece.passage, length, encoded))
                ids = encoded.tokens.ids
            arrays.append(ids)
            length += len(ids)
        return np.concatenate(arrays) if arrays else np.empty(0, np.int32), places

    def _assemble(
        self,
        ids: Ints32,
        places: Sequence[tuple[int, int, _Encoded]],
        passages: Sequence[Passage],
        question: str,
        settings: GenerationParams,
        suffix: str,
    ) -> Prompt:
        runs, bits = _runs(places)
        opened, closed = self._marks(suffix)
        marks = {i for tag in (opened, closed, self._think_close) if tag for i in tag.ids}
        ends = self.tokenizer.eos_ids
        spec = ConstraintSpec(
            prompt_length=len(ids),
            prompt_hash=hash_tokens(ids),
            vocab_size=self.vocab_size,
            runs=tuple((r.first, r.first + len(r.starts)) for r in runs),
            can_start=bits[0],
            can_end=bits[1],
            can_end_hard=bits[2],
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
            prior_weight=1.0 if settings.prior_weight is None else settings.prior_weight,
        )
        prompt = Prompt(
            token_ids=ids,
            passages=tuple(passages),
            runs=runs,
            spec=spec,
            rules=ConstraintRules(spec, build_index(spec, ids)),
            prefix_length=max((first + len(e.tokens.ids) for _, first, e in places), default=0),
            question=question,
            recipe=self.recipe,
            params=settings,
        )
        if settings.prior == "sentences":
            scores = SentencePrior(prompt)("thinking", ())
            spec = replace(spec, prior=scores.astype(np.float32))
            prompt = replace(prompt, spec=spec, rules=ConstraintRules(spec, prompt.rules.index))
        return prompt

    def _never(self, used: set[int]) -> tuple[int, ...]:
        """Control tokens that have no role in an output, and logits beyond the tokenizer."""
        beyond = range(self.tokenizer.vocab_size, self.vocab_size)
        never = (self.tokenizer.control_ids - used) | set(beyond)
        return tuple(sorted(i for i in never if i < self.vocab_size))


class SentencePrior:
    """The tilt ``sentences``: lexical scores of the question over where a span may start.

    While thinking, a start at the beginning of a sentence gets that sentence's score, other starts
    in it much less; the scores are recomputed with the words of what was recalled. In the answer,
    starts within the recalled evidence are preferred.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._cache: dict[tuple[Section, tuple[ClosedSpan, ...]], NDArray[np.float64]] = {}

    def __call__(self, section: Section, spans: tuple[ClosedSpan, ...]) -> NDArray[np.float64]:
        """Returns a log score per run position, runs concatenated."""
        key = (section, spans)
        if key not in self._cache:
            self._cache[key] = self._scores(section, spans)
        return self._cache[key]

    def _scores(self, section: Section, spans: tuple[ClosedSpan, ...]) -> NDArray[np.float64]:
        prompt = self._prompt
        evidence = [
            prompt.locate(run, position, len(span.tokens))
            for span in spans
            for run, position in span.occurrences[:1]
        ]
        if section == "answer" and evidence:
            return self._within(evidence)
        texts = [p.text for p in prompt.passages]
        recalled = tuple(texts[p][a:b] for p, a, b in evidence)
        titles = [p.title for p in prompt.passages]
        ranges = sentence_prior(prompt.question, texts, titles, recalled=recalled)
        out = []
        for run in prompt.runs:
            out.append(_sentence_scores(run, ranges[run.passage], texts[run.passage]))
        return np.concatenate(out) if out else np.empty(0)

    def _within(self, evidence: Sequence[tuple[int, int, int]]) -> NDArray[np.float64]:
        """Prefers starts inside the recalled ranges (passage, start, end)."""
        out = []
        for run in self._prompt.runs:
            inside = np.zeros(len(run.starts), dtype=np.bool_)
            for passage, start, end in evidence:
                if passage == run.passage:
                    inside |= (run.starts >= start - 1) & (run.ends <= end + 1)
            out.append(np.where(inside, 0.0, WITHIN_EVIDENCE))
        return np.concatenate(out) if out else np.empty(0)


def _sentence_scores(
    run: Run, ranges: Sequence[tuple[int, int, float]], text: str
) -> NDArray[np.float64]:
    """A score per token of a run, from the sentence that its first visible character is in."""
    if not ranges:
        return np.full(len(run.starts), NO_SENTENCE)
    begins = np.array([a for a, _, _ in ranges])
    scores = np.array([s for _, _, s in ranges])
    visible = _next_visible(text)[run.starts]
    which = np.clip(np.searchsorted(begins, visible, side="right") - 1, 0, None)
    at_start = visible == begins[which]
    return scores[which] + np.where(at_start, 0.0, WITHIN_SENTENCE)


def _runs(
    places: Sequence[tuple[int, int, _Encoded]],
) -> tuple[tuple[Run, ...], tuple[Bools, Bools, Bools]]:
    """Splits passages at tokens that can't be copied, keeping the bits aligned."""
    runs: list[Run] = []
    bits: list[tuple[Bools, Bools, Bools]] = []
    for passage, first, encoded in places:
        tokens = encoded.tokens
        edges = np.flatnonzero(np.diff(np.concatenate([[0], tokens.copyable.view(np.int8), [0]])))
        for a, b in edges.reshape(-1, 2).tolist():
            runs.append(Run(passage, first + a, tokens.starts[a:b], tokens.ends[a:b]))
            bits.append((encoded.can_start[a:b], encoded.can_end[a:b], encoded.can_end_hard[a:b]))
    none = np.empty(0, dtype=np.bool_)
    if not bits:
        return (), (none, none, none)
    starts, ends, hard = (np.concatenate(column) for column in zip(*bits, strict=True))
    return tuple(runs), (starts, ends, hard)


def _boundaries(text: str, tokens: PlainTokens, boundary: str) -> tuple[Bools, Bools, Bools]:
    """Where a span may begin and end, per token: trimmed, on whole characters and words."""
    count = len(tokens.ids)
    if not count:
        none = np.empty(0, dtype=np.bool_)
        return none, none, none
    characters = grapheme_boundaries(text)
    words = word_boundaries(text) & characters if boundary == "word" else characters
    whole_start = np.ones(count, dtype=np.bool_)
    whole_start[1:] = tokens.starts[1:] >= tokens.ends[:-1]
    whole_end = np.ones(count, dtype=np.bool_)
    whole_end[:-1] = whole_start[1:]
    begins = _next_visible(text)[tokens.starts]
    finishes = _last_visible(text)[tokens.ends]
    can_start = whole_start & (begins < tokens.ends) & words[begins]
    return can_start, whole_end & words[finishes], whole_end & characters[finishes]


def _blank(text: str) -> Bools:
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    table = np.zeros(0x3002, dtype=np.bool_)
    table[_WHITE] = True
    return table[np.minimum(codes, 0x3001)]


def _next_visible(text: str) -> NDArray[np.int64]:
    """For each offset, the first character at or after it that isn't white space."""
    size = len(text)
    at = np.where(_blank(text), size, np.arange(size))
    return np.concatenate([np.minimum.accumulate(at[::-1])[::-1], [size]])


def _last_visible(text: str) -> NDArray[np.int64]:
    """For each offset, one past the last character before it that isn't white space."""
    at = np.where(_blank(text), 0, np.arange(1, len(text) + 1))
    return np.concatenate([[0], np.maximum.accumulate(at)])


def _thinking_budget(settings: GenerationParams) -> int:
    total = settings.max_new_tokens or 1
    spare = min(512, max(1, total // 4))
    default = max(0, total - spare)
    chosen = settings.max_thinking_tokens
    return default if chosen is None else min(chosen, default)


def _variant(mark: str, suffix: str) -> str:
    """``<recall>`` with suffix 2 is ``<recall2>``."""
    return f"{mark[:-1]}{suffix}{mark[-1]}" if suffix else mark


def _free_mark(contents: Sequence[str], passages: Sequence[Passage]) -> str:
    """A placeholder stem that occurs in no text and that no template would change."""
    texts = [*contents, *(p.text for p in passages), *(p.title or "" for p in passages)]
    number = 0
    while True:
        mark = f"RECALLMFIELD{number}X"
        if not any(mark in text for text in texts):
            return mark
        number += 1


def _checked(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The messages, validated; neighbours of one role are merged, as templates want it."""
    out: list[dict[str, str]] = []
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES or not isinstance(content, str):
            raise ValueError(
                f"message {number} must have a role of {_ROLES} and a string content, got role "
                f"{role!r} and {type(content).__name__} content"
            )
        if out and role == out[-1]["role"] and role != "tool":
            out[-1]["content"] += "\n\n" + content
        else:
            out.append({"role": str(role), "content": content})
    if not any(m["role"] == "user" for m in out) or out[-1]["role"] not in ("user", "tool"):
        raise ValueError(
            "a conversation needs a user message and must end with one (or with a tool's), got "
            f"roles {[m['role'] for m in out]}"
        )
    return out


def _message_passages(turns: Sequence[Mapping[str, str]]) -> Iterator[Passage]:
    """The user's messages as quotable passages, for the paper's whole-prompt scope."""
    number = 0
    for turn in turns:
        if turn["role"] == "user":
            text = turn["content"]
            yield Passage(f"message:{number}", 0, len(text), text)
            number += 1


def _render_tolerant(tokenizer: Tokenizer, content: list[dict[str, str]]) -> str:
    """Renders; a template that refuses a system turn gets it inside the first user turn."""
    try:
        return tokenizer.render_chat(content)
    except Exception as error:  # templates raise whatever Jinja lets them
        system = [m for m in content if m["role"] == "system"]
        if not system:
            raise TokenizerError(f"the chat template refuses the conversation: {error}") from error
    rest = [dict(m) for m in content if m["role"] != "system"]
    rest[0]["content"] = system[0]["content"] + "\n\n" + rest[0]["content"]
    try:
        return tokenizer.render_chat(rest)
    except Exception as error:
        raise TokenizerError(f"the chat template refuses the conversation: {error}") from error
