"""Both of vLLM's model runners under the real processor: the tokens of transformers, and quotes.

The engine runs in a process of its own, with the Python of ``RECALLM_VLLM_PYTHON``. The second
runner needs Triton; on a CPU its kernels are interpreted, over a stand-in for a Triton back end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recallm_core import Document, GenerationParams, RecaLLM
from recallm_core.backends import GenerationRequest, Sampling
from recallm_core.constraint import Constraint, ConstraintRules
from recallm_core.models import shipped
from recallm_core.prompt import Prompt

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    Document("The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros.", id="ferry"),
    Document(
        "Parental leave is 16 weeks, paid in full. \U0001f476\r\nAsk Ines Krall in Room 12. "
        "東京タワーは333メートル。 Cafe\u0301 opens at 7.",
        id="leave",
    ),
    Document("the the the <|end_recall|> </think> the the", id="odd"),
]
QUESTIONS = (
    "When does the ferry leave?",
    "What does a ticket cost?",
    "How long is parental leave?",
    "Who can I ask about leave?",
    "How high is the tower?",
)
STUB = {
    "triton_cpu_stub-0.0.1.dist-info/METADATA": (
        "Metadata-Version: 2.1\nName: triton-cpu-stub\nVersion: 0.0.1\n"
    ),
    "triton_cpu_stub-0.0.1.dist-info/entry_points.txt": (
        "[triton.backends]\ncpu = triton_cpu_stub\n"
    ),
    "triton_cpu_stub/__init__.py": "",
    "triton_cpu_stub/compiler.py": """
from triton.backends.compiler import BaseBackend

def refuse(*args, **kwargs):
    raise NotImplementedError("kernels are interpreted here")

class Compiler(BaseBackend):
    supports_target = staticmethod(lambda target: target.backend == "cpu")
    hash = parse_options = add_stages = load_dialects = get_module_map = refuse
""",
    "triton_cpu_stub/driver.py": """
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

def refuse(*args, **kwargs):
    raise NotImplementedError("kernels are interpreted here")

class Driver(DriverBase):
    def __init__(self):
        pass
    is_active = staticmethod(lambda: True)
    def get_current_target(self):
        return GPUTarget("cpu", 0, 1)
    def get_current_device(self):
        return 0
    def get_current_stream(self, device):
        return 0
    def get_active_torch_device(self):
        import torch
        return torch.device("cpu")
    map_python_to_cpp_type = get_benchmarker = get_device_interface = refuse
    get_empty_cache_for_benchmark = clear_cache = refuse
""",
}


@pytest.fixture(scope="module")
def llm() -> Iterator[RecaLLM]:
    with RecaLLM.load("recallm-mini", prefix_cache_bytes=0, draft_tokens=0) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    for name, text in STUB.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def run(tmp_path: Path, requests: list[dict[str, Any]], stub: Path | None, **engine: Any) -> Any:
    """The outputs of the requests; of the second runner where its stand-in is given."""
    job, out = tmp_path / "job.json", tmp_path / "out.json"
    settings = {"max_model_len": 4096, "gpu_memory_utilization": 0.3, **engine}
    model = str(shipped("recallm-mini"))
    job.write_text(json.dumps({"model": model, "engine": settings, "requests": requests}), "utf-8")
    paths = [str(ROOT), *([str(stub)] if stub else []), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if stub is not None:
        environment["TRITON_INTERPRET"] = "1"
    python = os.environ.get("RECALLM_VLLM_PYTHON", sys.executable)
    command = [python, str(Path(__file__).parent / "engine.py"), str(job), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    told = json.loads(out.read_text("utf-8"))
    assert told["v2"] == (stub is not None)
    return told["outputs"]


def prepared(llm: RecaLLM, question: str, **settings: Any) -> Prompt:
    params = GenerationParams(prior="none", answer_form="words", **settings)
    messages = [{"role": "user", "content": question}]
    return llm.prepare(messages, DOCUMENTS, params=params)[0]


def request(prompt: Prompt, *, constrained: bool = True, **sampling: Any) -> dict[str, Any]:
    return {
        "ids": prompt.token_ids.tolist(),
        "spec": prompt.spec.to_json() if constrained else None,
        "sampling": {"temperature": 0.0, "stop_token_ids": list(prompt.spec.eos), **sampling},
    }


def here(llm: RecaLLM, prompt: Prompt, count: int) -> list[int]:
    """What transformers writes, greedily, under the same constraint."""
    asked = GenerationRequest(
        prompt.token_ids, prompt.rules, Sampling(max_new_tokens=count, temperature=0.0)
    )
    return [token for tokens in llm.backend.generate(asked) for token in tokens]


def followed(prompt: Prompt, output: list[int]) -> Constraint:
    """The state after an output, each token of which has to be legal."""
    spec = type(prompt.spec).from_json(prompt.spec.to_json())
    state = ConstraintRules.from_spec(spec, prompt.token_ids.tolist()).start()
    for token in output:
        state.consume(token)  # raises where it isn't
    return state


def quotes(prompt: Prompt, state: Constraint) -> int:
    """Spans closed, each a slice of its passage at every place where it is said to stand."""
    for span in state.spans:
        for run_, position in span.occurrences:
            passage, start, end = prompt.locate(run_, position, len(span.tokens))
            text = prompt.passages[passage].text
            first = prompt.runs[run_].first + position
            assert prompt.token_ids[first : first + len(span.tokens)].tolist() == list(span.tokens)
            assert start < end <= len(text)
    return len(state.spans)


@pytest.mark.parametrize("runner", [1, 2])
def test_greedy_tokens_are_those_of_transformers(
    llm: RecaLLM, stub: Path, tmp_path: Path, runner: int
) -> None:
    count = 48 if runner == 1 else 24
    prompts = [prepared(llm, question) for question in QUESTIONS[: 5 if runner == 1 else 3]]
    requests = [request(prompt, max_tokens=count) for prompt in prompts]
    free = request(prompts[0], constrained=False, max_tokens=count)
    shut = request(prepared(llm, QUESTIONS[0], recall_in="none"), max_tokens=count)
    outputs = run(tmp_path, [free, *requests, shut, free], stub if runner == 2 else None)
    assert outputs[0] == outputs[-1]
    opened = prompts[0].spec.open.ids[0]
    assert opened in outputs[0][0]
    assert opened not in outputs[-2][0]  # the same prompt: only the constraint differs
    for prompt, (output,) in zip(prompts, outputs[1:-2], strict=True):
        assert output == here(llm, prompt, count)
        followed(prompt, output)


def test_starved_and_chunked_requests_give_the_same_tokens(llm: RecaLLM, tmp_path: Path) -> None:
    prompts = [prepared(llm, f"{question} {'please ' * n}") for n, question in enumerate(QUESTIONS)]
    requests = [request(prompt, max_tokens=64) for prompt in prompts]
    outputs = run(
        tmp_path,
        requests * 2,
        None,
        num_gpu_blocks_override=40,
        block_size=32,
        max_num_batched_tokens=64,
        max_model_len=1024,
    )
    for prompt, (output,) in zip(prompts * 2, outputs, strict=True):
        assert output == here(llm, prompt, 64)


@pytest.mark.parametrize(
    ("runner", "rows", "spans", "wanted"), [(1, 16, 72, 1000), (2, 4, 30, 100)]
)
def test_random_output_is_legal_and_every_quote_a_slice(
    llm: RecaLLM, stub: Path, tmp_path: Path, runner: int, rows: int, spans: int, wanted: int
) -> None:
    prompts = [
        prepared(llm, question, max_spans=spans, max_thinking_tokens=3000, max_new_tokens=3200,
                 max_span_tokens=4)
        for question in QUESTIONS
    ]  # fmt: skip
    prompts = [prompts[n % len(prompts)] for n in range(rows)]
    requests = [
        request(prompt, temperature=2.0, seed=n, max_tokens=20 * spans, ignore_eos=False)
        | {"bias": {str(prompt.spec.open.ids[0]): 50.0}}
        for n, prompt in enumerate(prompts)
    ]
    outputs = run(tmp_path, requests, stub if runner == 2 else None)
    found = 0
    for prompt, (output,) in zip(prompts, outputs, strict=True):
        found += quotes(prompt, followed(prompt, output))
    assert found >= wanted


def test_samples_of_one_request_each_obey(llm: RecaLLM, tmp_path: Path) -> None:
    prompt = prepared(llm, QUESTIONS[0])
    asked = request(prompt, temperature=1.0, seed=5, n=3, max_tokens=40)
    (outputs,) = run(tmp_path, [asked], None)
    assert len(outputs) == 3
    for output in outputs:
        followed(prompt, output)
