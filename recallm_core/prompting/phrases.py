"""What a prompted model is given to say, in the language of the question.

A phrase in English behind documents in another language is heard as more than it says: small
models answer in English, or take the way out that it offers them.
"""

from __future__ import annotations

from dataclasses import replace

from recallm_core.evidence.question_forms import asks_for_more_than_a_phrase
from recallm_core.evidence.reader_languages import language_of
from recallm_core.prompting.recipe import ABSTAIN, IN_MARKS, LEAD_IN, Recipe

PHRASES = {
    "ar": ("إجابة قصيرة:", "الوثائق لا تذكر ذلك."),
    "de": ("Kurze Antwort:", "Das steht nicht in den Dokumenten."),
    "es": ("Respuesta breve:", "Los documentos no lo dicen."),
    "fr": ("Réponse courte :", "Les documents ne le disent pas."),
    "hi": ("संक्षिप्त उत्तर:", "दस्तावेज़ों में यह नहीं है"),
    "it": ("Risposta breve:", "I documenti non lo dicono."),
    "ja": ("短い答え:", "文書には書かれていません"),
    "ko": ("짧은 답:", "문서에 나와 있지 않습니다."),
    "nl": ("Kort antwoord:", "De documenten vermelden het niet."),
    "pt": ("Resposta curta:", "Os documentos não o dizem."),
    "ru": ("Краткий ответ:", "Документы этого не сообщают."),
    "zh": ("简短回答:", "文档中没有说明"),
}
"""By language: what stands between the evidence and the words, and what says that there is none."""


def for_question(question: str, recipe: Recipe) -> Recipe:
    """Returns the recipe with its phrases as a question wants them: its language, room for lists.

    The quotation mark behind ``IN_MARKS`` ends an answer after its first phrase. Where several
    things or an account are asked for, the words stand without: of four values asked for of
    SmolLM2-135M (RULER at 1K) that told 2.5, and in marks 1.5.
    """
    recipe = in_language_of(question, recipe)
    is_in_marks = (recipe.lead_in, recipe.lead_out) == IN_MARKS
    if is_in_marks and asks_for_more_than_a_phrase(question):
        return replace(recipe, lead_in=LEAD_IN, lead_out="")
    return recipe


def in_language_of(question: str, recipe: Recipe) -> Recipe:
    """Returns the recipe with its phrases in the language of a question, where that is known.

    A recipe with phrases of its own keeps them, and so does a model that was trained on its.
    """
    if recipe.mode == "trained":
        return recipe
    phrases = PHRASES.get(language_of(question))
    if phrases is None:
        return recipe
    lead_in, none = phrases
    if (recipe.lead_in, recipe.lead_out) in (IN_MARKS, (LEAD_IN, "")):
        recipe = replace(recipe, lead_in=f"\n\n{lead_in}", lead_out="")
    if recipe.abstain == (ABSTAIN,):
        recipe = replace(recipe, abstain=(none, ABSTAIN))
    return recipe
