"""What the tests on an engine in a process of its own share: how it is run, asked and checked.

The engine runs with the Python of ``RECALLM_VLLM_PYTHON``. The second runner needs Triton; on a CPU
its kernels are interpreted, over a stand-in for a Triton back end.
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
from recallm_core.decoding.constraint import Constraint, ConstraintRules
from recallm_core.decoding.grammar import OutputRules
from recallm_core.models import shipped
from recallm_core.prompting.prompt import Prompt

HERE = Path(__file__).parent
MINI = shipped("recallm-mini")
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


class Kit:
    """Prompts over a few documents, and engines that answer them.

    Args:
        stub: The stand-in for a Triton back end.
        folder: For the files that go to an engine and back.
        environment: Of a process that runs vLLM.
    """

    questions = QUESTIONS
    documents = DOCUMENTS

    def __init__(self, stub: Path, folder: Path, environment: dict[str, str]) -> None:
        self._stub = stub
        self._folder = folder
        self._environment = environment

    def run(
        self,
        requests: list[dict[str, Any]],
        *,
        runner: int = 1,
        model: Path | None = MINI,
        alone: bool = False,
        counted: bool = False,
        **engine: Any,
    ) -> dict[str, Any]:
        """Has one engine answer all requests at once.

        Args:
            requests: As ``request`` makes them.
            runner: vLLM's first model runner, or its second.
            model: The folder.
            alone: Whether to answer each once more by itself.
            counted: Whether to note which requests the processor meets again.
            engine: Further arguments of ``vllm.LLM``.

        Returns:
            ``outputs``, ids by request and sample; ``alone``, the same; ``preemptions``, by vLLM's
            own count; ``resumed``, for each request met again the tokens it had written;
            ``workers``, how many processes run the model.
        """
        job, out = self._folder / "job.json", self._folder / "out.json"
        settings = {"max_model_len": 4096, "gpu_memory_utilization": 0.3, **engine}
        asked = {"model": str(model), "engine": settings, "requests": requests}
        asked |= {"alone": alone, "counted": counted}
        job.write_text(json.dumps(asked), "utf-8")
        python = os.environ.get("RECALLM_VLLM_PYTHON", sys.executable)
        done = subprocess.run(
            [python, str(HERE / "engine.py"), str(job), str(out)],
            env=self._environment_of(runner),
            capture_output=True,
            text=True,
            timeout=1100,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        told: dict[str, Any] = json.loads(out.read_text("utf-8"))
        assert told["v2"] == (runner == 2)
        return told

    def _environment_of(self, runner: int) -> dict[str, str]:
        environment = self._environment | {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
        }
        if runner == 2:
            environment["PYTHONPATH"] += os.pathsep + str(self._stub)
            environment["TRITON_INTERPRET"] = "1"
        return environment

    def prepared(
        self,
        llm: RecaLLM,
        question: str,
        documents: list[Document] = DOCUMENTS,
        output: OutputRules | None = None,
        **settings: Any,
    ) -> Prompt:
        """The prompt of a question, without a prior and in words unless told otherwise."""
        params = GenerationParams(**{"prior": "none", "answer_form": "words"} | settings)
        messages = [{"role": "user", "content": question}]
        return llm.prepare(messages, documents, params=params, output=output)[0]

    def request(
        self, prompt: Prompt, *, constrained: bool = True, **sampling: Any
    ) -> dict[str, Any]:
        """A prompt as an engine is asked it, greedily unless told otherwise."""
        return {
            "ids": prompt.token_ids.tolist(),
            "spec": prompt.spec.to_json() if constrained else None,
            "sampling": {"temperature": 0.0, "stop_token_ids": list(prompt.spec.eos), **sampling},
        }

    def here(self, llm: RecaLLM, prompt: Prompt, count: int) -> list[int]:
        """What transformers writes, greedily, under the same constraint."""
        asked = GenerationRequest(
            prompt.token_ids, prompt.rules, Sampling(max_new_tokens=count, temperature=0.0)
        )
        return [token for tokens in llm.backend.generate(asked) for token in tokens]

    def followed(self, prompt: Prompt, output: list[int]) -> Constraint:
        """The state after an output, each token of which has to be legal."""
        spec = type(prompt.spec).from_json(prompt.spec.to_json())
        engine = prompt.rules.engine
        state = ConstraintRules.from_spec(spec, prompt.token_ids.tolist(), engine).start()
        for token in output:
            state.consume(token)  # raises where it isn't
        return state

    def quotes(self, prompt: Prompt, state: Constraint) -> int:
        """Spans closed, each a slice of its passage at every place where it is said to stand."""
        for span in state.spans:
            for run, position in span.occurrences:
                passage, start, end = prompt.locate(run, position, len(span.tokens))
                text = prompt.passages[passage].text
                first = prompt.runs[run].first + position
                copied = prompt.token_ids[first : first + len(span.tokens)]
                assert copied.tolist() == list(span.tokens)
                assert start < end <= len(text)
        return len(state.spans)


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    for name, text in STUB.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


@pytest.fixture
def kit(stub: Path, tmp_path: Path, vllm_environment: dict[str, str]) -> Kit:
    return Kit(stub, tmp_path, vllm_environment)


@pytest.fixture(scope="module")
def mini() -> Iterator[RecaLLM]:
    """The shipped model in process."""
    with RecaLLM.load("recallm-mini", prefix_cache_bytes=0, draft_tokens=0) as loaded:
        yield loaded
