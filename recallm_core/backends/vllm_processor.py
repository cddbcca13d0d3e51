"""The logits processor that vLLM loads: one class for its model runners V1 and V2.

Start a server with ``--logits-processors recallm_core.backends.vllm_processor:RecallProcessor``, as
``recallm serve`` does. All decisions are ``served_rows``'; this file knows where vLLM keeps prompts
and outputs. Interfaces as of vLLM 0.31 to 0.33. ``apply`` must never raise: that would end the
engine for everyone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor as RunnerOne
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from recallm_core.backends.mask_rows import write_mask
from recallm_core.backends.served_rows import FolderEngines, ServedRow, read_spec

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as RunnerTwo
except ImportError:  # before vLLM 0.31 there is only the first runner
    RunnerTwo = object


@dataclass(slots=True)
class _Entry:
    """A request: its row, its prompt, and its output so far."""

    row: ServedRow
    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)

    def write(self, logits: torch.Tensor) -> None:
        """Forbids in one row of logits what is illegal."""
        mask = self.row.mask(self.prompt, self.output, len(logits))
        if mask is not None:
            write_mask(logits, mask, self.row.spec.vocab_size)


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
        self._engines = FolderEngines(str(vllm_config.model_config.tokenizer))
        self._states: Any = states if is_pin_memory is None else None
        self._entries: dict[int, _Entry] = {}  # by batch index (V1) or slot (V2)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Checks a request's constraint before it is queued.

        Raises:
            ValueError: It can't be used, or another setting would override it; over HTTP that is
                a 400.
        """
        if read_spec(sampling_params.extra_args) is None:
            return
        for name in ("structured_outputs", "thinking_token_budget"):
            if getattr(sampling_params, name, None) is not None:
                raise ValueError(
                    f"{name} can't be set beside a constraint, which it would override"
                )

    def is_argmax_invariant(self) -> bool:
        """No: greedy decoding needs the mask as well."""
        return False

    # The first runner: requests by batch index, outputs in live lists.

    def update_state(self, batch_update: Any) -> None:
        """Takes up requests that came, left or moved."""
        process_dict_updates(self._entries, batch_update, self._entry)

    def _entry(self, params: Any, prompt: list[int] | None, output: list[int]) -> _Entry | None:
        spec = read_spec(params.extra_args)
        if spec is None:
            return None
        # vLLM lengthens ``output`` itself; embeddings have no ids, and recall stays closed
        return _Entry(ServedRow(spec, self._engines), prompt or [], output)

    # The second runner: requests by slot, all ids in its buffers.

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Takes up a request in a slot; whatever was there before is gone."""
        spec = read_spec(sampling_params.extra_args)
        self._entries.pop(req_idx, None)
        if spec is None:
            return False
        self._entries[req_idx] = _Entry(ServedRow(spec, self._engines))
        return True

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Forbids what is illegal, in place.

        Args:
            logits: One row a request, ``[rows, vocabulary]``.
            ctx: The second runner's layout of the batch.
        """
        if ctx is not None:
            self._apply_slots(logits, ctx)
            return logits
        for index, entry in self._entries.items():
            if index < len(logits):
                entry.write(logits[index])
        return logits

    def _apply_slots(self, logits: torch.Tensor, ctx: Any) -> None:
        """The second runner's batch; on a GPU each request's new ids are fetched to the host."""
        slots, lengths = ctx.idx_mapping_np.tolist(), ctx.seq_lens_upper_bound_np.tolist()
        for index, (slot, length) in enumerate(zip(slots, lengths, strict=False)):
            entry = self._entries.get(slot)
            if entry is None or index >= len(logits):
                continue
            prompt_length = int(self._states.prompt_len.np[slot])
            if length < prompt_length:
                continue  # its prompt is still being read, nothing is sampled
            ids = self._states.all_token_ids.gpu[slot]
            if not entry.prompt:
                entry.prompt = ids[:prompt_length].tolist()
            known = prompt_length + len(entry.output)
            entry.output += ids[known:length].tolist()
            entry.write(logits[index])
