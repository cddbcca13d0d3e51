"""The part of a sentence that a statement rests on."""

from __future__ import annotations

import pytest
from hypothesis import given

from recallm_core.pointing.narrowing import narrow
from recallm_core.text.lexical import terms
from tests.pointing.conftest import TEXTS

LONG = (
    "The ferry leaves Port Hallow at 9:30, every day of the year; it carries up to forty "
    "passengers, and a ticket costs 14 euros."
)


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("It leaves at 9:30.", "The ferry leaves Port Hallow at 9:30"),
        ("14 euros", "and a ticket costs 14 euros."),
        ("Forty people may come.", "it carries up to forty passengers"),
        ("A ferry ticket costs 14 euros.", LONG),
        ("Something else entirely.", LONG),
        ("", LONG),
    ],
)
def test_it_is_the_clauses_that_hold_what_is_shared(statement: str, part: str) -> None:
    start, end = narrow(LONG, statement)
    assert (LONG[start:end].removesuffix(";") or None) == part


@pytest.mark.parametrize(
    "sentence",
    [
        "The ferry leaves Port Hallow at 9:30 in the morning, but only from April until October.",
        "It isn't the case, whatever the old timetable of the island says, that it leaves at 9:30.",
        "The ferry leaves Port Hallow at 9:30 in the morning, unless the wind is above 40 knots.",
        "The ferry (the Saint Anne, built in 1932, leaves at 9:30) is the oldest one on the lake.",
        "She said: \u201cThe ferry leaves at 9:30, I believe, and later\u201d, he wrote.",
        "\u041f\u0430\u0440\u043e\u043c \u043e\u0442\u0445\u043e\u0434\u0438\u0442 \u0432 9:30, "
        "\u0435\u0441\u043b\u0438 \u043d\u0435\u0442 \u0432\u0435\u0442\u0440\u0430, "
        "\u043a\u0430\u0436\u0434\u044b\u0439 \u0434\u0435\u043d\u044c \u0433\u043e\u0434\u0430, "
        "\u043a\u0440\u043e\u043c\u0435 \u0441\u0443\u0431\u0431\u043e\u0442\u044b.",
        "The ferry leaves, and it does so at 9:30.",
    ],
)  # fmt: skip
def test_what_limits_a_sentence_is_never_cut_off(sentence: str) -> None:
    assert narrow(sentence, "9:30") == (0, len(sentence))


@given(TEXTS, TEXTS)
def test_what_is_cut_off_shares_no_content_word(sentence: str, statement: str) -> None:
    start, end = narrow(sentence, statement)
    assert 0 <= start <= end <= len(sentence)
    inside = sentence[start:end]
    assert start == end or (start, end) == (0, len(sentence)) or inside == inside.strip()
    shared = set(terms(statement)) & set(terms(sentence))
    for outside in (sentence[:start], sentence[end:]):
        assert not shared.intersection(terms(outside))
