"""In every suite, whatever the model would like to say: with the mask, spans are the documents'."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recallm_core.evaluation.frame.lengths import Meter
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.frame.ways import ByRecall
from recallm_core.evaluation.helmet import tasks as helmet
from recallm_core.evaluation.helmet.places import Place
from recallm_core.evaluation.positions import items as positions
from recallm_core.evaluation.ruler import tasks as ruler
from recallm_core.prompting.params import GenerationParams
from recallm_core.testing import random_llm, scripted_llm
from tests.evaluation.long_contexts import data_folder

_VALUE = re.compile(r"\b\d{7}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_folder(tmp_path_factory.mktemp("data"))


@cache
def everything(folder: Path) -> list[Sample]:
    """A sample of every task of every suite; look-ups after thought have a test of their own."""
    meter = Meter(scripted_llm(""))
    texts, place = ruler.Texts(folder), Place(folder)
    rows = positions.questions(folder, 1, 0)
    made = positions.samples(rows, 10, 4, folder=folder, meter=meter)
    for name, task in ruler.TASKS.items():
        length = 12_000 if name == "cwe" else 5000
        made += ruler.samples(task, length, 1, seed=0, meter=meter, texts=texts)
    for name, other in helmet.TASKS.items():
        if name != "handbook":
            made += helmet.samples(other, 5000, 1, seed=0, meter=meter, place=place)
    return made


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.integers(0, 100))
def test_no_span_is_garbled_or_invented(folder: Path, seed: int, index: int) -> None:
    samples = everything(folder)
    sample = samples[index % len(samples)]
    way = ByRecall(random_llm(seed=seed), "recall", GenerationParams(temperature=0.0), 24)
    (answer,) = way([sample])
    texts = [document.text for document in sample.documents]
    assert answer.verbatim == len(answer.quoted)
    for span in answer.quoted:
        assert any(span in text for text in texts)
        assert all(any(v in text for text in texts) for v in _VALUE.findall(span))
    for citation in answer.citations:
        (source,) = (d.text for d in sample.documents if d.id == citation.document)
        assert source[citation.start : citation.end] == citation.text
