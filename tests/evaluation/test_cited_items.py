from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from recallm_core.evaluation.cited.items import NAMES, UNSCORED, WITHOUT, suite_items
from recallm_core.evaluation.cited.own import OwnRowsError, read_own
from recallm_core.evaluation.cited.words import contains
from recallm_core.evaluation.datasets import MissingDataError
from recallm_core.train.tasks.datasets import is_held_out


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def paragraph(number: int, lang: str) -> dict[str, Any]:
    texts = [f"Town {number} was founded in {1500 + number}. {c}" for c in "abcdefghijkl"]
    text = next(t for t in texts if is_held_out(t) == (number % 2 == 0))
    asked = [
        {"id": f"{lang}{number}-{n}", "question": f"When, {n}?", "impossible": n == 2,
         "answers": [] if n == 2 else [{"text": str(1500 + number), "start": 23}]}
        for n in range(3)
    ]  # fmt: skip
    title = f"T{number // 3}"
    return {"id": f"{lang}-{number}", "title": title, "context": text, "qas": asked, "lang": lang}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    leaky = [{"title": "leak", "text": "It was 1901, too."}]
    plain = [{"title": f"d{n}", "text": f"Nothing of use, {n}."} for n in range(5)]
    gold = {"title": "gold", "text": "It was 1901."}
    write(
        tmp_path,
        "nq_multidoc_eval",
        [
            {"id": f"q{n}", "question": "When?", "answers": ["1901"], "gold": gold,
             "distractors": leaky + plain}
            for n in range(12)
        ],
    )  # fmt: skip
    write(tmp_path, "squad2", [paragraph(n, "en") for n in range(60)])
    every = [paragraph(n, lang) for lang in ("es", "zh", "ar") for n in range(12)]
    write(tmp_path, "xquad_es_zh_ar", every)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_same_for_a_seed_and_hold_no_second_answer(folder: Path, name: str) -> None:
    items = suite_items(name, folder, 10, seed=3)
    assert items == suite_items(name, folder, 10, seed=3)
    assert [i.digest for i in items] != [i.digest for i in suite_items(name, folder, 10, seed=4)]
    answerable = suite_items(name.removesuffix(WITHOUT), folder, 10, seed=3)
    assert [i.question for i in items] == [i.question for i in answerable]
    for item, base in zip(items, answerable, strict=True):
        holding = [n for n, d in enumerate(item.documents) if contains(d.text, base.answers)]
        assert len(item.documents) == 3
        assert holding == ([item.gold] if item.answerable else [])
    assert len({i.id for i in items}) == len(items)


def test_places_differ(folder: Path) -> None:
    assert {i.gold for i in suite_items("nq", folder, 12, seed=0)} == {0, 1, 2}


def test_squad_asks_only_what_training_never_read(folder: Path) -> None:
    items = suite_items("squad2", folder, 10, seed=0)
    assert items
    assert all(is_held_out(i.documents[i.gold].text) for i in items)


def test_languages_are_not_mixed(folder: Path) -> None:
    assert all(i.id.startswith("zh") for i in suite_items("xquad-zh", folder, 10, seed=0))


def test_the_true_rows_hold_no_second_answer(data_folder: Path) -> None:
    for name in ("nq", "squad2", "squad2" + WITHOUT):
        items = suite_items(name, data_folder, 30, seed=1)
        assert len(items) == 30
        for item in items:
            holding = [n for n, d in enumerate(item.documents) if contains(d.text, item.answers)]
            assert holding == ([item.gold] if item.answerable else [])


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no squad2\.jsonl\.gz .* RECALLM_DATA"):
        suite_items("squad2", tmp_path, 3, seed=0)


# a user's own rows

GOOD = {"question": "When?", "documents": ["It was 1901."], "answers": ["1901"]}
BAD = (
    ("{", "Expecting"),
    ("[]", "expected an object"),
    ('{"question": " ", "documents": ["x"]}', '"question"'),
    ('{"question": "?", "documents": []}', '"documents"'),
    ('{"question": "?", "documents": [3]}', "a text or an object"),
    ('{"question": "?", "documents": [{"body": "x"}]}', "no other fields"),
    ('{"question": "?", "documents": [{"text": ""}]}', 'non-empty "text"'),
    ('{"question": "?", "documents": [{"text": "x", "id": 3}]}', '"id" of a document'),
    ('{"question": "?", "documents": ["x"], "answers": "y"}', '"answers"'),
    (
        '{"question": "?", "documents": [{"text": "x", "id": "a"}, {"text": "y", "id": "a"}]}',
        "ids that differ",
    ),
    ('{"question": "?", "documents": ["\\ud800"]}', "surrogate"),
    ("[" * 100_000, "nested too deeply"),
)


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_told_and_left_out(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{line}\n{json.dumps(GOOD)}\n", "utf-8")
    own = read_own(path)
    assert [i.id for i in own.items] == ["1", "4"]
    assert len(own.bad) == 1
    assert own.bad[0].startswith("line 3 of own.jsonl is left out")
    assert reason in own.bad[0]
    assert len(own.bad[0]) < 300


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_bytes(b"\xff\xfe\n" + json.dumps(GOOD).encode())
    own = read_own(path)
    assert (len(own.items), len(own.bad)) == (1, 1)


def test_a_file_without_a_good_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("{}\n")
    with pytest.raises(OwnRowsError, match=r"line 1 .* each line must be"):
        read_own(path)


def test_answers_may_be_none_or_unknown(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    document = {"text": "It was 1901.", "title": "A page", "id": "page"}
    base = {"question": "When?", "documents": [document, "more"]}
    rows = [base, base | {"answers": []}, base | {"answers": ["1901"], "id": "third"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    unknown, none, known = read_own(path).items
    assert unknown.group == UNSCORED
    assert (none.group, none.answerable) == ("", False)
    assert (known.id, known.answerable, known.gold) == ("3-third", True, -1)
    assert [d.id for d in known.documents] == ["page", "d1"]
    assert known.documents[0].title == "A page"
    assert len(read_own(path, 2).items) == 2
