"""Questions over long documents of the user's: read, drawn, asked and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.documents.document import Document
from recallm_core.errors import RecallmError
from recallm_core.evaluation.frame.records import AnswerRecord, CitationRecord
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.long_documents import main, read_questions, sample, score

PAGE = "The mill was built in 1904. It closed in 1950.\n\n" + "Nothing is said here. " * 30


def squad(tmp_path: Path) -> Path:
    """A file of two documents, three questions, one of them without an answer."""
    pages = [
        [("When was the mill built?", ["1904 "]), ("Who owns the mill?", [])],
        [("When did the mill close?", ["1950", "in 1950"])],
    ]
    data = [
        {
            "paragraphs": [
                {
                    "context": PAGE,
                    "qas": [
                        {"id": n, "question": q, "answers": [{"text": a} for a in answers]}
                        for n, (q, answers) in enumerate(page)
                    ],
                }
            ]
        }
        for page in pages
    ]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": data}), "utf-8")
    return path


def test_every_question_of_a_file_is_read(tmp_path: Path) -> None:
    items = read_questions(squad(tmp_path))
    assert [item.answers for item in items] == [("1904",), (), ("1950", "in 1950")]
    assert len({item.id for item in items}) == 3
    assert all(item.documents[0].text == PAGE for item in items)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"data": [{"paragraphs": [{"context": 3, "qas": []}]}]}', '{"data": []}'],
)
def test_a_file_of_another_format_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, "utf-8")
    with pytest.raises(RecallmError, match=r"other\.json"):
        read_questions(path)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 40), st.integers())
def test_a_sample_is_spread_over_the_documents(pages: list[int], n: int, seed: int) -> None:
    documents = [Document("Some text.", str(number)) for number in range(6)]
    items = [
        Item(str(number), (documents[page],), "Which?", ("text",))
        for number, page in enumerate(pages)
    ]
    drawn = sample(items, n, seed)
    assert len(drawn) == min(n, len(items))
    assert len({item.id for item in drawn}) == len(drawn)
    assert drawn == sample(items, n, seed)
    assert len({i.documents[0].id for i in drawn}) == min(n, len({*pages}))


def test_a_citation_that_holds_the_answer_is_a_hit_whatever_the_words() -> None:
    item = Item("1", (Document(PAGE, "mill"),), "When?", ("1904",))
    cited = AnswerRecord("Long ago", "", (CitationRecord("mill", 0, 27, PAGE[:27]),))
    assert score(item, cited) == {"f1": 0.0, "em": 0.0, "hit": 1.0, "abstained": 0.0}
    short = AnswerRecord("1904", "", (CitationRecord("mill", 28, 46, PAGE[28:46]),))
    assert score(item, short) == {"f1": 1.0, "em": 1.0, "hit": 0.0, "abstained": 0.0}
    nothing = AnswerRecord("", "", abstained=True)
    assert score(Item("2", item.documents, "Who?", ()), nothing) == {"abstained": 1.0}


def test_the_command_answers_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(squad(tmp_path)), "--out", str(tmp_path / "rows")]
    assert main([*command, "--n", "1"]) == 0
    assert main(command) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[-2].startswith("| holds an answer | 2 | 1.00 ")
    assert table[-1].startswith("| holds none | 1 | - | - | - | ")
    rows = (tmp_path / "rows" / "rows.jsonl").read_text("utf-8").splitlines()
    assert len(rows) == 3


def test_the_command_says_what_it_can_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none.json"), "--out", str(tmp_path)]) == 1
    assert "SQuAD" in capsys.readouterr().err
