"""Tiny random models, rules made without a tokenizer, and the slow loop all must agree with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from recallm_core.backends import GenerationRequest, Sampling
from recallm_core.backends.local.transformers import TransformersBackend
from recallm_core.decoding.constraint import ConstraintRules, Prior, build_index
from recallm_core.decoding.evidence_policy import EvidenceRules
from recallm_core.decoding.spec import ConstraintSpec, Tag, hash_tokens

VOCAB, WORDS = 300, 280
OPEN, CLOSE, THINK, EOS = 290, 291, 292, 299
POLICIES = {
    "first": EvidenceRules("first", (WORDS, WORDS + 1), frozenset(range(0, 40)), least=2),
    "required": EvidenceRules("required", ends=frozenset(range(0, 60)), patience=9),
}


class Kit:
    """What the tests of this folder build their cases from."""

    vocab, words = VOCAB, WORDS
    open, close, think, eos = OPEN, CLOSE, THINK, EOS
    policies = POLICIES

    def __init__(self) -> None:
        self._models: dict[tuple[Any, ...], Any] = {}

    def model(self, kind: str = "qwen2", **extra: Any) -> Any:
        """A random model that opens and closes spans readily; one instance per description."""
        key = (kind, *sorted(extra.items()))
        if key not in self._models:
            self._models[key] = self.fresh_model(kind, **extra)
        return self._models[key]

    def fresh_model(self, kind: str = "qwen2", seed: int = 0, **extra: Any) -> Any:
        settings = {
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
            "initializer_range": 0.25,
            "eos_token_id": EOS,
            "bos_token_id": None,
            "pad_token_id": 0,
        } | extra
        implementation = settings.pop("attn_implementation", None)
        config = transformers.AutoConfig.for_model(kind, **settings)
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=implementation
        ).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" not in name:
                    parameter.normal_(std=0.25)
            head = model.get_output_embeddings().weight
            head[[OPEN, CLOSE]] *= 3
            head[[THINK, EOS]] *= 0.7
        return model

    def prompt(self, length: int, seed: int, alphabet: int = WORDS) -> NDArray[np.int32]:
        return np.random.default_rng(seed).integers(0, alphabet, length).astype(np.int32)

    def rules(self, ids: NDArray[np.int32], seed: int = 0, **changes: Any) -> ConstraintRules:
        """Rules over two or three runs of a prompt, with random boundaries."""
        rng = np.random.default_rng([seed, len(ids)])
        cuts = np.sort(rng.choice(np.arange(1, len(ids)), size=4, replace=False))
        runs = tuple((int(a), int(b)) for a, b in (cuts[:2], cuts[2:]) if b > a)
        size = sum(b - a for a, b in runs)
        spec = ConstraintSpec(
            **{
                "prompt_length": len(ids),
                "prompt_hash": hash_tokens(ids),
                "vocab_size": VOCAB,
                "runs": runs,
                "can_start": rng.random(size) < 0.7,
                "can_end": rng.random(size) < 0.5,
                "can_end_hard": np.ones(size, dtype=np.bool_),
                "open": Tag("<r>", (OPEN,)),
                "close": Tag("</r>", (CLOSE,)),
                "think_close": Tag("</t>", (THINK,)),
                "thinking": True,
                "eos": (EOS,),
                "max_span_tokens": 12,
                "max_thinking_tokens": 25,
            }
            | changes
        )
        return ConstraintRules(spec, build_index(spec, ids))

    def request(
        self,
        ids: NDArray[np.int32],
        rules: ConstraintRules | None = None,
        *,
        prior: Prior | None = None,
        prefix_length: int = 0,
        **sampling: Any,
    ) -> GenerationRequest:
        values = {"max_new_tokens": 40, "temperature": 0.0} | sampling
        return GenerationRequest(
            token_ids=ids,
            rules=rules or self.rules(ids),
            sampling=Sampling(**values),
            prior=prior,
            prefix_length=prefix_length,
        )

    def read(self, backend: TransformersBackend, request: GenerationRequest) -> list[int]:
        return [token for tokens in backend.generate(request) for token in tokens]

    @torch.inference_mode()
    def reference(self, model: Any, request: GenerationRequest) -> list[int]:
        """The same output the slow way: no cache, no batch, no draft, the mask written by hand."""
        sampling = request.sampling
        constraint = request.rules.start(request.prior)
        random = np.random.default_rng(sampling.seed)
        ids = request.token_ids.tolist()
        output: list[int] = []
        while len(output) < sampling.max_new_tokens and not constraint.done:
            logits = model(torch.tensor([ids + output])).logits[0, -1].double().numpy()
            token = _choose(logits, constraint.mask(), sampling, random)
            constraint.consume(token)
            output.append(token)
        return output

    def spans(self, request: GenerationRequest, output: list[int]) -> list[tuple[int, ...]]:
        """The closed spans of an output, checked to be copies of the prompt within one run."""
        constraint = request.rules.start(request.prior)
        for token in output:
            constraint.consume(token)
        for span in constraint.spans:
            assert span.occurrences
            for run, at in span.occurrences:
                start, stop = request.rules.spec.runs[run]
                copied = request.token_ids[start + at : start + at + len(span.tokens)]
                assert tuple(copied.tolist()) == span.tokens
                assert start + at + len(span.tokens) <= stop
        return [span.tokens for span in constraint.spans]


def _choose(logits: Any, mask: Any, sampling: Sampling, random: np.random.Generator) -> int:
    masked = np.full_like(logits, -np.inf)
    if mask.only is None:
        masked[:] = logits
        if mask.tilted is not None:
            masked[mask.tilted] += mask.bias
        masked[mask.forbid] = -np.inf
    else:
        masked[mask.only] = logits[mask.only] + (0 if mask.bias is None else mask.bias)
    if np.isfinite(masked).sum() == 1 or sampling.temperature == 0:
        return int(masked.argmax())
    scaled = masked / sampling.temperature
    shares = np.exp(scaled - scaled.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")
    sums = np.cumsum(shares[order])
    count = int(np.searchsorted(sums, sampling.top_p)) + 1 if sampling.top_p < 1 else len(sums)
    sums = sums[:count]
    place = int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
    return int(order[min(place, len(sums) - 1)])


@pytest.fixture(scope="session")
def kit() -> Kit:
    torch.set_num_threads(1)
    return Kit()


@pytest.fixture
def backend_of() -> Iterator[Any]:
    """Makes backends that are closed when the test ends."""
    made: list[TransformersBackend] = []

    def make(model: Any, **settings: Any) -> TransformersBackend:
        made.append(TransformersBackend(model, **settings))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
