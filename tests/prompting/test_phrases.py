"""What a prompted model is given to say is said in the language of the question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.prompting.phrases import PHRASES, for_question, in_language_of
from recallm_core.prompting.recipe import (
    ABSTAIN,
    IN_MARKS,
    LEAD_IN,
    Recipe,
    prompted_recipe,
    trained_recipe,
)
from recallm_core.testing import ByteTokenizer, scripted_llm

QUESTIONS = {
    "ar": "متى يغادر القطار؟",
    "de": "Wann fährt der Zug ab und wo ist das Gleis?",
    "es": "¿Cuándo sale el tren?",
    "fr": "Quand part le train et où est le quai ?",
    "hi": "नौका कब निकलती है?",
    "it": "Quando parte il treno e dove è il binario?",
    "ja": "電車はいつ出ますか。",
    "ko": "기차는 언제 떠납니까?",
    "nl": "Wanneer vertrekt de trein en waar is het perron?",
    "pt": "Quando sai o trem e onde é a estação da cidade?",
    "ru": "Когда отправляется поезд?",
    "zh": "火车几点开？",
}


def test_every_language_is_tried() -> None:
    assert QUESTIONS.keys() == PHRASES.keys()


@pytest.mark.parametrize("language", QUESTIONS)
def test_a_question_has_its_own_phrases(language: str) -> None:
    recipe = in_language_of(QUESTIONS[language], Recipe())
    lead_in, none = PHRASES[language]
    assert recipe.lead_in == f"\n\n{lead_in}"
    assert recipe.abstain == (none, ABSTAIN)
    assert none in recipe.system_text()
    assert ABSTAIN not in recipe.system_text()


@pytest.mark.parametrize("language", QUESTIONS)
def test_only_english_answers_begin_inside_marks(language: str) -> None:
    recipe = in_language_of(QUESTIONS[language], prompted_recipe())
    assert (recipe.lead_in, recipe.lead_out) == (f"\n\n{PHRASES[language][0]}", "")


@given(st.sampled_from([*QUESTIONS.values(), "When?", ""]))
def test_phrases_of_a_recipe_are_kept(question: str) -> None:
    own = Recipe(lead_in="\n\nSo:", abstain=("Nothing.",))
    assert in_language_of(question, own) == own
    trained = trained_recipe()
    assert in_language_of(question, trained) is trained


@pytest.mark.parametrize("question", ["When does the train leave?", "Πότε φεύγει το τρένο;", "42"])
def test_english_and_unknown_languages_keep_the_english_ones(question: str) -> None:
    recipe = prompted_recipe()
    assert in_language_of(question, recipe) is recipe


@pytest.mark.parametrize("language", QUESTIONS)
@pytest.mark.parametrize("english", [False, True])
def test_a_model_that_says_there_is_none_is_believed_in_both(language: str, english: bool) -> None:
    none = ABSTAIN if english else PHRASES[language][1]
    tokenizer = ByteTokenizer((none.rstrip("."),))
    llm = scripted_llm(none, recipe=Recipe(evidence="required"), tokenizer=tokenizer)
    answer = llm.answer(QUESTIONS[language], ["The pier is long."])
    assert answer.abstained
    assert answer.text == PHRASES[language][1]
    assert not answer.citations


@pytest.mark.parametrize(
    ("question", "in_marks"),
    [
        ("When does the ferry leave?", True),
        ("Does the ferry leave at nine?", True),
        ("List the ferries.", False),
        ("Who built the pier and when?", False),
        ("Why was the pier built?", False),
    ],
)
def test_only_an_answer_of_one_phrase_stands_in_marks(question: str, in_marks: bool) -> None:
    recipe = for_question(question, prompted_recipe())
    assert (recipe.lead_in, recipe.lead_out) == (IN_MARKS if in_marks else (LEAD_IN, ""))
    other = prompted_recipe(lead_in="So:", lead_out="")
    assert for_question(question, other) == other
