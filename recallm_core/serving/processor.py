"""The logits processor that vLLM loads: one class for its model runners V1 and V2.

Start a server with ``--logits-processors recallm_core.backends.vllm_processor:RecallProcessor``, as
``recallm serve`` does. All decisions are ``serving.request``'; this file knows where vLLM keeps
prompts and outputs. Interfaces as of vLLM 0.31 to 0.33. ``apply`` must never raise: that would end
the engine for everyone.

What is legal is decided on the host. The second runner keeps all ids on the device, so there the
host has to know the token that the last step sampled, and waits for that alone: its copy is queued
before the forward pass (``slot_tokens``), the masks are made while the device computes, and go up
without a further wait (``backends.masking``). A device that is done with its forward pass before
the host is done with the masks waits for them. Tables on the device would spare that for copies,
but not for marks that are text, limits, priors and grammars. The order of copies and waits is
tested with a stand-in for a busy device, and the whole on a CPU with interpreted kernels; no GPU
has run it yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from recallm_core.backends.masking import RowMask, write_masks
from recallm_core.backends.vllm.manifest import INSTALL_VLLM
from recallm_core.backends.vllm.wire import ARGUMENT
from recallm_core.errors import MissingExtraError
from recallm_core.serving.grammar_check import grammar_problem
from recallm_core.serving.request import FolderEngines, ServedRow, SharedRules, read_spec
from recallm_core.serving.slot_tokens import SlotTokens

try:
    from vllm.v1.sample.logits_processor import LogitsProcessor as RunnerOne
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "vllm":
        raise
    raise MissingExtraError(f"this logits processor is vLLM's to load; {INSTALL_VLLM}") from error
try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as RunnerTwo
except ImportError:  # before vLLM 0.31 there is only the first runner
    RunnerTwo = object


@dataclass(frozen=True, slots=True)
class _ListedRequest:
    """A request of the first runner, which lengthens the output itself."""

    row: ServedRow
    prompt: list[int]
    output: list[int]


class RecallProcessor(RunnerOne, RunnerTwo):  # type: ignore[misc] # both untyped here
    """Holds the requests that carry a constraint to it; all others pass untouched.

    Args:
        vllm_config: vLLM's configuration.
        states: The first runner's device, or the second's request states.
        is_pin_memory: Given by the first runner only.

    Raises:
        ValueError: The server decodes speculatively: drafted tokens reach no processor.
    """

    def __init__(self, vllm_config: Any, states: Any, is_pin_memory: bool | None = None) -> None:
        if vllm_config.speculative_config is not None:
            raise ValueError(
                "RecaLLM's quotes need each token checked, and speculative decoding checks several "
                "at once without this processor; start the server without it"
            )
        model = vllm_config.model_config
        self._engines = FolderEngines(str(model.tokenizer), vocab_size=model.get_vocab_size())
        self._shared = SharedRules()
        self._listed: dict[int, _ListedRequest] = {}  # V1, by batch index
        self._rows: dict[int, ServedRow] = {}  # V2, by slot
        if is_pin_memory is None:
            self._states = states
            self._tokens = SlotTokens(states)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Checks a request's constraint before it is queued.

        Raises:
            ValueError: It can't be used, or another setting would override it; over HTTP that is
                a 400.
        """
        spec = read_spec(sampling_params.extra_args)
        if spec is None:
            return
        for name in ("structured_outputs", "thinking_token_budget"):
            if getattr(sampling_params, name, None) is not None:
                raise ValueError(
                    f"{name} can't be set beside a constraint, which it would override"
                )
        problem = None if spec.grammar is None else grammar_problem(spec.grammar.text)
        if problem is not None:
            raise ValueError(f"the grammar in the argument {ARGUMENT!r} can't be used: {problem}")

    def _row(self, params: Any) -> ServedRow | None:
        spec = self._shared.read_spec(params.extra_args)
        if spec is None:
            return None
        self._engines.prepare(spec)
        return ServedRow(spec, self._engines, self._shared.bind)

    # The first runner: requests by batch index, outputs in live lists.

    def is_argmax_invariant(self) -> bool:
        """Returns False: a mask may forbid the likeliest token, so greedy decoding needs it."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follows the requests that joined, left or moved within the batch."""
        process_dict_updates(self._listed, batch_update, self._list)

    def _list(
        self, params: Any, prompt: list[int] | None, output: list[int]
    ) -> _ListedRequest | None:
        row = self._row(params)
        # embeddings have no ids, and recall stays closed
        return None if row is None else _ListedRequest(row, prompt or [], output)

    def _listed_masks(self, rows: int, width: int) -> list[RowMask]:
        masks = []
        for index, listed in sorted(self._listed.items()):
            mask = listed.row.mask(listed.prompt, listed.output, width) if index < rows else None
            if mask is not None:
                masks.append(RowMask(index, mask, listed.row.spec.vocab_size))
        return masks

    # The second runner: requests by slot, all ids in its buffers.

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Takes up a request in a slot; whatever was there before is gone."""
        row = self._row(sampling_params)
        if row is None:
            self._rows.pop(req_idx, None)
            self._tokens.drop(req_idx)
            return False
        self._rows[req_idx] = row
        self._tokens.take(req_idx)
        return True

    def apply_staged_writes(self) -> None:
        """Begins to fetch what the last step sampled; vLLM calls it before each forward pass."""
        self._tokens.stage()

    def _slot_masks(self, ctx: Any, rows: int, width: int) -> list[RowMask]:
        slots, lengths = ctx.idx_mapping_np.tolist(), ctx.seq_lens_upper_bound_np.tolist()
        sampled = [
            (index, slot, length)
            for index, (slot, length) in enumerate(zip(slots[:rows], lengths, strict=False))
            if slot in self._rows and length >= self._states.prefill_len.np[slot]
        ]  # the others' prompts are still being read, nothing is sampled
        if sampled:
            self._tokens.collect()
        masks = []
        for index, slot, length in sampled:
            row, history = self._rows[slot], self._tokens.read(slot, length)
            mask = row.mask(history.prompt, history.output, width)
            if mask is not None:
                masks.append(RowMask(index, mask, row.spec.vocab_size))
        return masks

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Forbids what is illegal, in place.

        Args:
            logits: One row a request, ``[rows, vocabulary]``.
            ctx: The second runner's layout of the batch.
        """
        rows, width = logits.shape
        if ctx is None:
            masks = self._listed_masks(rows, width)
        else:
            masks = self._slot_masks(ctx, rows, width)
        write_masks(logits, masks)
        return logits
