"""The reader says where it doesn't know a language, and then gives way to words and the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core import Document, RecaLLM
from recallm_core.answers.abstention import evidence_support
from recallm_core.answers.trace import Trace
from recallm_core.decoding.constraint import ClosedSpan
from recallm_core.evidence.letter_scores import LetterScores
from recallm_core.evidence.reader import default_reader
from recallm_core.evidence.reader_bias import ReaderScorer
from recallm_core.evidence.reader_languages import LanguageGate, language_of
from recallm_core.evidence.sentence_bias import ends_amid, starts_amid
from recallm_core.evidence.sentence_scorer import SentenceScorer, log_softmax
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.retrieval.embedding import default_embedder
from recallm_core.testing import ByteTokenizer, ScriptedBackend

ENGLISH = "The ferry to Skerry leaves at 9:30. It takes two hours. Ann Lee runs the harbour."
FOREIGN = {
    "es": "El ferry a Skerry sale a las 9:30 de la mañana. El viaje dura dos horas.",
    "de": "Die Fähre nach Skerry fährt um 9:30 Uhr ab. Die Fahrt dauert zwei Stunden und ist lang.",
    "fr": "Le ferry pour Skerry part à 9 h 30 du matin. Le trajet dure deux heures.",
    "it": "Il traghetto per Skerry parte alle 9:30 del mattino. Il viaggio dura due ore.",
    "pt": "O barco para Skerry sai às 9:30 da manhã. A viagem dura duas horas e é bonita.",
    "nl": "De veerboot naar Skerry vertrekt om 9:30 uur. Het is een reis van twee uur.",
    "zh": "开往斯凯里的渡轮九点三十分出发。航程两个小时。",
    "ar": "تغادر العبارة في الساعة التاسعة والنصف. تستغرق الرحلة ساعتين.",
    "ru": "Паром отправляется в половине десятого. Дорога занимает два часа.",
    "hi": "नौका साढ़े नौ बजे निकलती है। यात्रा दो घंटे की है।",
}
READABLE = [
    ENGLISH,
    "",
    "42",
    "9:30",
    "When does the ferry leave?",
    "Who wrote Don Quijote de la Mancha?",
    "Where is Los Angeles?",
    "port: 8443",
    "def total(de, la): return de + la",
    "0b9c6d1e-d3a4-4e2f-8a7b-5c6d7e8f9a0b",
    "def f(x):\n    return x * x  # the square of a number",
    "naïve café in São Paulo",
]


@pytest.fixture(scope="module")
def gate() -> LanguageGate:
    return LanguageGate(default_reader().tokenizer)


@pytest.mark.parametrize("text", READABLE)
def test_english_names_numbers_and_code_are_readable(gate, text):
    assert gate.reads(text)


@pytest.mark.parametrize("language", FOREIGN)
def test_other_languages_are_not(gate, language):
    assert not gate.reads(FOREIGN[language])


def test_short_questions_in_other_languages_are_not(gate):
    for question in (
        "¿Qué cantó Lady Gaga?",
        "Wo ist der Hafen?",
        "Où est le port ?",
        "港口在哪？",
    ):
        assert not gate.reads(question)


@pytest.mark.parametrize("language", FOREIGN)
def test_a_language_is_told_by_script_and_small_words(language):
    assert language_of(FOREIGN[language]) == language


def test_a_language_that_nothing_speaks_for_is_english_or_unknown():
    assert {language_of(text) for text in READABLE} == {"en"}
    assert language_of("フェリーは何時に出発しますか。") == "ja"
    assert language_of("페리는 언제 출발합니까?") == "ko"
    assert language_of("Πότε φεύγει το πλοίο;") == ""


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_is_judged(text):
    gate = LanguageGate(default_reader().tokenizer)
    assert gate.reads(text) in (True, False)
    assert gate.reads(text) == gate.reads(text)


def scorers(texts):
    plain = SentenceScorer(texts, None, default_embedder())
    return plain, ReaderScorer(plain, default_reader(), texts, [None] * len(texts))


@pytest.mark.parametrize("language", FOREIGN)
def test_unread_texts_are_scored_without_a_reader(language):
    text = FOREIGN[language]
    plain, read = scorers([text])
    question = text.split(".")[0].split("。")[0] + "?"
    letters = LetterScores([[text[a:b] for a, b in plain.spans[0]]])
    totals = letters.totals(question, plain.totals(question))
    assert np.array_equal(read.scores(question), log_softmax(totals))
    assert read.readings(question) == []
    assert not read.knows(question)


def test_an_english_question_is_read_as_before():
    _, read = scorers([ENGLISH, "Cats sleep all day in the sun."])
    assert len(read.readings("When does the ferry leave?")) == 2
    assert read.knows("When does the ferry leave?")


def test_beside_english_a_foreign_text_is_even_and_nothing_is_ruled_out():
    _, read = scorers(["Cats sleep all day in the sun. Dogs bark.", FOREIGN["es"]])
    question = "When does the ferry to Skerry leave?"
    assert len(read.readings(question)) == 1
    assert not read.knows(question)
    assert int(read.scores(question).argmax()) == 2


def prepared(text, question):
    backend = ScriptedBackend(tokenizer=ByteTokenizer())
    recipe = trained_recipe(system="{open}{close}")
    llm = RecaLLM(backend.tokenizer, backend, recipe)
    asked = [{"role": "user", "content": question}]
    return llm.prepare(asked, [Document(text, "1")], prior="reader")[0]


@pytest.mark.parametrize(("text", "known"), [(ENGLISH, True), (FOREIGN["ar"], False)])
def test_abstention_is_decided_only_by_a_reader_that_knows_the_text(text, known):
    prompt = prepared(text, text[:30] + "?")
    fit = evidence_support(prompt, Trace())
    assert (fit is not None) == known


def test_in_an_unread_answer_no_end_is_preferred():
    prompt = prepared(FOREIGN["zh"], "渡轮几点出发？")
    run = prompt.runs[0]
    tokens = tuple(prompt.token_ids[run.first : run.first + len(run.starts)].tolist())
    span = ClosedSpan(tokens, ((0, 0),), "thinking")
    bias = prompt.evidence.bias("answer", (span,))
    amid = ends_amid(FOREIGN["zh"], run)
    assert 0 < amid.sum() < len(amid)
    assert not bias.end_log_odds[~amid].any()
    assert (bias.end_log_odds[amid] < 0).all()
    assert np.isfinite(bias.start_scores).all()
    assert np.ptp(bias.start_scores[~starts_amid(FOREIGN["zh"], run)]) == 0
