"""Runs requests through vLLM in one process; started with vLLM's Python by conftest.py.

python engine.py JOB OUT      JOB and OUT are JSON files
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROCESSOR = "recallm_core.backends.vllm_processor:RecallProcessor"
RESUMED: list[int] = []  # tokens that requests had written when the processor met them again


def main(job_file: str, out_file: str) -> None:
    """Answers every request of a job; says which model runner did."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    job = json.loads(Path(job_file).read_text("utf-8"))
    settings = {
        "load_format": "safetensors",
        "dtype": "float32",
        "enforce_eager": True,
        "max_num_seqs": 16,
        "disable_log_stats": False,
        "logits_processors": [PROCESSOR],
    }
    if job["counted"]:
        settings["logits_processors"] = [counting()]
    llm = LLM(model=job["model"], **settings | job["engine"])
    prompts = [{"prompt_token_ids": request["ids"]} for request in job["requests"]]
    params = [
        SamplingParams(
            detokenize=False,
            extra_args=None if request["spec"] is None else {"recallm": request["spec"]},
            logit_bias={int(k): v for k, v in request.get("bias", {}).items()} or None,
            structured_outputs=StructuredOutputsParams(json=request["schema"])
            if "schema" in request
            else None,
            **request["sampling"],
        )
        for request in job["requests"]
    ]
    outputs = answered(llm, prompts, params)
    preempted = [m.value for m in llm.get_metrics() if m.name == "vllm:num_preemptions"]
    pairs = zip(prompts, params, strict=True) if job["alone"] else ()
    told = {
        "v2": bool(llm.llm_engine.vllm_config.use_v2_model_runner),
        "workers": len(llm.collective_rpc("check_health")),
        "outputs": outputs,
        "preemptions": sum(preempted),
        "resumed": list(RESUMED),
        "alone": [answered(llm, [prompt], [asked])[0] for prompt, asked in pairs],
    }
    Path(out_file).write_text(json.dumps(told), "utf-8")


def counting() -> type[Any]:
    """The processor, which notes what vLLM gives back to it."""
    from recallm_core.serving.processor import RecallProcessor

    class Counting(RecallProcessor):  # type: ignore[misc] # untyped outside vLLM's environment
        def __init__(self, config: Any, states: Any, is_pin_memory: bool | None = None) -> None:
            super().__init__(config, states, is_pin_memory)
            self._slots = states

        def update_state(self, batch_update: Any) -> None:
            if batch_update is not None:
                RESUMED.extend(len(output) for *_, output in batch_update.added if output)
            super().update_state(batch_update)

        def add_request(self, req_idx: int, sampling_params: Any) -> bool:
            lengths = (self._slots.prefill_len.np[req_idx], self._slots.prompt_len.np[req_idx])
            RESUMED.extend([int(lengths[0] - lengths[1])] if lengths[0] > lengths[1] else [])
            return super().add_request(req_idx, sampling_params)

    return Counting


def answered(llm: Any, prompts: list[Any], params: list[Any]) -> list[list[list[int]]]:
    """The ids of every sample of every request, all of them asked at once."""
    found = llm.generate(prompts, params, use_tqdm=False)
    return [[list(each.token_ids) for each in output.outputs] for output in found]


if __name__ == "__main__":
    main(*sys.argv[1:])
