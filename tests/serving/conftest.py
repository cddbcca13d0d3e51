"""What the tests of a worker's side share: prompts with their specs, and what a row should become.

``kit`` is this module; ``serving.processor`` is the processor over stand-ins for what it imports.
"""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recallm_core.decoding.constraint import Mask
from recallm_core.decoding.grammar import GrammarEngine, OutputRules
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.documents.document import Document
from recallm_core.generator import RecaLLM
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.serving import request as served_rows
from recallm_core.testing import ByteTokenizer, ScriptedBackend

TOKENIZER = ByteTokenizer(["<rec", "all>", " the"])
RECIPES = {
    "trained": trained_recipe(system="{open}{close}", think_open="<think>", think_close="</think>"),
    "prompted": Recipe(system="{open}{close}"),
}
TEXTS = ["Paris is the capital.", "12,5 é🇫🇷 日本 </rec", "the the the"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
RULES = OutputRules((), "auto", SCHEMA, True)
PROCESSOR = "recallm_core.serving.processor"


def prepared(kind: str, **options: Any) -> Prompt:
    """A prompt over the three texts, by a recipe's name."""
    backend = ScriptedBackend(tokenizer=TOKENIZER)
    llm = RecaLLM(backend.tokenizer, backend, RECIPES[kind])
    documents = [Document(text, str(n)) for n, text in enumerate(TEXTS)]
    return llm.prepare([{"role": "user", "content": "q"}], documents, **options)[0]


def engines(spec: ConstraintSpec) -> GrammarEngine:
    return GrammarEngine(TOKENIZER, vocab_size=spec.vocab_size)


def expected_row(before: torch.Tensor, mask: Mask | None, vocab_size: int) -> torch.Tensor:
    """What becomes of a row, one id after the other, by what the mask says of each."""
    if mask is None:
        return before
    found = torch.full_like(before, -torch.inf)
    bias: dict[int, float] = {}
    raised = mask.only if mask.tilted is None else mask.tilted
    if raised is not None and mask.bias is not None:
        bias = dict(zip(raised.tolist(), mask.bias.tolist(), strict=True))
    legal = [token for token in range(vocab_size) if mask.allows(token)]
    tilt = torch.tensor([bias.get(token, 0.0) for token in legal])
    found[legal] = before[legal] + tilt
    if mask.only is not None and not torch.isfinite(found).any():
        found[legal] = 0.0  # others forbade all of it
    return found


class NoWaiting(TorchDispatchMode):
    """Refuses the operations for whose result the host of a GPU would have to wait."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        assert func.overloadpacket not in _WAITING, func
        return func(*args, **(kwargs or {}))


_WAITING = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.nonzero,
    torch.ops.aten.masked_select,
    torch.ops.aten.equal,
    torch.ops.aten.is_nonzero,
}


class RunnerOne(ABC):
    """As in ``vllm.v1.sample.logits_processor``."""

    @abstractmethod
    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None: ...
    @abstractmethod
    def apply(self, logits: torch.Tensor) -> torch.Tensor: ...
    @abstractmethod
    def is_argmax_invariant(self) -> bool: ...
    @abstractmethod
    def update_state(self, batch_update: Any) -> None: ...


class RunnerTwo(ABC):
    """As in ``vllm.v1.worker.gpu.sample.logits_processor``."""

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        raise NotImplementedError

    def apply_staged_writes(self) -> None:
        raise NotImplementedError

    @abstractmethod
    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor: ...


def process_dict_updates(entries: dict[int, Any], update: Any, new: Any) -> None:
    """As vLLM documents it: what was removed, then added, then moved."""
    if update is None:
        return
    for index in update.removed:
        entries.pop(index, None)
    for index, params, prompt, output in update.added:
        entries.pop(index, None)
        made = new(params, prompt, output)
        if made is not None:
            entries[index] = made
    for one, other, swap in update.moved:
        first, second = entries.pop(one, None), entries.pop(other, None)
        if first is not None:
            entries[other] = first
        if second is not None and swap:
            entries[one] = second


_STUBS: dict[str, dict[str, Any]] = {
    "vllm": {},
    "vllm.v1": {},
    "vllm.v1.sample": {},
    "vllm.v1.sample.logits_processor": {"LogitsProcessor": RunnerOne},
    "vllm.v1.sample.logits_processor.builtin": {"process_dict_updates": process_dict_updates},
    "vllm.v1.worker": {},
    "vllm.v1.worker.gpu": {},
    "vllm.v1.worker.gpu.sample": {},
    "vllm.v1.worker.gpu.sample.logits_processor": {"LogitsProcessor": RunnerTwo},
}


@pytest.fixture(scope="session")
def kit() -> Any:
    return sys.modules[__name__]


@pytest.fixture
def forgotten() -> Iterator[None]:
    """The processor's module is imported anew, and not left to others."""
    sys.modules.pop(PROCESSOR, None)
    yield
    sys.modules.pop(PROCESSOR, None)


@pytest.fixture
def vllm_processor(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, members in _STUBS.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(served_rows.HFTokenizer, "from_folder", lambda *_, **__: TOKENIZER)
    return importlib.import_module(PROCESSOR)
