"""Both of vLLM's model runners under the real processor: the tokens of transformers, and quotes."""

from __future__ import annotations

from typing import Any

import pytest

from recallm_core import RecaLLM

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("runner", [1, 2])
def test_greedy_tokens_are_those_of_transformers(kit: Any, mini: RecaLLM, runner: int) -> None:
    count = 48 if runner == 1 else 24
    prompts = [
        kit.prepared(mini, question) for question in kit.questions[: 5 if runner == 1 else 3]
    ]
    requests = [kit.request(prompt, max_tokens=count) for prompt in prompts]
    free = kit.request(prompts[0], constrained=False, max_tokens=count)
    shut = kit.request(kit.prepared(mini, kit.questions[0], recall_in="none"), max_tokens=count)
    outputs = kit.run([free, *requests, shut, free], runner=runner)["outputs"]
    assert outputs[0] == outputs[-1]
    opened = prompts[0].spec.open.ids[0]
    assert opened in outputs[0][0]
    assert opened not in outputs[-2][0]  # the same prompt: only the constraint differs
    for prompt, (output,) in zip(prompts, outputs[1:-2], strict=True):
        assert output == kit.here(mini, prompt, count)
        kit.followed(prompt, output)


@pytest.mark.parametrize(
    ("runner", "rows", "spans", "wanted"), [(1, 16, 72, 1000), (2, 4, 30, 100)]
)
def test_random_output_is_legal_and_every_quote_a_slice(
    kit: Any, mini: RecaLLM, runner: int, rows: int, spans: int, wanted: int
) -> None:
    prompts = [
        kit.prepared(mini, question, max_spans=spans, max_thinking_tokens=3000, max_new_tokens=3200,
                 max_span_tokens=4)
        for question in kit.questions
    ]  # fmt: skip
    prompts = [prompts[n % len(prompts)] for n in range(rows)]
    requests = [
        kit.request(prompt, temperature=2.0, seed=n, max_tokens=20 * spans, ignore_eos=False)
        | {"bias": {str(prompt.spec.open.ids[0]): 50.0}}
        for n, prompt in enumerate(prompts)
    ]
    outputs = kit.run(requests, runner=runner)["outputs"]
    found = 0
    for prompt, (output,) in zip(prompts, outputs, strict=True):
        found += kit.quotes(prompt, kit.followed(prompt, output))
    assert found >= wanted


def test_samples_of_one_request_each_obey(kit: Any, mini: RecaLLM) -> None:
    prompt = kit.prepared(mini, kit.questions[0])
    asked = kit.request(prompt, temperature=1.0, seed=5, n=3, max_tokens=40)
    (outputs,) = kit.run([asked])["outputs"]
    assert len(outputs) == 3
    for output in outputs:
        kit.followed(prompt, output)
