"""A real model of 135 million parameters, with the settings that users get by default.

Every answer has to be cited and every citation to be a slice of its document; most citations have
to hold the answer. A model that small says much that is wrong, but its evidence must be found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recallm_core import Answer, Document, RecaLLM

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

NAME = "SmolLM2-135M-Instruct.Q4_1"
MOST = 4  # of six

MILL = Document(
    "The paper mill at Orvelle was built in 1868 beside the weir. It made wallpaper at first and "
    "turned to writing paper after the fire of 1911. The last sheet left it in 1974.",
    "mill",
    "Orvelle paper mill",
)
FERRY = Document(
    "A ferry crosses the Tarn Sound every forty minutes from April to October. In winter it runs "
    "twice a day. Bicycles travel free, and a car costs nine crowns each way.",
    "ferry",
    "Tarn Sound ferry",
)
OWL = Document(
    "The marsh owl of Hennick island nests on the ground, mostly under gorse. Its young leave the "
    "nest after thirty-one days. Wardens counted 212 pairs in the spring of 2019.",
    "owl",
    "Marsh owl",
)
BREAD = Document(
    "Sallet is a flat rye bread baked on a stone. The dough rests for eighteen hours and is salted "
    "only after the first rise. Bakers in Dorwick add caraway to it.",
    "bread",
    "Sallet bread",
)
LAMP = Document(
    "The lighthouse keeper Ines Varga fitted the first electric lamp at Cape Morrow in 1923. Until "
    "then the light burned colza oil. Ships see the beam at nineteen nautical miles.",
    "lamp",
    "Cape Morrow lighthouse",
)
CLUB = Document(
    "The chess club of Lindholm meets on Thursdays in the old customs house. Membership costs "
    "fifteen crowns a year. Its best known member was the composer Peter Aldous.",
    "club",
    "Lindholm chess club",
)
ROWS = (
    ("When was the paper mill at Orvelle built?", (FERRY, MILL, OWL), "mill", "1868"),
    ("How much does a car cost on the Tarn Sound ferry?", (FERRY, CLUB, BREAD), "ferry", "nine"),
    ("How many pairs of marsh owls were counted in 2019?", (LAMP, MILL, OWL), "owl", "212"),
    ("How long does the dough of sallet bread rest?", (BREAD, OWL, LAMP), "bread", "eighteen"),
    ("Who fitted the first electric lamp at Cape Morrow?", (MILL, LAMP, CLUB), "lamp", "Varga"),
    ("Where does the chess club of Lindholm meet?", (BREAD, FERRY, CLUB), "club", "customs house"),
)


@pytest.fixture(scope="module")
def answers() -> Iterator[list[Answer]]:
    models = Path(os.environ.get("RECALLM_REAL_MODELS", "~/.cache/recallm-real")).expanduser()
    folder = models / NAME
    if not (folder / "config.json").is_file():
        pytest.skip(f"no {NAME} in {models}; `python tests/real/bring.py` brings it (98 MB)")
    with RecaLLM.load(folder) as llm:
        asked = [(question, list(documents)) for question, documents, _, _ in ROWS]
        yield llm.answer_batch(asked, temperature=0.0, max_new_tokens=160)


def test_every_answer_is_cited(answers: list[Answer]) -> None:
    bare = [a.question for a in answers if not a.citations or a.abstained]
    assert not bare


def test_every_citation_is_a_slice_of_its_document(answers: list[Answer]) -> None:
    texts = {d.id: d.text for _, documents, _, _ in ROWS for d in documents}
    for answer in answers:
        for c in answer.citations:
            assert c.text
            assert texts[c.document_id][c.start : c.end] == c.text


def test_most_citations_hold_the_answer(answers: list[Answer]) -> None:
    hits = [
        any(c.document_id == name and gold in c.text for c in answer.citations)
        for answer, (_, _, name, gold) in zip(answers, ROWS, strict=True)
    ]
    assert sum(hits) >= MOST, [a.text for a, found in zip(answers, hits, strict=True) if not found]


def test_no_quote_stands_twice_in_an_answer(answers: list[Answer]) -> None:
    for answer in answers:
        spans = [(s.document_id, s.start, s.end) for s in answer.trace.spans]
        assert len(set(spans)) == len(spans), answer.text
