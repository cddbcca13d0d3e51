"""Working before the first quote: right, of any length, and beside what the row teaches."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from recallm_core.train.tasks.curriculum import GENERATED, OWN, Curriculum
from recallm_core.train.tasks.training_example import Quote, TrainingExample
from recallm_core.train.tasks.working import BEHIND, MOST_SENTENCES, with_working

SEEDS = st.integers(0, 2**32)
SUM = re.compile(r"(-?\d+) ([-+*]) (\d+) = (-?\d+)")
EQUATION = re.compile(r"Take (-?\d+)\*x ([+-] \d+) = (-?\d+)\*x ([+-] \d+)\.")
SOLVED = re.compile(r"Divide by -?\d+: x = (-?\d+)\.")


def number(text: str) -> int:
    return int(text.replace(" ", ""))


@given(seed=SEEDS, task=st.sampled_from(sorted(GENERATED)))
def test_documents_question_quotes_and_answer_stay(seed: int, task: str) -> None:
    plain = GENERATED[task](random.Random(seed), size=300)
    worked = with_working(plain, random.Random(seed))
    assert worked == with_working(plain, random.Random(seed))
    assert worked.working.strip()
    assert worked.working[-1].isspace()
    assert (worked.passages, worked.question) == (plain.passages, plain.question)
    assert (worked.answer, worked.answer_at) == (plain.answer, plain.answer_at)
    assert worked.evidence == plain.evidence
    assert worked.thinking == plain.thinking[len(plain.thinking) - len(worked.thinking) :]
    if task == "compute_then_retrieve":  # what works the key out has to be learnt
        assert worked.thinking == plain.thinking
    assert with_working(worked, random.Random(seed)) == worked


@given(seed=SEEDS)
def test_sums_and_equations_come_out(seed: int) -> None:
    worked = with_working(GENERATED["key_value"](random.Random(seed)), random.Random(seed))
    sums = SUM.findall(worked.working)
    for left, operator, right, result in sums if "*x" not in worked.working else ():
        a, b = int(left), int(right)
        assert {"+": a + b, "-": a - b, "*": a * b}[operator] == int(result)
    solutions = []
    for solved in re.split(r"(?=Take )", worked.working)[1:]:
        terms, solution = EQUATION.match(solved), SOLVED.search(solved)
        assert terms is not None
        assert solution is not None
        (a, b, c, d), x = (number(part) for part in terms.groups()), int(solution[1])
        assert a * x + b == c * x + d
        solutions.append(str(x))
    if solutions and worked.answer is not None and worked.answer.isdigit():
        assert solutions[-1] in worked.question.strip("?.")  # the key, which is of digits too


def test_working_is_short_and_long_and_quotes_follow_on_it_directly() -> None:
    rng = random.Random(0)
    plain = GENERATED["one_fact"](rng, size=300)
    many = [with_working(plain, rng) for _ in range(300)]
    sentences = [len(re.findall(r"\.(?=\s)", worked.working)) for worked in many]
    assert min(sentences) == 1
    assert max(sentences) > 12
    assert max(sentences) <= MOST_SENTENCES
    assert 60 < sum(count <= 3 for count in sentences) < 180
    directly = [isinstance(worked.thinking[0], Quote) for worked in many]
    assert 100 < sum(directly) < 200
    assert len({worked.working for worked in many}) > 200


def test_examples_of_your_own_and_those_without_quotes_stay() -> None:
    yours = TrainingExample((("", "It is nine."),), "When?", (Quote(0, 0, 11),), "nine", OWN)
    source = Curriculum({OWN: 1.0}, examples=[yours])
    assert source.draw(random.Random(1), 9, is_worked=True) == yours
    silent = TrainingExample((("", "It is nine."),), "When?", ("No.",), None, "absent")
    assert with_working(silent, random.Random(1)) == silent
    made_up = Curriculum({"one_fact": 1.0})
    worked = made_up.draw(random.Random(1), 9, is_worked=True)
    assert worked.task == "one_fact" + BEHIND
    assert made_up.draw(random.Random(1), 9).evidence == worked.evidence
