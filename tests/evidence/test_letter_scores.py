"""Sentences are scored by letters in any language, and words may bend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.evidence.letter_scores import LetterScores, letter_pieces

PASSAGES = st.lists(st.lists(st.text(max_size=30), max_size=5), max_size=4)
BENT = {
    "ar": ("متى يصل القطار؟", ["بنيت المحطة قديما.", "وصلت عربات قطارات كثيرة."]),
    "ru": ("Когда придёт паромом груз?", ["Мост был длинным.", "Грузы идут на пароме."]),
    "de": ("Wer baute Brücken?", ["Es war kalt.", "Die Brückenbauer kamen aus Bern."]),
    "es": ("¿Quién construyó la línea?", ["Hacía frío.", "Las líneas las construyeron ellos."]),
    "zh": ("谁造了桥？", ["那里很冷。", "桥是他们造的。"]),
}


@given(PASSAGES, st.text(max_size=30))
def test_any_texts_get_a_finite_score_for_each_sentence(passages, question):
    count = sum(map(len, passages))
    totals = LetterScores(passages).totals(question, np.zeros(count))
    assert totals.shape == (count,)
    assert np.isfinite(totals).all()
    assert (totals >= 0).all()


@given(st.text(max_size=60))
def test_pieces_are_short_and_know_no_case(text):
    assert all(1 <= len(piece) <= 5 for piece in letter_pieces(text))
    assert letter_pieces(text.casefold()) == letter_pieces(text)


@pytest.mark.parametrize("language", BENT)
def test_words_that_are_bent_agree(language):
    question, sentences = BENT[language]
    totals = LetterScores([sentences]).totals(question, np.zeros(2))
    assert totals.argmax() == 1


def test_accents_and_case_are_passed_over():
    assert letter_pieces("LÍNEA") == letter_pieces("linea")


def test_a_sentence_profits_from_its_neighbours_and_its_passage():
    passages = [["A cold day.", "The bridge at Bern.", "It is long."], ["It is long."]]
    totals = LetterScores(passages).totals("Bern bridge", np.zeros(4))
    assert totals[1] > totals[2] == totals[0] > totals[3] == 0


def test_a_sentence_that_was_recalled_takes_nothing_from_others():
    letters = LetterScores([["It was cold.", "The bridge at Bern.", "It is long."]])
    fresh, recalled = (letters.totals("x", np.array([1.0, points, 1.0])) for points in (0, -10.0))
    assert recalled[1] < fresh[1]
    assert recalled[[0, 2]].tolist() == fresh[[0, 2]].tolist()
