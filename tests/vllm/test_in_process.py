"""``RecaLLM.load(..., backend="vllm")``: what is public, against the same model in transformers.

The model runs in a process of its own (host.py), with the Python of ``RECALLM_VLLM_PYTHON``; its
answers come back and are checked here. On a CPU this is vLLM's first model runner.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recallm_core import AnswerDelta, Document, Finished, RecallDelta, RecaLLM

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

PATIENCE = 400  # seconds, on two busy cores; loading takes some 30 when they are quiet
FERRY = Document("The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros.", id="ferry")
TOWER = Document(
    "Ask Ines Krall in Room 12. \U0001f476\r\n東京タワーは333メートル。 Cafe\u0301 opens at 7.",
    id="tower",
)
DOCUMENTS = [FERRY, TOWER]
QUESTIONS = (
    "When does the ferry leave?",
    "What does a ticket cost?",
    "How high is the tower?",
    "Who can I ask?",
)
PLAIN: dict[str, Any] = {"temperature": 0.0, "prior": "none"}  # what is equal in and out of process
SHORT: dict[str, Any] = {"max_new_tokens": 100, "max_thinking_tokens": 24}
LONG: dict[str, Any] = {  # noise, which goes on until its limit
    "temperature": 2.0,
    "top_p": 1.0,
    "recall_in": "none",
    "max_new_tokens": 15_000,
    "max_thinking_tokens": 14_900,
}


class HostError(Exception):
    """What the other process raised, as text."""


class Host:
    """The other process; a call of it that takes too long, or that it doesn't survive, fails."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        self.line, other = multiprocessing.Pipe()
        python = os.environ.get("RECALLM_VLLM_PYTHON", sys.executable)
        command = [python, str(Path(__file__).parent / "host.py"), str(other.fileno())]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=out,
                stderr=out,
                pass_fds=[other.fileno()],
                start_new_session=True,
            )
        other.close()

    def __call__(self, name: str, *args: Any, **settings: Any) -> Any:
        try:
            self.line.send((name, args, settings))
            if not self.line.poll(PATIENCE):
                raise TimeoutError(f"{name} takes longer than {PATIENCE} s")
            fine, found = self.line.recv()
        except (OSError, EOFError) as error:
            text = self.log.read_text(errors="replace")[-6000:]
            raise AssertionError(f"{name} was never answered ({error!r}):\n{text}") from error
        if not fine:
            raise HostError(found)
        return found

    def leave(self) -> int:
        """Lets the process end, with whatever it has open."""
        self.line.send(("leave", (), {}))
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self.line.close()


@pytest.fixture(scope="module")
def host(
    tmp_path_factory: pytest.TempPathFactory, vllm_environment: dict[str, str]
) -> Iterator[Host]:
    """The other process, with no model yet."""
    started = Host(tmp_path_factory.mktemp("host") / "log", vllm_environment)
    yield started
    started.kill()


OPTIONS: dict[str, Any] = {
    "window": 16_384,
    "max_num_seqs": 16,
    "enforce_eager": True,
    "disable_log_stats": False,  # for the number of running requests
}


@pytest.fixture(scope="module")
def about(host: Host, folder: Path) -> Any:
    """What the loaded model says of itself."""
    return host("load", folder, **OPTIONS)


@pytest.fixture
def llm(host: Host, about: Any) -> Host:
    """The other process, with its model."""
    return host


def check(answer: Any) -> None:
    texts = {document.id: document.text for document in DOCUMENTS}
    for c in answer.citations:
        assert texts[c.document_id][c.start : c.end] == c.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"speculative_config": {"method": "ngram"}}, "ValueError: speculative_config can't be "
         "set: drafted tokens aren't held to the documents"),
        ({"spec_method": "ngram", "spec_tokens": 3}, "ValueError: spec_method can't be set"),
        ({"trust_remote_code": True}, "ValueError: trust_remote_code .*never runs"),
        ({"logits_processors": []}, "ValueError: logits_processors can't be set"),
        ({"max_batch": 3}, r"TypeError: unknown options \['max_batch'\]; known: .*max_num_seqs"),
        ({"mode": "magic"}, "ValueError: mode must be one of"),
        ({"window": 10**9}, "CheckpointError: vLLM can't run .*derived.*__main__"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_starts(
    host: Host, folder: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(HostError, match=said):
        host("load", folder, **options)


def test_a_bad_folder_is_refused(host: Host, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"CheckpointError: no model folder at"):
        host("load", tmp_path / "nowhere")
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(HostError, match=r"CheckpointError: .*pickles"):
        host("load", pickled)


def test_loading_says_what_is_there(about: dict[str, Any], folder: Path, local: RecaLLM) -> None:
    assert about["engine"].startswith("vLLM 0.")
    assert about["runner"] in ("V1", "V2")
    assert about["model"] == folder.name
    assert (about["window"], about["vocab_size"]) == (OPTIONS["window"], local.backend.vocab_size)
    assert about["recipe"] == local.recipe
    assert about["fingerprint"] == local.tokenizer.fingerprint


def test_the_same_tokens_as_transformers(llm: Host, local: RecaLLM) -> None:
    spans = 0
    for question in QUESTIONS:
        here = local.answer(question, DOCUMENTS, **PLAIN)
        there = llm("answer", question, DOCUMENTS, **PLAIN)
        assert there.trace == here.trace
        assert there.citations == here.citations
        assert there.finish_reason == here.finish_reason
        check(there)
        spans += len(there.trace.spans)
    assert spans > 4
    cut = {**PLAIN, "max_new_tokens": 9}
    here, there = local.answer("Why?", DOCUMENTS, **cut), llm("answer", "Why?", DOCUMENTS, **cut)
    assert (there.trace, there.finish_reason) == (here.trace, here.finish_reason)


def test_the_same_conversation_as_with_transformers(llm: Host, local: RecaLLM) -> None:
    first = local.answer(QUESTIONS[0], DOCUMENTS, **PLAIN)
    messages = [
        {"role": "user", "content": QUESTIONS[0]},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": QUESTIONS[1]},
    ]
    here = local.chat(messages, DOCUMENTS, **PLAIN)
    there = llm("chat", messages, DOCUMENTS, **PLAIN)
    assert there.trace == here.trace
    assert there.citations == here.citations


def test_tools_and_schemas(llm: Host, local: RecaLLM, tool: Any, schema: Any) -> None:
    messages = [{"role": "user", "content": "Book seats on the ferry."}]
    asked = {"tools": [tool], "tool_choice": "required", **PLAIN}
    answer = llm("chat", messages, [FERRY], **asked)
    here = local.chat(messages, [FERRY], **asked)
    assert [(c.name, c.arguments) for c in answer.tool_calls] == [
        (c.name, c.arguments) for c in here.tool_calls
    ]
    assert 1 <= answer.tool_calls[0].arguments["seats"] <= 9
    answer = llm("chat", messages, [FERRY], response_schema=schema, **PLAIN)
    assert answer.trace == local.chat(messages, [FERRY], response_schema=schema, **PLAIN).trace
    assert set(json.loads(answer.text)) == {"open", "kind"}


@pytest.mark.parametrize("policy", ["free", "required", "first"])
def test_every_policy_gives_the_tokens_of_transformers(
    llm: Host, local: RecaLLM, tool: Any, schema: Any, policy: str
) -> None:
    settings: dict[str, Any] = {**PLAIN, **SHORT, "evidence": policy}
    here = [local.answer(question, DOCUMENTS, **settings) for question in QUESTIONS[:2]]
    together = llm("answer_batch", [(q, DOCUMENTS) for q in QUESTIONS[:2]], **settings)
    *_, last = llm("events", QUESTIONS[0], DOCUMENTS, **settings)
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    for form in ({"response_schema": schema}, {"tools": [tool], "tool_choice": "required"}):
        here.append(local.chat(messages, DOCUMENTS, **form, **settings))
        together.append(llm("chat", messages, DOCUMENTS, **form, **settings))
    for one, other in zip([here[0], *here], [last.answer, *together], strict=True):
        assert (other.trace, other.citations) == (one.trace, one.citations)
        assert [c.arguments for c in other.tool_calls] == [c.arguments for c in one.tool_calls]
        assert one.trace.spans or policy == "free"


def test_a_static_prior_goes_along(llm: Host) -> None:
    for question in QUESTIONS[:2]:
        answer = llm("answer", question, DOCUMENTS, temperature=0.0)
        assert answer.trace.spans
        check(answer)


def test_a_stream_is_the_answer_in_pieces(llm: Host) -> None:
    *events, last = llm("events", QUESTIONS[0], DOCUMENTS, **PLAIN)
    whole = llm("answer", QUESTIONS[0], DOCUMENTS, **PLAIN)
    assert isinstance(last, Finished)
    assert last.answer.trace == whole.trace
    assert last.answer.citations == whole.citations
    recalled = "".join(event.text for event in events if isinstance(event, RecallDelta))
    assert recalled == "".join(span.text for span in whole.trace.spans)
    written = sum(len(event.text) for event in events if isinstance(event, AnswerDelta))
    assert written + sum(len(s.text) for s in whole.trace.spans if s.section == "answer") == len(
        whole.trace.answer
    )
    assert len(events) > 5


def test_sixteen_at_once_are_like_one_after_another(llm: Host) -> None:
    asked = [(QUESTIONS[n % 4], DOCUMENTS) for n in range(16)]
    alone = [llm("answer", question, documents, **PLAIN) for question, documents in asked[:4]]
    for together in (llm("answer_batch", asked, **PLAIN), llm("gather", asked, **PLAIN)):
        assert len(together) == 16
        for number, answer in enumerate(together):
            assert answer.trace == alone[number % 4].trace


def test_sampled_answers_repeat_with_their_seed(llm: Host) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "prior": "none"}
    seeds = (7, 7, -1, -1, 2, 3, None, None)
    found = [llm("answer", QUESTIONS[3], DOCUMENTS, seed=seed, **settings).trace for seed in seeds]
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert len(set(found)) > 2


def test_the_second_question_finds_the_passages_in_the_cache(llm: Host) -> None:
    text = " ".join(f"Shed {n} holds {n * 7} kilos of rope." for n in range(60))
    document = Document(text, id="sheds")
    for question in ("What does shed 3 hold?", "What does shed 7 hold?"):
        answer = llm("answer", question, [document], max_new_tokens=8)
    assert answer.usage.cached_tokens > 100


def test_a_seeded_request_with_a_long_prompt(llm: Host) -> None:
    """Longer than what vLLM reads at once by default; on a CPU that used to end its engine."""
    text = " ".join(f"Shed {n} holds {n * 7} kilos of rope." for n in range(180))
    answer = llm("answer", "What does shed 3 hold?", [text], seed=1, max_new_tokens=8)
    assert answer.usage.prompt_tokens > 2048


def test_random_answers_keep_every_promise(llm: Host, guarantees: Any) -> None:
    """G1 to G4 and G6: the property checks of the core, over documents made to break them."""
    source = random.Random(5)
    given = [guarantees.documents(source)[:4] for _ in range(16)]
    asked = [(guarantees.QUESTION, documents) for documents in given]
    settings = {"max_new_tokens": 400, "max_span_tokens": 64, "temperature": 2.0, "top_p": 1.0}
    answers = llm("noise", asked, **settings, seed=3, prior="none", answer_form="words")
    spans = sum(map(guarantees.check_answer, answers, given))
    assert spans >= 60


def test_the_same_request_gives_the_same_tokens(llm: Host, guarantees: Any) -> None:
    """G5, also where the second finds the first's keys in the cache."""
    documents = guarantees.documents(random.Random(6))
    first, second = (
        llm("noise", [(guarantees.QUESTION, documents)], temperature=0.0, max_new_tokens=200)[0]
        for _ in range(2)
    )
    assert second.trace == first.trace
    assert second.usage.cached_tokens > first.usage.cached_tokens


@pytest.mark.parametrize("spec", ["", "{}", "[1]", '{"version": 99}'])
def test_a_bad_constraint_is_refused_and_the_engine_lives(llm: Host, spec: str) -> None:
    with pytest.raises(HostError, match=r"GenerationError: vLLM didn't take .*can't be used"):
        llm("bare", spec)
    check(llm("answer", QUESTIONS[0], DOCUMENTS, **PLAIN))


def test_what_does_not_fit_is_refused_as_elsewhere(llm: Host) -> None:
    with pytest.raises(HostError, match=r"ContextOverflowError: .* context length is 16,384"):
        llm("answer", "When? " * 16_000, DOCUMENTS)


@pytest.mark.parametrize("how", ["close", "drop", "cancel"])
def test_nobody_waits_and_the_engine_stops(llm: Host, how: str) -> None:
    """Long before the request's limit, which is minutes away on one core."""
    assert llm("abandon", how, QUESTIONS[0], [FERRY], **LONG) == (1, 0)


def test_a_dead_engine_is_an_error_at_once_and_can_be_replaced(llm: Host, folder: Path) -> None:
    said = llm("kill", QUESTIONS[0], [FERRY], **LONG)
    assert [text.partition(":")[0] for text in said] == ["GenerationError"] * 2
    for text in said:
        assert "engine has ended" in text
        assert "load it again" in text
    llm("load", folder, **OPTIONS)
    check(llm("answer", QUESTIONS[0], DOCUMENTS, **PLAIN))


def test_a_forgotten_close_does_not_hold_python(
    llm: Host, group: Callable[[int], list[int]]
) -> None:
    """The last one: the process doesn't come back."""
    assert len(group(llm.process.pid)) > 1
    assert llm.leave() == 0
    end = time.monotonic() + 30
    while group(llm.process.pid) and time.monotonic() < end:
        time.sleep(0.2)
    assert group(llm.process.pid) == []
