"""Question sets as published: each format is told, and what can't be learnt is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.errors import RecallmError
from recallm_core.train.tasks.question_files import SENTENCES, agreed, read_questions

TEXT = "The ferry to Skerry leaves at 9:30. Ann Lee, the mayor, runs the harbour."


def written(folder: Path, name: str, value: object) -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def answer(text: str, context: str = TEXT) -> dict[str, Any]:
    return {"text": text, "answer_start": context.index(text)}


def squad(*qas: dict[str, Any], context: str = TEXT) -> dict[str, Any]:
    return {"data": [{"title": "Port_Hallow", "paragraphs": [{"context": context, "qas": [*qas]}]}]}


def asked(question: str, *answers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"question": question, "answers": [*answers]} | more


def test_squad_keeps_title_answer_and_place(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", squad(asked(" When does the ferry leave?", answer("9:30"))))
    (fact,) = read_questions(path)
    assert (fact.title, fact.question) == ("Port Hallow", "When does the ferry leave?")
    assert (fact.answer, fact.start) == ("9:30", TEXT.index("9:30"))
    assert not fact.is_searched


def test_squad_without_an_answer_says_so(tmp_path: Path) -> None:
    row = asked("When does the bus leave?", is_impossible=True)
    (fact,) = read_questions(written(tmp_path, "a.json", squad(row)))
    assert (fact.answer, fact.start) == ("", -1)


def test_what_cant_be_learnt_is_left_out(tmp_path: Path) -> None:
    shifted = answer("9:30") | {"answer_start": 3}
    rows = (
        asked("Is there a ferry?", answer("The ferry to Skerry")),  # yes or no
        asked("When is it?", shifted),  # the place doesn't hold the answer
        asked("Who is it?"),  # nobody answered
        asked(
            "What is it?", answer("Skerry"), answer("9:30"), answer("the harbour")
        ),  # no two agree
    )
    assert read_questions(written(tmp_path, "a.json", squad(*rows))) == []


def test_the_answer_most_like_the_others_is_taken() -> None:
    assert agreed(["the mayor", "Ann Lee", "Ann", "Ann Lee"]) == 1
    assert agreed(["Ann Lee, the mayor", "Ann Lee", "the mayor Ann Lee"]) == 2
    assert agreed(["a", "b"]) == 0
    assert agreed(["a", "b", "c"]) is None
    assert agreed([]) is None


def test_qed_is_cleaned_and_typed_into_a_search_box(tmp_path: Path) -> None:
    row = {
        "question_text": "who runs the harbour",
        "title_text": "Skerry",
        "paragraph_text": "Ann Lee , the mayor , runs the harbour ( since 1904 ) .",
        "original_nq_answers": [[{"string": "Ann Lee , the mayor"}], [{"string": "Ann Lee"}]],
    }
    listed = row | {"original_nq_answers": [[{"string": "Ann Lee"}, {"string": "the mayor"}]]}
    path = written(tmp_path, "q.jsonlines", f"{json.dumps(row)}\n{json.dumps(listed)}\n")
    (fact,) = read_questions(path)
    assert fact.text == "Ann Lee, the mayor, runs the harbour (since 1904)."
    assert (fact.answer, fact.start, fact.is_searched) == ("Ann Lee", 0, True)


def test_a_plain_list_gives_each_question_once(tmp_path: Path) -> None:
    rows = [
        {"context": f"<P> {name} runs it . </P>", "question": question, "answer": name}
        for name, question in (("Ann", "who runs it"), ("Bo", "who runs it"), ("Cy", "what runs"))
    ]
    facts = read_questions(written(tmp_path, "swap.json", rows))
    assert [(fact.question, fact.answer) for fact in facts] == [
        ("who runs it", "Ann"),
        ("what runs", "Cy"),
    ]
    assert facts[0].text == "Ann runs it."


def qamr(*rows: tuple[str, str, str, str]) -> str:
    return "\n".join(
        f"S:1\t1\t7\t0\t1\t{question}\t{marked}\t8:{first}\t9:{second}"
        for question, marked, first, second in rows
    )


def test_qamr_takes_what_three_marked_alike(tmp_path: Path) -> None:
    written(
        tmp_path, SENTENCES, "S:1\tThe old harbour -LRB- of Skerry -RRB- 's mayor is Ann Lee .\n"
    )
    table = qamr(
        ("Who is the mayor of it?", "10 11", "10 11", "10 11"),
        ("What person is the mayor?", "10 11", "10 11", "10 11"),  # the same piece again
        ("What is the harbour of?", "5", "5", "5 6"),  # not alike
        ("What is the harbour's kind?", "1 7", "1 7", "1 7"),  # two pieces
        ("What is old?", "2", "2", "2"),  # three words
        ("What does the mayor belong to?", "4 5", "4 5", "4 5"),
    )
    facts = read_questions(written(tmp_path, "dev.tsv", table))
    assert [(fact.question, fact.answer) for fact in facts] == [
        ("Who is the mayor of it?", "Ann Lee"),
        ("What does the mayor belong to?", "of Skerry"),
    ]
    assert {fact.text for fact in facts} == {"The old harbour (of Skerry)'s mayor is Ann Lee."}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "not JSON"),
        ("a.json", {"data": [{"paragraphs": [{"qas": [{"question": "who"}]}]}]}),
        ("a.json", {"rows": []}),
        ("a.json", ["a"]),
        ("a.json", [{"context": "a", "question": "b"}]),
        ("a.jsonl", '{"paragraph_text": "a"}'),
        ("a.json", squad({"question": "who", "answers": [{"text": 3, "answer_start": 1}] * 3})),
    ],
)
def test_another_format_is_refused_by_name(tmp_path: Path, name: str, content: object) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(RecallmError, match=r"SQuAD's JSON.*QAMR"):
        read_questions(path)


def test_a_file_that_cant_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b'{"data": "\xff\xfe"}')
    for path in (tmp_path / "missing.json", tmp_path / "b.json", tmp_path):
        with pytest.raises(RecallmError, match="can't read the questions"):
            read_questions(path)
    table = written(tmp_path, "dev.tsv", "")
    with pytest.raises(RecallmError, match=SENTENCES):
        read_questions(table)


_WORDS = st.lists(st.sampled_from(["ferry", "Ann", ",", ".", "9:30", "-LRB-", "-RRB-", "'s", "é"]))


@given(words=_WORDS.filter(lambda words: len(words) > 1), data=st.data())
def test_every_answer_is_a_slice_of_its_text(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], data: st.DataObject
) -> None:
    """Whatever is read, in both of the formats that carry places."""
    folder = tmp_path_factory.mktemp("questions")
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    marked = " ".join(str(n) for n in range(first, last + 1))
    written(folder, SENTENCES, f"S:1\t{' '.join(words)}")
    table = qamr(("What is this piece of it?", marked, marked, marked))
    context = " ".join(words)
    start = data.draw(st.integers(0, len(context)))
    end = data.draw(st.integers(start, len(context)))
    row = asked("What is it?", {"text": context[start:end], "answer_start": start})
    facts = [
        *read_questions(written(folder, "dev.tsv", table)),
        *read_questions(written(folder, "a.json", squad(row, context=context))),
    ]
    for fact in facts:
        assert fact.answer
        assert fact.text[fact.start : fact.start + len(fact.answer)] == fact.answer
