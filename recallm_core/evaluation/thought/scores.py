"""What became of a value: right, another entry's, cut, garbled, invented, or none at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rapidfuzz.distance import Levenshtein

from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.items import Item

RIGHT, OTHER, CUT, GARBLED, INVENTED, NONE = (
    "right",
    "another entry's",
    "cut",
    "garbled",
    "invented",
    "none",
)
KINDS = (RIGHT, OTHER, CUT, GARBLED, INVENTED, NONE)
_CODE = re.compile(r"(?=[a-zA-Z]*\d)(?=\d*[a-zA-Z])[a-zA-Z0-9]{5,}")
_NEAR = 2  # edits that still make a garbled copy
_DECLINED = re.compile(
    r"\b(?:not|no|isn't|doesn't|don't|cannot|can't)\b.{0,60}\b(?:say|contain|hold|key|value|entry|"
    r"list|found|present|exist|there)",
    re.IGNORECASE | re.DOTALL,
)


def values_of(item: Item) -> tuple[str, ...]:
    """Returns the values that stand in a sample's dictionary."""
    codes = (code for d in item.documents for code in re.findall(r"[a-zA-Z0-9]{10}", d.text))
    return tuple(code for code in codes if _CODE.fullmatch(code))


def kind_of(candidate: str, gold: str, values: Sequence[str]) -> str:
    """Returns what a code in an answer is."""
    if candidate == gold:
        return RIGHT
    if candidate in values:
        return OTHER
    known = [gold, *values] if gold else list(values)
    if any(candidate in value for value in known):
        return CUT
    near = any(Levenshtein.distance(candidate, v, score_cutoff=_NEAR) <= _NEAR for v in known)
    return GARBLED if near else INVENTED


def kind(text: str, gold: str, values: Sequence[str]) -> str:
    """Returns what the first code of a text is."""
    match = _CODE.search(text)
    return kind_of(match.group(), gold, values) if match else NONE


def worst(texts: Iterable[str], gold: str, values: Sequence[str]) -> str:
    """Returns the worst of all codes in some texts: invented before garbled, and so on."""
    kinds = {kind_of(code, gold, values) for text in texts for code in _CODE.findall(text)}
    order = (INVENTED, GARBLED, CUT, OTHER, RIGHT)
    return next((name for name in order if name in kinds), NONE)


def answer_scores(item: Item, answer: AnswerRecord) -> dict[str, float]:
    """Returns the figures of an answer.

    ``score``: the first code that a user reads is the right value. ``quoted``: a span holds it.
    ``key``: the text states the key. ``wrong_quotes``: a span has a garbled or invented code, which
    the mask rules out; ``is ...`` says what the code is that a user reads.
    """
    gold = item.answers[0] if item.answers else ""
    values = values_of(item)
    answer_kind = kind(answer.text, gold, values)
    quoted = worst(answer.quoted, gold, values)
    number = str(item.more()["facts"]["key"])
    stated = re.search(rf"(?<![\d-]){re.escape(number)}(?!\d)", answer.text)
    figures = {
        "quoted": float(bool(gold) and any(gold in text for text in answer.quoted)),
        "key": float(stated is not None),
        "declined": float(bool(answer.abstained) or is_refusal(answer.text)),
        "wrong_quotes": float(quoted in (GARBLED, INVENTED)),
        "truncated": float(answer.finish_reason == "length"),
        **{f"is {name}": float(answer_kind == name) for name in KINDS},
    }
    return ({"score": float(answer_kind == RIGHT)} if gold else {}) | figures


def is_refusal(text: str) -> bool:
    """Whether a text says that the value isn't there."""
    return _CODE.search(text) is None and _DECLINED.search(text) is not None
