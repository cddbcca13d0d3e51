"""Requests of every kind in one batch, and requests that the engine stops and takes up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recallm_core import RecaLLM
from recallm_core.decoding.grammar import OutputRules, ToolSpec
from recallm_core.prompting.prompt import Prompt

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

SCHEMA = {
    "type": "object",
    "properties": {"open": {"type": "boolean"}, "kind": {"enum": ["ferry", "leave"]}},
    "required": ["open", "kind"],
    "additionalProperties": False,
}
BOOK = ToolSpec(
    "book",
    "Books seats.",
    {
        "type": "object",
        "properties": {"seats": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["seats"],
        "additionalProperties": False,
    },
)


def prompts_of_all_kinds(kit: Any, llm: RecaLLM) -> list[tuple[Prompt, int]]:
    """Prompts over different documents, under different rules, and how far to go on from each."""
    ferry, leave, odd = kit.documents
    asked = kit.questions

    def make(number: int, documents: list[Any], output: Any = None, **settings: Any) -> Prompt:
        prompt: Prompt = kit.prepared(llm, asked[number], documents, output, **settings)
        return prompt

    short = {"max_thinking_tokens": 12, "max_new_tokens": 200}
    return [
        (make(0, [ferry, leave, odd]), 30),
        (make(1, [ferry], max_span_tokens=3), 17),
        (make(2, [leave, odd], recall_in="answer"), 24),
        (make(3, [leave], answer_form="quote"), 40),
        (make(0, [ferry], recall_in="none"), 9),
        (make(4, [odd, leave], boundary="character", max_spans=1), 21),
        (make(0, [ferry, leave], OutputRules(schema=SCHEMA), **short), 60),
        (make(1, [ferry], OutputRules((BOOK,), "required", parallel=False), **short), 60),
    ]


@pytest.mark.parametrize("runner", [1, 2])
def test_each_request_of_a_mixed_batch_gets_what_it_gets_alone(
    kit: Any, folder: Path, runner: int
) -> None:
    with RecaLLM.load(folder, prefix_cache_bytes=0, draft_tokens=0) as llm:
        cases = prompts_of_all_kinds(kit, llm)
        wanted = [kit.here(llm, prompt, count) for prompt, count in cases]
        decode = llm.tokenizer.decode
    prompts = [prompt for prompt, _ in cases]
    greedy = [kit.request(prompt, max_tokens=count) for prompt, count in cases]
    sampled = [
        kit.request(prompt, temperature=1.0, seed=n, max_tokens=count - 4)
        for n, (prompt, count) in enumerate(cases[::2])
    ]
    free = [kit.request(p, constrained=False, max_tokens=n) for p, n in cases[4:6]]
    plain_json = kit.request(prompts[0], constrained=False, max_tokens=40) | {"schema": SCHEMA}
    held = [plain_json] if runner == 1 else []  # vLLM's own kernel can't be interpreted
    requests = [*greedy[::2], *free, *held, *greedy[1::2], *sampled]
    told = kit.run(requests, runner=runner, model=folder, alone=True, max_num_seqs=6)
    assert told["outputs"] == told["alone"]
    outputs = {id(r): output for r, (output,) in zip(requests, told["outputs"], strict=True)}
    assert [outputs[id(request)] for request in greedy] == wanted
    for prompt, request in zip(prompts + prompts[::2], greedy + sampled, strict=True):
        state = kit.followed(prompt, outputs[id(request)])
        kit.quotes(prompt, state)
        assert state.done or prompt.spec.grammar is None or request in sampled
    for request, shut in zip(free, greedy[4:6], strict=True):
        assert outputs[id(request)] != outputs[id(shut)]  # the constraint did something
    for request in held:
        assert decode(outputs[id(request)]).replace(" ", "").startswith('{"open":')
    assert len({len(output) for output in outputs.values()}) >= 6


@pytest.mark.parametrize(("runner", "count"), [(1, 64), (2, 32)])
def test_preempted_requests_go_on_where_they_were(
    kit: Any, mini: RecaLLM, runner: int, count: int
) -> None:
    """Short of memory, and prompts read in pieces; half of the requests quote without an end."""
    asked = [f"{question} {'please ' * n}" for n, question in enumerate(kit.questions)]
    settings = {"max_spans": 72, "max_thinking_tokens": 400, "max_span_tokens": 4}
    plain = [kit.prepared(mini, question) for question in asked]
    quoting = [kit.prepared(mini, question, **settings) for question in asked]
    requests = [kit.request(prompt, max_tokens=count) for prompt in plain + quoting]
    for prompt, request in zip(quoting, requests[len(plain) :], strict=True):
        request["bias"] = {str(prompt.spec.open.ids[0]): 50.0}
    told = kit.run(
        requests,
        runner=runner,
        alone=True,
        counted=True,
        num_gpu_blocks_override=14,
        block_size=32,
        max_num_batched_tokens=64,
        max_model_len=384,
    )
    assert told["preemptions"] >= 3
    assert sum(done > 8 for done in told["resumed"]) >= 3
    assert told["outputs"] == told["alone"]
    for prompt, (output,) in zip(plain + quoting, told["outputs"], strict=True):
        kit.quotes(prompt, kit.followed(prompt, output))
    for prompt, (output,) in zip(plain, told["outputs"][: len(plain)], strict=True):
        assert output == kit.here(mini, prompt, count)
