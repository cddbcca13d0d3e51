"""Scorers by name: what each says is on one scale, and another one is a file and a line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import typing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recallm_core
from recallm_core import Document, RecaLLM
from recallm_core.evidence.protocol import Recall
from recallm_core.evidence.registry import PRIORS, SCORERS, least_fit, scorer_factory
from recallm_core.evidence.sentence_scorer import support
from recallm_core.prompting.params import PriorName
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.retrieval.embedding import default_embedder
from recallm_core.testing import ByteTokenizer, ScriptedBackend

PACKAGE = Path(recallm_core.__file__).parent
PAGES = [
    "The ferry to Skerry leaves at 9:30. It takes two hours.",
    "# Harbour\n\nAnn Lee runs the harbour. Logs are kept for 45 days.",
    "",
]
QUESTIONS = ["When does the ferry leave?", "Who runs the harbour?", "Wo ist der Hafen?", "?"]


def test_names_are_listed_once_and_for_type_checkers() -> None:
    assert list(PRIORS) == ["none", *SCORERS]
    assert typing.get_args(PriorName) == PRIORS
    source = (PACKAGE / "prompting" / "params.py").read_text("utf-8")
    listed = ", ".join(f'"{name}"' for name in PRIORS)
    assert f"PriorName = Literal[{listed}]" in source


@cache
def asked(question: str, prior: str) -> Any:
    backend = ScriptedBackend(tokenizer=ByteTokenizer())
    llm = RecaLLM(backend.tokenizer, backend, trained_recipe(system="{open}{close}"))
    documents = [Document(text, str(n)) for n, text in enumerate(PAGES)]
    message = {"role": "user", "content": question}
    return llm.prepare([message], documents, prior=prior)[0]


@pytest.mark.parametrize("name", SCORERS)
@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(QUESTIONS),
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["9:30", "Ann Lee", ""])), max_size=3),
)
def test_every_scorer_keeps_the_protocol(
    name: str, question: str, quotes: list[tuple[int, str]]
) -> None:
    prompt = asked(question, name)
    evidence = prompt.evidence
    size = sum(len(run.starts) for run in prompt.runs)
    assert evidence.start_scores.shape == (size,)
    assert np.isfinite(evidence.start_scores).all()
    assert evidence.due >= 1
    fit = evidence.fit([Recall(*quote) for quote in quotes])
    assert fit is None or 0 <= fit <= 1
    for section in ("thinking", "answer"):
        bias = evidence.bias(section, ())
        assert bias.start_scores.shape == (size,)
        assert bias.end_log_odds is None or bias.end_log_odds.shape == (size,)


THRESHOLDS = st.floats(0, 2, allow_subnormal=False)  # half of the least of those is nothing


@given(st.sampled_from(QUESTIONS), st.lists(st.sampled_from(PAGES), max_size=2), THRESHOLDS)
def test_what_was_enough_in_points_is_enough_on_the_one_scale(
    question: str, quotes: list[str], least: float
) -> None:
    """``min_support`` counts in points; they and ``fit`` decide alike, whatever the threshold."""
    evidence = asked(question, "sentences").evidence
    fit = evidence.fit([Recall(0, text) for text in quotes])
    points = support(question, quotes, None, embedder=default_embedder())
    threshold = least_fit("sentences", Recipe(min_support=least))
    assert (fit >= threshold) == (points >= least or least == 0)


def test_only_the_threshold_of_the_scorer_in_use_counts() -> None:
    recipe = Recipe(min_support=0.5, min_answerable=0.1)
    assert [least_fit(name, recipe) for name in PRIORS] == [0.0, 0.25, 0.1]
    assert all(callable(scorer_factory(name)) for name in SCORERS)


FOURTH = '''
from recallm_core.decoding.constraint import SpanBias
import numpy as np

class Last:
    """Prefers the last place of all."""

    due = 1

    def __init__(self, question, places, max_quotes):
        self.start_scores = np.arange(len(places.can_start), dtype=np.float32)

    def bias(self, section, spans):
        return SpanBias(self.start_scores.astype(float))

    def fit(self, recalled):
        return 0.75

def last(passages):
    return Last
'''
LINE = '    "last": Entry("recallm_core.evidence.last:last"),\n'
USE = """
    import sys, typing
    from recallm_core import GenerationParams, RecaLLM, Recipe, evidence
    from recallm_core.prompting.recipe import trained_recipe
    from recallm_core.testing import scripted_llm

    assert not evidence.__file__.startswith(sys.argv[1])
    recipe = trained_recipe(prior="last", min_answerable=0.7, system="{open}{close}")
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    script = "<|start_recall|>9:30.<|end_recall|></think>9:30."
    asked = ("When does it leave?", ["It leaves at 9:30."])
    answer = scripted_llm(script, recipe=recipe).answer(*asked)
    print(answer.support, answer.abstained, answer.citations[0].text)
    strict = Recipe.from_dict(recipe.to_dict() | {"min_answerable": 0.8})
    print(scripted_llm(script, recipe=strict).answer(*asked).abstained)
    print(GenerationParams(prior="last").prior)
    try:
        from langchain_recallm import ChatRecaLLM
    except ImportError:
        print("last")
    else:
        print(ChatRecaLLM(prior="last").prior)
"""


def test_a_fourth_scorer_is_a_file_and_a_line(tmp_path: Path) -> None:
    copy = tmp_path / "recallm_core"
    copy.mkdir()
    for part in PACKAGE.iterdir():
        if part.name not in ("evidence", "__pycache__"):
            (copy / part.name).symlink_to(part)
    shutil.copytree(PACKAGE / "evidence", copy / "evidence")
    (copy / "evidence" / "last.py").write_text(FOURTH)
    registry = copy / "evidence" / "registry.py"
    before, after = registry.read_text("utf-8").split("}\n\nPRIORS")
    registry.write_text(f"{before}{LINE}}}\n\nPRIORS{after}")
    paths = [str(tmp_path), str(PACKAGE.parent / "integrations")]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(USE), str(PACKAGE)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.75", "False", "9:30.", "True", "last", "last"]
