"""What form of answer a question asks for, read off its words; English only.

A question that shows none of these forms asks for one thing, as most do.
"""

from __future__ import annotations

import re

from recallm_core.text.lexical import sentences

_AUXILIARY = re.compile(
    r"(?:(?:and|but|so|then)\s+)?(?:is|are|was|were|am|do|does|did|has|have|had|can|could|will|"
    r"would|shall|should|may|might|must)(?:n['\N{RIGHT SINGLE QUOTATION MARK}]t)?\s",
    re.IGNORECASE,
)
_ASKS_FURTHER = re.compile(r"\b(?:who(?:m|se)?|what|which|when|where|why|how|or)\b", re.IGNORECASE)
_SEVERAL = re.compile(
    r"\b(?:what|which|who|whom|name|list|give)\b"
    r"(?: (?:are|were|the|all|other|main|major|first|last|next|largest|biggest|official)){0,3} "
    r"(?:two|three|four|five|six|seven|[2-7]) (?!\w*(?:hundred|thousand|million))[a-z]",
    re.IGNORECASE,
)
_MEASURE = re.compile(
    r"\bhow (?!many\b|much\b|did\b|do(?:es)?\b|is\b|are\b|was\b|were\b|ha[sd]\b|have\b|can\b|"
    r"could\b|would\b|should\b|to\b)[a-z]+",
    re.IGNORECASE,
)
_DATE = re.compile(r"\bwhen\b|\b(?:what|which) (?:date|day)\b", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:years?|months?|centur(?:y|ies)|decades?)\b", re.IGNORECASE)
_ONE_END = re.compile(
    r"\b(?:when|years?|born|birth|die[ds]?|death|begin|began|start(?:ed|s)?|first|last|until|"
    r"end(?:ed|s)?|min\w*|max\w*|at (?:least|most))\b",
    re.IGNORECASE,
)


_ACCOUNT = re.compile(
    r"\b(?:why|how come|how (?:do|does|did|is|are|was|were|can|could|should|would|to)|explain|"
    r"describe|summari[sz]e|compare|discuss|outline|elaborate|(?:what|which) (?:is|are|was|were) "
    r"the (?:differences?|reasons|causes|effects|consequences)|tell me (?:more )?about)\b",
    re.IGNORECASE,
)


_LIST = re.compile(
    r"\ball(?: of)? (?:the|its|their|his|her|these|those)\b|"
    r"^\W*(?:please )?(?:list|enumerate|(?:find|name|give) (?:all|every|each))\b|"
    r"\b(?:what|which|who) (?:are|were) the (?:top |first |last )?(?:\d{2,}|[2-9]) ",
    re.IGNORECASE,
)


_TWICE = re.compile(
    r"\band (?:(?:by|in|from|at|to|for|on|of|with) )?"
    r"(?:when|where|who(?:m|se)?|what|which|why|how)\b",
    re.IGNORECASE,
)


def asks_for_a_list(question: str) -> bool:
    """Whether more than one thing is asked for.

    Everything of a kind ("List all the tools."), so many things, or one and another ("Who built it
    and when?").
    """
    last = _last_sentence(question)
    return bool(_LIST.search(last) or _TWICE.search(last)) or asks_for_several(question)


def asks_for_an_account(question: str) -> bool:
    """Whether the last sentence of a question wants to be told how or why: more than a phrase."""
    return bool(_ACCOUNT.search(_last_sentence(question)))


def asks_for_more_than_a_phrase(question: str) -> bool:
    """Whether one phrase can't be the answer: several things or an account are asked for."""
    return asks_for_a_list(question) or asks_for_an_account(question)


def asks_yes_or_no(question: str) -> bool:
    """Whether the last sentence of a question can be answered with yes or no.

    It begins with an auxiliary verb ("Is it open on Mondays?"), and asks neither for one of several
    things ("Is it red or blue?") nor for something else ("Can you tell me when it opens?").
    """
    last = _last_sentence(question)
    return bool(_AUXILIARY.match(last)) and not _ASKS_FURTHER.search(last)


def _last_sentence(question: str) -> str:
    bounds = sentences(question)
    return question[slice(*bounds[-1])] if bounds else ""


def asks_for_several(question: str) -> bool:
    """Whether a question asks for a number of things: "Which three colours are on it?"."""
    return bool(_SEVERAL.search(question))


def asks_for_a_measure(question: str) -> bool:
    """Whether a size, an age or a duration is asked for: "How deep is the lake?"."""
    return bool(_MEASURE.search(question))


def asks_for_a_date(question: str) -> bool:
    """Whether a date is asked for, and not the year or the month of it."""
    return bool(_DATE.search(question)) and not _YEAR.search(question)


def asks_for_one_end(question: str) -> bool:
    """Whether the beginning or the end of a range may be the answer: "When was she born?"."""
    return bool(_ONE_END.search(question))
