"""Lost in thought: the same look-up asked for directly, and after a stretch of reasoning.

After arXiv 2604.09494 (``math_retrieval`` and ``retrieval``): a dictionary of whole numbers and
codes; the key is given, or has to be found by solving an equation. Where reasoning is handed over,
the output is made to begin with it, so that only the retrieval after it is measured: with the
question that names the key (nothing but the reasoning differs), the same with the recall span
opened, with the equation, and with the equation, what stands before the value, and an open span.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator

from recallm_core.documents.document import Document
from recallm_core.evaluation.items import Item

DIRECT, AFTER, OPENED = "direct", "after reasoning", "after reasoning, span opened"
SOLVE, HANDED, LINE = "to be solved", "solution handed", "line handed"
CONDITIONS = (DIRECT, AFTER, OPENED, SOLVE, HANDED, LINE)
_PAIRS = 24
_DICTIONARIES = 30


def thought_pairs() -> Iterator[Item]:
    """Yields each dictionary under all conditions."""
    for number in range(_DICTIONARIES):
        yield from _conditions(number)


def _conditions(number: int) -> Iterator[Item]:
    rng = random.Random(f"evaluation:thought:{number}")
    keys = rng.sample(range(10, 100), _PAIRS)
    pairs = {key: "".join(rng.choices(string.ascii_uppercase + string.digits, k=8)) for key in keys}
    lines = "\n".join(f"{key}: {value}" for key, value in pairs.items())
    documents = (Document(lines, "list", "Codes"),)
    key = rng.choice(keys)
    factor, offset = rng.randint(2, 9), rng.randint(1, 50)
    solving = f"Solve {factor}x + {offset} = {factor * key + offset}. Which code is listed for x?"
    direct = f"Which code is listed for {key}?"
    steps = _steps(key, factor, offset)
    line = f"{steps}The line that I need begins with {key}: "
    for group, question, reasoning, opens in (
        (DIRECT, direct, "", False),
        (AFTER, direct, steps, False),
        (OPENED, direct, steps, True),
        (SOLVE, solving, "", False),
        (HANDED, solving, steps, False),
        (LINE, solving, line, True),
    ):
        name = f"{number}-{re.sub(r'[^a-z]+', '-', group)}"
        yield Item(name, documents, question, (pairs[key],), 0, group, reasoning, opens)


def _steps(key: int, factor: int, offset: int) -> str:
    """The working, in the words of someone who thinks aloud."""
    total = factor * key + offset
    return (
        f"First I solve the equation {factor}x + {offset} = {total}. I subtract {offset} from both "
        f"sides, which leaves {factor}x = {total - offset}. Dividing both sides by {factor} gives "
        f"x = {key}. I check this: {factor} times {key} is {factor * key}, and {factor * key} plus "
        f"{offset} is {total}, as it should be. So the number is {key}, and I have to look up what "
        f"the list says about {key}. "
    )
