"""Every family draws problems whose gold is where it says, from nothing that evaluation holds."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import RecallmError
from recallm_core.train.grpo.answers import answer_score
from recallm_core.train.tasks.datasets import data_folder
from recallm_core.train.tasks.families.problem import Problem
from recallm_core.train.tasks.families.registry import FAMILIES, available, draw_problem, family
from recallm_core.train.tasks.families.shown import CLOSE, OPEN, families_table, shown_problem
from recallm_core.train.tasks.families.sources import Sources

GENERATED = sorted(name for name in FAMILIES if available(FAMILIES[name], Sources(Path("none"))))
WITHOUT_GOLD = {"short_context_math", "long_document_qa", "aggregation"}
SECRET = "one two three four five six seven eight nine ten eleven twelve thirteen"


def right_answer(problem: Problem) -> str:
    key = problem.key
    if key.kind == "ranking":
        return " > ".join(i for i, _ in sorted(key.grades, key=lambda pair: -pair[1])[:10])
    names = ", ".join(wordings[0] for wordings in key.values)
    return names + "".join(f" [{n}]" for n in key.references)


def draws(name: str, sources: Sources, count: int, size: int = 2500) -> list[Problem]:
    return [draw_problem(name, random.Random(seed), sources, size) for seed in range(count)]


def sound(problem: Problem, name: str) -> None:
    assert problem.family == name
    assert answer_score(right_answer(problem), problem.key) == pytest.approx(1)
    assert bool(problem.golds) == (name not in WITHOUT_GOLD)
    for gold in problem.golds:
        assert problem.text(gold.place).strip()
        if gold.label is not None:
            assert gold.place.passage == gold.label.passage
            assert gold.place.start <= gold.label.start < gold.label.end <= gold.place.end


def test_there_are_ten_families_and_each_says_what_it_is() -> None:
    assert len(FAMILIES) == 10
    for name, drawn in FAMILIES.items():
        assert (drawn.name, family(name)) == (name, drawn)
        assert drawn.what
        assert sum(share for _, share, _ in drawn.kinds) == pytest.approx(1)
        assert {kind for kind, _ in drawn.needs} <= {kind for kind, _, _ in drawn.kinds}


@pytest.mark.parametrize("name", GENERATED)
def test_generated_families_need_no_data_and_follow_from_the_seed(name: str) -> None:
    sources = Sources(Path("none"))
    for problem in draws(name, sources, 15):
        sound(problem, name)
    assert draws(name, sources, 5) == draws(name, sources, 5)


def test_the_gold_of_a_value_holds_it() -> None:
    for problem in draws("recall", Sources(Path("none")), 20):
        golds = " ".join(problem.text(gold.place) for gold in problem.golds)
        assert all(wordings[0] in golds for wordings in problem.key.values)


def test_the_winner_of_a_vote_is_what_is_counted() -> None:
    for problem in draws("aggregation", Sources(Path("none")), 20):
        votes = [line.rpartition(": ")[2] for line in problem.passages[0][1].splitlines()]
        tally = sorted({v: votes.count(v) for v in votes}.items(), key=lambda pair: -pair[1])
        first = [name for name, _ in tally[: len(problem.key.values)]]
        assert set(first) == {wordings[0] for wordings in problem.key.values}
        assert tally[len(first) - 1][1] > tally[len(first)][1]


def test_unknown_families_and_missing_data_are_told() -> None:
    with pytest.raises(RecallmError, match="there are aggregation"):
        family("recal")
    with pytest.raises(RecallmError, match="RECALLM_DATA"):
        draw_problem("reranking", random.Random(1), Sources(Path("none")), 2000)


def test_a_shown_problem_marks_its_gold_and_hides_control_characters() -> None:
    text = shown_problem("recall", 3, 600, Sources(Path("none")))
    problem = draw_problem("recall", random.Random(3), Sources(Path("none")), 600)
    assert text.count(OPEN) == text.count(CLOSE) == len(problem.golds)
    for gold in problem.golds:
        assert f"{OPEN}{problem.text(gold.place)}{CLOSE}" in text


def test_the_table_has_a_line_for_each_family() -> None:
    table = families_table(2, 1, 500, Sources(Path("none")))
    assert len(table.splitlines()) == 2 + len(FAMILIES)
    assert "lacks its files" in table


def write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_what_evaluation_uses_is_never_drawn(tmp_path: Path) -> None:
    for name in ("hotpotqa_dev", "quotesum_dev", "clapnq_dev"):
        write(tmp_path, name)
    write(tmp_path, "nq_multidoc_eval", {"question": "Who won?", "gold": {"text": SECRET}})
    safe = "The race of Oslo was won by Ann Stone in the spring of the year 1907, it is said."
    pages = [safe, f"So it goes: {SECRET}. Ann won.", safe.replace("Ann", "Bea")]
    questions = ["Who was first in Oslo?", "How many are there?", "Who won"]
    rows = [
        {"gold": {"title": "Race", "text": text}, "question": question, "answers": ["Ann", "Bea"]}
        for text, question in zip(pages, questions, strict=True)
    ]
    write(tmp_path, "nq_oracle_train", *rows)
    write(tmp_path, "wiki_passages", *[{"title": "x", "text": f"{SECRET}. " * 3}] * 3)
    sources = Sources(tmp_path)
    for problem in draws("single_hop_qa", sources, 30, 400):
        if problem.kind == "natural_questions":
            assert problem.question == questions[0]
        assert not sources.check.problem_leaks(problem)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_shares_anything_with_the_real_evaluation_rows(name: str) -> None:
    sources = Sources(data_folder())
    if not sources.has(("nq_multidoc_eval", "squad2", "banking77", "docs_peps")):
        pytest.skip("no data folder; set RECALLM_DATA")
    for problem in draws(name, sources, 60, 6000):
        sound(problem, name)
        assert not sources.check.problem_leaks(problem), problem.question


PAGE = """redirect_from:
  - /old
---
# Ferries

The ferry to Skerry leaves from Port Hallow at nine. It was built by Ann Stone Works in 1907.
See [the timetable](https://ferry.example/Table) by Mara Olin Brand.

| Boat | Name |
| Gull | Ines Krall Boats |

The council of Inverey bought four boats in March 1931. A second quay was opened by Hugo Karane.
Tickets were sold in Dunmere for the first two years, and later in Port Hallow.

In 1954 the harbour was given to Grimsay Island Trust. Some say that it was too early to be wise.
"""


def long_documents(tmp_path: Path, count: int, size: int) -> list[Problem]:
    for name in ("nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev"):
        write(tmp_path, name)
    write(tmp_path, "docs_18f_handbook", {"title": "Ferries", "text": PAGE})
    return draws("long_document_qa", Sources(tmp_path), count, size)


def test_a_gap_is_in_prose_and_only_one_option_fills_it(tmp_path: Path) -> None:
    for problem in long_documents(tmp_path, 40, 2000):
        sentence, *options = re.split(r"\n[A-D]\. ", problem.question)
        options[3] = options[3].partition("\n")[0]
        answer = options["ABCD".index(problem.key.values[0][0])]
        asked = sentence.partition('"')[2].rstrip('"')
        page = " ".join(problem.passages[0][1].split())
        assert asked.replace("____", answer) in page
        assert not any(asked.replace("____", o) in page for o in options if o != answer)
        assert len({option.casefold() for option in options}) == 4
        assert not set("[]|#") & set(asked)


def test_a_long_page_is_cut_between_sentences_and_without_its_settings(tmp_path: Path) -> None:
    for problem in long_documents(tmp_path, 20, 560):
        text = problem.passages[0][1]
        assert "redirect_from" not in text
        assert text in PAGE
        before, _, after = PAGE.partition(text)
        assert before.endswith(("---\n", "\n\n"))
        assert after[:1] in ("", "\n", " ")
        assert text[-1] in ".s|)"
