"""Runs requests through vLLM in one process; started with vLLM's Python by test_runners.py.

python engine.py JOB OUT      JOB and OUT are JSON files
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(job_file: str, out_file: str) -> None:
    """Answers every request of a job; says which model runner did."""
    from vllm import LLM, SamplingParams

    job = json.loads(Path(job_file).read_text("utf-8"))
    llm = LLM(
        model=job["model"],
        load_format="safetensors",
        dtype="float32",
        enforce_eager=True,
        max_num_seqs=16,
        logits_processors=["recallm_core.backends.vllm_processor:RecallProcessor"],
        **job["engine"],
    )
    prompts = [{"prompt_token_ids": request["ids"]} for request in job["requests"]]
    params = [
        SamplingParams(
            detokenize=False,
            extra_args=None if request["spec"] is None else {"recallm": request["spec"]},
            logit_bias={int(k): v for k, v in request.get("bias", {}).items()} or None,
            **request["sampling"],
        )
        for request in job["requests"]
    ]
    found = llm.generate(prompts, params, use_tqdm=False)
    config = llm.llm_engine.vllm_config
    outputs = [[list(each.token_ids) for each in output.outputs] for output in found]
    told = {"v2": bool(config.use_v2_model_runner), "outputs": outputs}
    Path(out_file).write_text(json.dumps(told), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
