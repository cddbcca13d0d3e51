"""The model's own working: made once, stored, and replayed byte for byte in every condition."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.frame.results import read_run
from recallm_core.evaluation.frame.run import Cell, ask
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.frame.ways import ByPlain, Output
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.rows import RunError
from recallm_core.evaluation.thought.dictionaries import Dictionary, templated_trace

NAME = "traces"
QUESTION = "Solve {problem} for x. Show your work, then state x."
SOURCES = ("auto", "own", "templated")
Say = Callable[[str], None]


class ByThinking(ByPlain):
    """The model alone with an equation: all that it writes, its thinking included."""

    def _record_of(self, item: Item, output: Output) -> AnswerRecord:
        detokenizer = self._llm.tokenizer.detokenizer()
        text = "".join(detokenizer.feed(token) for token in output.tokens) + detokenizer.flush()
        return replace(super()._record_of(item, output), text=text.strip())


def own_traces(
    way: ByThinking, entries: Sequence[Dictionary], folder: Path, say: Say, *, batch: int
) -> dict[int, str]:
    """Returns the model's right traces by the number of the dictionary; made where they aren't yet.

    A trace ends with the first statement of the key that nothing but the key could be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cell = Cell(NAME, "traces", len(entries), partial(_samples, entries))
    ask([way], [cell], folder, say, batch=batch)
    keys = {entry.number: entry.key for entry in entries}
    try:
        rows = read_run(folder)
    except RunError:
        return {}
    texts = {row["facts"]["dictionary"]: row["text"] for row in rows}
    cut = {n: cut_at_key(text, keys[n]) for n, text in texts.items() if n in keys}
    return {number: text for number, text in cut.items() if text}


def _samples(entries: Sequence[Dictionary]) -> list[Sample]:
    return [
        Sample(
            id=f"trace-{entry.number}",
            documents=(),
            question=QUESTION.format(problem=entry.problem),
            answers=(str(entry.key),),
            group=NAME,
            facts={"dictionary": entry.number},
        )
        for entry in entries
    ]


def cut_at_key(text: str, key: int) -> str:
    """Returns a trace up to its first ``x = key``; empty where it never says that."""
    pattern = rf"\bx\s*(?:=|is|equals)\s*\$?\\?(?:boxed\{{)?{re.escape(str(key))}(?![\d./])"
    match = re.search(pattern, text.replace("\u2212", "-"))
    return text[: match.end()] + "." if match else ""


def templates(entries: Sequence[Dictionary]) -> Mapping[int, str]:
    """Returns working made by rule, for models that don't reason."""
    return {entry.number: templated_trace(entry) for entry in entries}
