"""Long documents: a question with four options about one page of a manual or a specification."""

from __future__ import annotations

import random

from recallm_core.text.lexical import sentences
from recallm_core.train.tasks.cloze import make_cloze
from recallm_core.train.tasks.families.problem import Family, Key, Problem, Scoring
from recallm_core.train.tasks.families.sources import Sources

_SCORING = Scoring("any", free_spans=4, least_characters=7)
_TRIES = 40


def _draw(name: str, rng: random.Random, sources: Sources, size: int) -> Problem | None:
    row = sources.draw(name, rng)
    start = rng.randrange(max(1, len(row["text"]) - size))
    start = row["text"].rfind("\n", 0, start) + 1
    text = row["text"][start : start + size].strip()
    if len(text) < 400 or sources.check.leaks("", [text]):
        return None
    units = [text[a:b] for a, b in sentences(text)]
    cloze = _cloze(rng, units)
    if cloze is None:
        return None
    question, answer = cloze
    options = _options(rng, units, answer)
    if options is None:
        return None
    listed = "\n".join(f"{letter}. {o}" for letter, o in zip("ABCD", options, strict=True))
    key = Key("choice", (("ABCD"[options.index(answer)],),))
    wording = f"{question}\n{listed}\nAnswer with the letter of the right option."
    passages = ((str(row["title"]), text),)
    return Problem("long_document_qa", name, passages, wording, key, scoring=_SCORING)


def _cloze(rng: random.Random, units: list[str]) -> tuple[str, str] | None:
    for unit in rng.sample(units, min(_TRIES, len(units))):
        cloze = make_cloze(unit, rng)
        if cloze is not None:
            return cloze.question, unit[cloze.start : cloze.end]
    return None


def _options(rng: random.Random, units: list[str], answer: str) -> list[str] | None:
    """The answer among three pieces that were cut out of other sentences of the page."""
    options = {answer.casefold(): answer}
    for _ in range(_TRIES):
        other = _cloze(rng, units)
        if other is not None and len(other[1].splitlines()) == 1:
            options.setdefault(other[1].casefold(), other[1])
        if len(options) == 4:
            return rng.sample(list(options.values()), 4)
    return None


def _handbook(rng: random.Random, sources: Sources, size: int) -> Problem | None:
    return _draw("docs_18f_handbook", rng, sources, size)


def _peps(rng: random.Random, sources: Sources, size: int) -> Problem | None:
    return _draw("docs_peps", rng, sources, size)


_CHECKED = ("nq_multidoc_eval", "hotpotqa_dev", "quotesum_dev", "clapnq_dev")

FAMILY = Family(
    name="long_document_qa",
    what="one question with four options over one long page",
    kinds=(("peps", 0.6, _peps), ("handbook", 0.4, _handbook)),
    needs=(("peps", ("docs_peps", *_CHECKED)), ("handbook", ("docs_18f_handbook", *_CHECKED))),
    stand_in="gaps in PEPs and handbook pages; the paper takes QuALITY",
)
