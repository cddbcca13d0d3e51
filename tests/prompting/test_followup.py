"""A follow-up question is searched with its conversation; any other as it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import CorpusIndex, Document, RecaLLM
from recallm_core.prompting.followup import search_question
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.testing import ByteTokenizer, ScriptedBackend
from recallm_core.text.lexical import terms

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ROLES = st.sampled_from(["user", "assistant", "system", "tool"])
TURNS = st.lists(st.builds(lambda r, t: {"role": r, "content": t}, ROLES, TEXT), max_size=9)


def dialogue(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


@given(TURNS, TEXT)
def test_the_question_itself_is_always_searched_and_never_changed(turns, question):
    asked = [*turns, {"role": "user", "content": question}]
    found = search_question(asked)
    assert found == search_question(asked)
    assert found == question or found.endswith("\n" + question)
    said = [t["content"] for t in turns if t["role"] in ("user", "assistant")]
    added = found[: len(found) - len(question)].split()
    assert all(any(word in text for text in said) for word in added)
    assert len(added) <= 40


@given(TEXT)
def test_a_first_question_stays_as_it_is(question):
    assert search_question([{"role": "user", "content": question}]) == question


FOLLOWUPS = [
    (("How tall is the Eiffel Tower?", "330 metres.", "And who built it?"), "Eiffel Tower"),
    (("Who was Marie Curie?", "A physicist born in Warsaw.", "When did she die?"), "Marie Curie"),
    (("Who was Marie Curie?", "A physicist.", "Where did she meet Pierre?"), "Marie Curie"),
    (("When does the ferry to Skerry leave?", "At 9:30.", "How much is a ticket?"), "ferry Skerry"),
    (("When does the ferry to Skerry leave?", "At 9:30.", "Why?"), "ferry Skerry"),
    (("When does the ferry to Skerry leave?", "At 9:30.", "And on Sundays?"), "ferry Skerry"),
    (
        ("Where is Oslo?", "In Norway.", "How large is it?", "454 km2.", "Who leads it?"),
        "Oslo",
    ),
    (("When does the ferry to Skerry leave?", "At 9:30.", "What is the price?"), "ferry Skerry"),
    (("Wie hoch ist der Kölner Dom?", "157 Meter.", "Und wann wurde er gebaut?"), "Kölner Dom"),
    (("Wie hoch ist der Kölner Dom?", "157 Meter.", "Wer hat ihn gebaut?"), "Kölner Dom"),
    (("Quelle est la hauteur de la tour Eiffel ?", "330 m.", "Et qui l'a construite ?"), "Eiffel"),
    (("Qui était Marie Curie ?", "Physicienne.", "Où est-elle née ?"), "Marie Curie"),
    (("¿Cuándo nació Cervantes?", "En 1547.", "¿Y dónde murió?"), "Cervantes"),
    (("¿Qué altura tiene la Giralda?", "104 m.", "¿Quién construyó esta torre?"), "Giralda"),
    (("东京塔有多高？", "三百三十三米。", "它是谁建造的？"), "东京塔有多高"),
    (("東京タワーの高さは？", "333メートル。", "誰が建てた？"), "東京タワーの高さは"),
]
ALONE = [
    "How tall is the Eiffel Tower in Paris?",
    "Who wrote Hamlet?",
    "What is photosynthesis?",
    "¿Qué es una elipse?",
    "When did Marie Curie publish her thesis?",
    "What does the ferry company do when its ships are late?",
    "Is there a ferry from Hallow to Skerry?",
    "Wann wurde die Universität Heidelberg gegründet?",
    "Quand la tour Eiffel a-t-elle été construite à Paris ?",
    "¿En qué año se fundó la Universidad de Salamanca?",
    "东京塔是由哪位建筑师在哪一年设计的？",
]


@pytest.mark.parametrize(("texts", "subject"), FOLLOWUPS)
def test_a_followup_gets_its_subject(texts, subject):
    found = search_question(dialogue(*texts))
    assert found.endswith("\n" + texts[-1])
    assert set(terms(subject)) <= set(terms(found))


@pytest.mark.parametrize("question", ALONE)
def test_a_question_that_stands_by_itself_stays_as_it_is(question):
    before = dialogue("Which bus goes to the harbour?", "Line 7 goes there.")
    assert search_question([*before, {"role": "user", "content": question}]) == question


def test_nearer_turns_give_more_words():
    words = [f"{chr(97 + n)}{chr(107 + n)}ox" for n in range(20)]
    turns = dialogue(" ".join(words), "So.", " ".join(w + "yu" for w in words), "So.", "And it?")
    found = search_question(turns).split("\n")[0].split()
    near = [w for w in found if w.endswith("yu")]
    assert len(near) > len(found) - len(near) > 0


def test_without_a_user_there_is_nothing_to_search():
    with pytest.raises(ValueError, match="needs a user message"):
        search_question([{"role": "assistant", "content": "Hello."}])


class Recorder(CorpusIndex):
    """An index that remembers what it was searched for."""

    def pack_report(self, question, *args, **options):
        self.asked = question
        return super().pack_report(question, *args, **options)


@pytest.mark.parametrize("texts", [texts for texts, _ in FOLLOWUPS] + [("Who wrote Hamlet?",)])
def test_documents_are_searched_with_the_conversation(texts):
    backend = ScriptedBackend(tokenizer=ByteTokenizer())
    llm = RecaLLM(backend.tokenizer, backend, trained_recipe())
    index = Recorder()
    index.add([Document("A page.", "1")])
    prompt, _ = llm.prepare(dialogue(*texts), index)
    assert index.asked == search_question(dialogue(*texts))
    assert prompt.question == texts[-1]
