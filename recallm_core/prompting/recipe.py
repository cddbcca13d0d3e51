"""How one model wants to be driven: marks, wording, layout, defaults; saved beside its weights."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from recallm_core.errors import CheckpointError
from recallm_core.evidence.registry import PRIORS
from recallm_core.inputs.arguments import MOST_TOKENS
from recallm_core.prompting.params import GenerationParams, Owed, PriorName

FILE = "recallm.json"
VERSION = 1
_MAX_BYTES = 1_000_000

Mode = Literal["trained", "prompted"]

_CHOICES = {
    "mode": ("trained", "prompted"),
    "layout": ("question-last", "question-first", "both"),
    "prior": PRIORS,
    "evidence": ("auto", "required", "first", "free"),
}

SYSTEM_TRAINED = """\
You are a careful reasoner. You have one tool, recall: it looks back into the documents and copies \
a passage from them exactly.

First restate what is asked. Then reason step by step. Whenever a step rests on something that \
the documents say, don't trust your memory: open a recall span with {open}, copy the words that \
matter, close it with {close}, and go on from what you copied. Recall only passages that bear on \
the question. If two passages disagree, or a step turns out wrong, say so, go back and try \
another way. Check the result against what you recalled before you finish. If the documents don't \
hold the answer, say that they don't.

Do all of this inside the thinking block. After it, justify the answer in a sentence or two, and \
end with one line that begins with "Answer:"."""

SYSTEM_PROMPTED = """\
Answer the question from the documents. First quote the sentence that holds the answer, between \
{open} and {close}. Then write the answer itself in a few words. If the documents don't hold it, \
write: {abstain}"""

ABSTAIN = "The documents don't say."
LEAD_IN = "\n\nShort answer:"
IN_MARKS = ('\n\nShort answer: "', '"')
"""``lead_in`` and ``lead_out`` of models that end what they began with a quotation mark."""

JSON_ANSWER = "\n\nGive the answer as one JSON value that fits this schema:\n{schema}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a model that isn't in its weights or tokenizer.

    Wording fields are trusted: control tokens in them are recognised. What stands in braces is
    filled with plain text.

    Attributes:
        mode: ``trained``: the marks are control tokens that the model emits by itself;
            ``prompted``: they are text that the prompt asks for.
        open, close: The marks around a recall span.
        think_open, think_close: The marks around thinking; empty when the model doesn't think.
        system: System prompt; ``{open}``, ``{close}`` and ``{abstain}`` are filled in.
        document: One passage with its label; must hold ``{text}`` once, may hold ``{index}``,
            ``{title}`` and ``{id}``.
        documents_open, documents_close: Around all passages.
        question: The question; must hold ``{question}`` once.
        layout: Where the question stands; last by default, so that a prefix can be cached.
        answer_prefix: The model begins its final line with this; it isn't part of the answer text.
        evidence: What an output owes before it may end (``GenerationParams.evidence``). ``auto``:
            ``free`` for trained models, ``required`` for prompted ones.
        lead_in: What stands, forced, between the evidence and the words of an answer. Where it
            (or ``IN_MARKS``) and ``abstain`` are as they are here, a question in another language
            has them in its own (``phrases``).
        lead_out: The mark that ends the words of an answer where ``lead_in`` ends with one that
            opens them (a quotation mark): a small model then stops where they do. Words that are
            set in such marks inside an answer don't end it. Empty: the model ends it by itself.
        answer_weight: How strongly the words behind the evidence (of a trained model: behind
            ``answer_prefix``) are drawn to those pieces of it that ``prior`` takes for the answer,
            where it does (``reader``); they stay the model's own, and no word becomes illegal. 0:
            not at all.
        call_open, call_close: The marks around a tool call.
        abstain: What the model says when the documents hold no answer; the first is suggested to
            it, all are recognised.
        prior: What scores the evidence, and so tilts where a span starts: ``none``, ``sentences``
            (by words and meaning) or ``reader`` (by an encoder that reads the likeliest passages),
            recomputed after each recall.
        prior_weight: Strength of the tilt.
        min_support: Where what was recalled while thinking fits the question less than this, the
            answer counts as abstained; for the prior ``sentences``, in the points of
            ``sentence_scorer.support``, from 0 to 2: twice ``Answer.support``.
        min_answerable: The same for all other priors: the least ``Evidence.fit``. With ``reader``,
            that is the probability that the documents hold an answer.
        pack_tokens: Tokens of documents that the model is given at most, though its context holds
            more: longer documents are searched, and the best passages of so many tokens packed.
            Small models answer worse from a full context than from less, and read it for longer.
            0: as many as the context holds.
        sampling: Defaults for GenerationParams, by field name.
        advice: One line for people: what the model is good for, and what to use instead.
    """

    mode: Mode = "prompted"
    open: str = "<recall>"
    close: str = "</recall>"
    think_open: str = ""
    think_close: str = ""
    system: str = SYSTEM_PROMPTED
    document: str = '<document index="{index}" title="{title}">\n{text}\n</document>\n'
    documents_open: str = ""
    documents_close: str = "\n"
    question: str = "Question: {question}"
    layout: Literal["question-last", "question-first", "both"] = "question-last"
    answer_prefix: str = "Answer:"
    evidence: Literal["auto", "required", "first", "free"] = "auto"
    lead_in: str = LEAD_IN
    lead_out: str = ""
    answer_weight: float = 0.0
    call_open: str = "<tool_call>"
    call_close: str = "</tool_call>"
    abstain: tuple[str, ...] = (ABSTAIN,)
    prior: PriorName = "none"
    prior_weight: float = 1.0
    min_support: float = 0.0
    min_answerable: float = 0.0
    pack_tokens: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""
    version: int = VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling", dict(self.sampling))
        for name in ("mode", "layout", "prior", "evidence"):
            value, choices = getattr(self, name), _CHOICES[name]
            _require(value in choices, name, f"one of {choices}", value)
        for name, filled in (("document", "{text}"), ("question", "{question}")):
            value = getattr(self, name)
            _require(value.count(filled) == 1, name, f"wording with {filled} once", value)
        for value in (getattr(self, f.name) for f in fields(self) if f.type == "str"):
            _require(_encodable(value), "wording", "text without lone surrogates", ascii(value))
        self._check_marks()
        phrases = self.abstain
        sayable = bool(phrases) and all(_encodable(p) and p.strip(" .!\n\t") for p in phrases)
        _require(sayable, "abstain", "one or more phrases with words in them", phrases)
        _require(bool(self.lead_in), "lead_in", "text between evidence and answer", self.lead_in)
        ending = self.lead_out
        is_mark = not ending or (len(ending) == 1 and ending in string.punctuation)
        _require(is_mark, "lead_out", "one ASCII mark of punctuation, or empty", ending)
        for name, most in (("prior_weight", 1000), ("answer_weight", 100)):
            weight = getattr(self, name)
            _require(0 <= weight <= most, name, f"a number in [0, {most}]", weight)
        fit = self.min_answerable
        _require(0 <= fit <= 1, "min_answerable", "a probability", fit)
        limit = self.pack_tokens
        bounded = 0 <= limit <= MOST_TOKENS
        _require(bounded, "pack_tokens", "a number of tokens; 0: what the context holds", limit)
        try:
            GenerationParams().over(self.sampling)
        except ValueError as error:
            raise CheckpointError(f"recipe field sampling: {error}") from error

    def _check_marks(self) -> None:
        marks = (self.open, self.close)
        apart = all(marks) and marks[0] not in marks[1] and marks[1] not in marks[0]
        _require(apart, "open/close", "two marks, neither part of the other", marks)
        thinking = (self.think_open, self.think_close)
        paired = not self.think_open or bool(self.think_close)
        _require(paired, "think_close", "set where think_open is", thinking)
        _require(self.think_close not in marks, "think_close", "another mark", thinking)
        if self.mode == "prompted":
            named = "{open}" in self.system and "{close}" in self.system
            _require(named, "system", "wording with {open} and {close}: they vary", self.system)

    @property
    def imitations(self) -> tuple[str, ...]:
        """What small models write after their evidence, by its example: a mark but for its end.

        The whole marks can't stand there. Trained models' are control tokens, which no text is.
        """
        marks = (self.open, self.close) if self.mode == "prompted" else ()
        return tuple(mark[:-1] for mark in marks if len(mark) > 3)

    @property
    def thinks(self) -> bool:
        """Whether the model thinks before it answers."""
        return bool(self.think_close)

    @property
    def policy(self) -> Owed:
        """What an output owes where the caller says nothing else."""
        if self.evidence != "auto":
            return self.evidence
        return "free" if self.mode == "trained" else "required"

    def system_text(self) -> str:
        """The system prompt with the marks filled in."""
        return (
            self.system.replace("{open}", self.open)
            .replace("{close}", self.close)
            .replace("{abstain}", self.abstain[0])
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain JSON values; ``from_dict`` takes them back."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {"abstain": list(self.abstain), "sampling": dict(self.sampling)}

    def save(self, folder: str | Path) -> None:
        """Writes the recipe into a model folder."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        (Path(folder) / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Recipe | None:
        """Reads the recipe of a model folder; None when it has none.

        Raises:
            CheckpointError: The file isn't a recipe of this version.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{FILE} is over {_MAX_BYTES:,} bytes: not a recipe")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{FILE} isn't valid JSON: {error}") from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Recipe:
        """Builds a recipe from plain values, checking each.

        Raises:
            CheckpointError: Unknown version or field, or a value of the wrong type.
        """
        version = data.get("version", VERSION) if isinstance(data, dict) else None
        if type(version) is not int or version != VERSION:
            raise CheckpointError(
                f"{FILE} must be an object with version {VERSION}; save the model again with "
                "recallm model create of this release"
            )
        known = {f.name: f for f in fields(cls)}
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise CheckpointError(f"{FILE} has unknown fields {unknown}; known: {sorted(known)}")
        values = {name: _field_value(name, known[name].type, value) for name, value in data.items()}
        return cls(**values)


def _field_value(name: str, kind: Any, value: Any) -> Any:
    """A plain value as the field wants it; field types are strings here."""
    if name == "abstain":
        strings = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        _require(strings, name, "a list of strings", value)
        return tuple(value)
    if name == "sampling":
        _require(isinstance(value, Mapping), name, "an object", value)
        return value
    types: Any = {"float": (int, float), "int": int}.get(kind, str)
    _require(isinstance(value, types) and not isinstance(value, bool), name, f"a {kind}", value)
    return value


def _encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _require(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise CheckpointError(f"recipe field {name} must be {expected}, got {str(got)[:80]!r}")


def trained_recipe(**changes: Any) -> Recipe:
    """The recipe of the paper's checkpoints, for a model that was trained with the four tokens."""
    return replace(
        Recipe(
            mode="trained",
            open="<|start_recall|>",
            close="<|end_recall|>",
            think_open="<think>",
            think_close="</think>",
            system=SYSTEM_TRAINED,
        ),
        **changes,
    )


def prompted_recipe(**changes: Any) -> Recipe:
    """The recipe of a model that was never trained to quote.

    Such models open no quote by themselves. Measured on held-out questions with three models of
    0.1 to 0.5 billion weights (``recallm eval cited``), they do best with one plain sentence of
    instruction, the evidence first, whole sentences as quotes, and the evidence reader to point at
    them. Below the least probability of an answer, the reader is right in 60 of 100 questions of
    Natural Questions whose paragraph was removed, and wrong in 4 of 100 whose paragraph was there;
    on SQuAD 2.0 in 98 and 2. The words of an answer begin inside quotation marks and end with them:
    else models of half a billion weights repeat a whole sentence, or go on explaining.
    """
    base = Recipe(
        evidence="first",
        lead_in=IN_MARKS[0],
        lead_out=IN_MARKS[1],
        prior="reader",
        min_answerable=0.01,
        sampling={"boundary": "sentence"},
    )
    return replace(base, **changes)
