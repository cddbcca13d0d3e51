"""Forward passes over sequences whose keys and values are kept: in one batch, or one by one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from recallm_core.backends.local.kv_buffers import KVRows, LayerShape
from recallm_core.backends.local.prefix_cache import Block, PrefixCache
from recallm_core.backends.local.protocol import Ids, Runner, Slot
from recallm_core.backends.local.sampling import Best, Scores
from recallm_core.backends.local.threads import fitting_threads
from recallm_core.backends.local.torch_scores import legal_scores
from recallm_core.decoding.constraint import Mask
from recallm_core.models.checkpoint import rope_of

_ALIKE = 0.05  # relative distance of logits above which batching would change the model
_MASK_CELLS = 1 << 26  # cells of an attention mask at most: prefill chunks shrink beyond
_PROBE = (7, 3, 9, 1, 8, 2, 6)  # token ids (modulo the vocabulary) that a new model is tried with


class _Forward:
    """Calls a model with the arguments that it knows."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.weights = sum(weight.numel() for weight in model.parameters())
        known = inspect.signature(model.forward).parameters
        self.takes_positions = "position_ids" in known
        names = [name for name in ("past_key_values", "cache_params") if name in known]
        self.cache_name = names[0] if names else ""
        self._picks = "logits_to_keep" in known

    def __call__(self, ids: torch.Tensor, places: Sequence[int], **kwargs: Any) -> torch.Tensor:
        """Returns the logits of some places, the same in every row."""
        width = ids.shape[1]
        if not self._picks:
            logits: torch.Tensor = self.model(input_ids=ids, return_dict=True, **kwargs).logits
            return logits if len(places) == width else logits[:, list(places)]
        last = list(places) == list(range(width - len(places), width))
        pick = len(places) if last else torch.tensor(list(places), device=self.device)
        out = self.model(input_ids=ids, return_dict=True, logits_to_keep=pick, **kwargs)
        picked: torch.Tensor = out.logits
        return picked

    def tensor(self, rows: Any) -> torch.Tensor:
        """Token ids on the model's device, two axes."""
        return torch.as_tensor(np.asarray(rows, dtype=np.int64)).to(self.device)


class _TorchRunner:
    """What both runners have of torch."""

    ragged = False

    def session(self) -> AbstractContextManager[Any]:
        """Torch without gradients."""
        return torch.inference_mode()

    def score(
        self, logits: torch.Tensor, masks: Sequence[Mask], greedy: Sequence[bool]
    ) -> list[Scores | Best]:
        """Takes what a choice needs off the device, in one transfer per kind."""
        return legal_scores(logits, masks, greedy)


class BatchRunner(_TorchRunner):
    """All sequences in one batch of ragged rows; tokens can be taken back at no cost."""

    can_rollback = True

    def __init__(self, model: Any, shapes: Sequence[LayerShape], context_length: int) -> None:
        self._forward = _Forward(model)
        self._rows = KVRows(shapes)
        self._dtype = model.dtype
        self._last_position = context_length - 1
        self._active: list[Slot] = []
        self._waiting: Slot | None = None  # its row comes after the active ones
        self.token_bytes = self._rows.token_bytes

    def open(self, token_ids: Ids, cache: PrefixCache) -> Slot:
        """Takes the next row and fills it from the cache."""
        slot = self._waiting = Slot(row=self._rows.add_row())
        try:
            self._rows.reserve(len(token_ids) + 1)
            self._rows.append(slot.row, cache.match(token_ids))
        except BaseException:
            self.close(slot)
            raise
        slot.length = self._rows.lengths[slot.row]
        return slot

    def prefill(self, slot: Slot, token_ids: Ids, chunk: int) -> int:
        """Reads a piece of a prompt in a pass of its own."""
        chunk = max(1, min(chunk, _MASK_CELLS // (slot.length + chunk)))
        part = token_ids[None, :chunk]
        self._pass(slot.row, self._forward.tensor(part), [part.shape[1] - 1])
        self.keep(slot, part.shape[1])
        return int(part.shape[1])

    def _pass(self, first: int, ids: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
        starts = self._rows.begin(first, *ids.shape)
        begin = torch.tensor(starts, device=ids.device)
        positions = begin[:, None] + torch.arange(ids.shape[1], device=ids.device)
        return self._forward(
            ids,
            places,
            position_ids=positions.clamp(max=self._last_position),
            attention_mask=self._mask(positions, starts),
            past_key_values=self._rows.cache,
            use_cache=True,
        )

    def _mask(self, positions: torch.Tensor, starts: tuple[int, ...]) -> torch.Tensor | None:
        """Each token sees its own row up to itself; None where the model knows that anyway."""
        width = positions.shape[1]
        if len(starts) == 1 and (width == 1 or starts[0] == 0):
            return None
        columns = torch.arange(max(starts) + width, device=positions.device)
        hidden = columns > positions[:, :, None]
        zeros = torch.zeros(hidden.shape, dtype=self._dtype, device=positions.device)
        return zeros.masked_fill_(hidden, -torch.inf)[:, None]

    def remember(self, slot: Slot, token_ids: Ids, cache: PrefixCache) -> None:
        """Stores the whole blocks of a prompt."""

        def read(start: int, stop: int) -> Block:
            return self._rows.read(slot.row, start, stop)

        cache.store(token_ids[: slot.length], read)

    def activate(self, slot: Slot) -> None:
        """Moves the waiting row into the batch; it already lies next to it."""
        assert slot is self._waiting
        assert slot.row == len(self._active)
        self._waiting = None
        self._active.append(slot)

    def step(
        self,
        slots: Sequence[Slot],
        tokens: Sequence[Sequence[int]],
        logit_places: Sequence[Sequence[int]],
    ) -> torch.Tensor:
        """One pass for their rows; shorter ones are filled up with tokens that are never kept.

        So are the rows of sequences that wait, where they lie between those that don't.
        """
        first, last = min(slot.row for slot in slots), max(slot.row for slot in slots)
        ids = np.zeros((last - first + 1, max(len(row) for row in tokens)), dtype=np.int64)
        for slot, row in zip(slots, tokens, strict=True):
            ids[slot.row - first, : len(row)] = row
        places = sorted({place for row in logit_places for place in row}) or [ids.shape[1] - 1]
        with fitting_threads(self._forward.weights * ids.size, self._forward.device):
            logits = self._pass(first, self._forward.tensor(ids), places)
        at = {place: number for number, place in enumerate(places)}
        rows = [
            slot.row - first for slot, row in zip(slots, logit_places, strict=True) for _ in row
        ]
        columns = [at[place] for row in logit_places for place in row]
        if len(ids) == 1 and len(columns) == len(places):
            return logits[0]
        return logits[rows, columns]

    def keep(self, slot: Slot, count: int) -> None:
        """Moves the end of the row's valid columns."""
        slot.length += count
        self._rows.lengths[slot.row] = slot.length

    def close(self, slot: Slot) -> None:
        """Frees a row; the last one takes its place."""
        if slot is self._waiting:
            self._waiting = None
            self._rows.drop_last_row()
        elif slot in self._active:
            last = self._active.pop()
            if last is not slot:
                self._move(last, slot.row)
                self._active[last.row] = last
            if self._waiting is not None:
                self._move(self._waiting, len(self._active))
            self._rows.drop_last_row()

    def _move(self, slot: Slot, row: int) -> None:
        self._rows.move_row(slot.row, row)
        slot.row = row

    def release(self, spare_bytes: int) -> None:
        """Frees the buffers."""
        used = self._active or self._waiting
        if not used and self._rows.allocated_bytes > spare_bytes:
            self._rows.release()

    def clear(self) -> None:
        """Frees the buffers, whoever still held a row."""
        self._active.clear()
        self._waiting = None
        self._rows.release()


class SingleRunner(_TorchRunner):
    """One sequence at a time, with the cache that the model's own config asks for.

    For models that forget (sliding windows, recurrent layers), that place tokens by the padding
    mask, or that batching changes in any other way: nothing is taken back and nothing is shared.
    """

    can_rollback = False
    token_bytes = 0

    def __init__(self, model: Any) -> None:
        self._forward = _Forward(model)
        self._config = model.config
        self._chunks = not self._forward.cache_name or all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer)
            for layer in DynamicCache(config=model.config).layers
        )

    def open(self, token_ids: Ids, cache: PrefixCache) -> Slot:
        """Starts with an empty cache of the model's own kind."""
        return Slot(state=DynamicCache(config=self._config) if self._forward.cache_name else None)

    def prefill(self, slot: Slot, token_ids: Ids, chunk: int) -> int:
        """Reads a piece of a prompt, or all of it where the model can't go on from a piece."""
        part = token_ids[:chunk] if self._chunks else token_ids
        if self._forward.cache_name:
            self._pass(slot, part)
        else:
            slot.seen.extend(part.tolist())
        slot.length += len(part)
        return len(part)

    def _pass(self, slot: Slot, token_ids: Any) -> torch.Tensor:
        ids = self._forward.tensor([token_ids])
        last = [ids.shape[1] - 1]
        if slot.state is None:
            return self._forward(ids, last)[0]
        state = {self._forward.cache_name: slot.state, "use_cache": True}
        return self._forward(ids, last, **state)[0]

    def remember(self, slot: Slot, token_ids: Ids, cache: PrefixCache) -> None:
        """Stores nothing: such caches can't be cut."""

    def activate(self, slot: Slot) -> None:
        """Nothing to do."""

    def step(
        self,
        slots: Sequence[Slot],
        tokens: Sequence[Sequence[int]],
        logit_places: Sequence[Sequence[int]],
    ) -> torch.Tensor:
        """One pass per sequence; each brings one token."""
        rows = []
        for slot, row, places in zip(slots, tokens, logit_places, strict=True):
            if not self._forward.cache_name:
                slot.seen.extend(row)
            logits = self._pass(slot, row if self._forward.cache_name else slot.seen)
            if places:
                rows.append(logits)
        return torch.cat(rows) if rows else logits[:0]

    def keep(self, slot: Slot, count: int) -> None:
        """Counts; what was read stays read."""
        slot.length += count

    def close(self, slot: Slot) -> None:
        """Drops the sequence's cache."""
        slot.state = None

    def release(self, spare_bytes: int) -> None:
        """Nothing to do."""

    def clear(self) -> None:
        """Nothing to do: each sequence holds its own cache."""


def choose_runner(model: Any, context_length: int, *, batches: bool = False) -> tuple[Runner, int]:
    """Tries a model out and returns the fastest runner that doesn't change it.

    Args:
        model: The model.
        context_length: Tokens that it can attend to.
        batches: Whether it is known that batching doesn't change it, so that only the shapes of
            its layers are to be found out.

    Returns:
        The runner, and the width of the logits.
    """
    ids = np.array(_PROBE, dtype=np.int32) % model.get_input_embeddings().weight.shape[0]
    forward = _Forward(model)
    with fitting_threads(forward.weights * len(ids), forward.device):
        return _fitting_runner(model, forward, ids, context_length, batches=batches)


def _fitting_runner(
    model: Any, forward: _Forward, ids: Ids, context_length: int, *, batches: bool
) -> tuple[Runner, int]:
    cache = DynamicCache(config=model.config) if forward.cache_name else None
    kwargs = {} if cache is None else {forward.cache_name: cache, "use_cache": True}
    plain = forward(forward.tensor(ids[None]), range(len(ids)), **kwargs)[0]
    if forward.takes_positions and cache is not None and _is_plain(model, cache):
        runner = BatchRunner(model, [_shape(layer) for layer in cache.layers], context_length)
        if batches or _batches(runner, ids, plain):
            return runner, int(plain.shape[-1])
    return SingleRunner(model), int(plain.shape[-1])


def _is_plain(model: Any, cache: Any) -> bool:
    """Whether every layer keeps all tokens, and no position depends on another row's length."""
    text = model.config.get_text_config(decoder=True)
    moving = rope_of(text).get("rope_type") in ("dynamic", "longrope")
    keeps_all = all(
        type(layer) is DynamicLayer and layer.get_seq_length() for layer in cache.layers
    )
    return keeps_all and not moving and not getattr(text, "alibi", False)


def _shape(layer: Any) -> LayerShape:
    keys, values = layer.keys, layer.values
    return LayerShape(keys.shape[1], keys.shape[-1], values.shape[-1], keys.dtype, keys.device)


def _batches(runner: BatchRunner, ids: Ids, plain: torch.Tensor) -> bool:
    """Whether two rows of unequal length, with tokens taken back, give the plain logits."""
    nothing = PrefixCache(0)
    slots = []
    try:
        for read in (4, 2):
            slots.append(runner.open(ids, nothing))
            runner.prefill(slots[-1], ids[:read], read)
            runner.activate(slots[-1])
        runner.step(slots, [[int(ids[0])], [int(ids[1])]], [[], []])  # never kept
        rest = [ids[4:6].tolist(), ids[2:5].tolist()]
        logits = runner.step(slots, rest, [[0, 1], [0, 1, 2]]).float()
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
        return False
    finally:
        for slot in slots:
            runner.close(slot)
        runner.release(0)
    expected = plain[[4, 5, 2, 3, 4]].float()
    distance = (logits - expected).norm() / (expected - expected.mean()).norm().clamp(min=1e-30)
    return bool(distance < _ALIKE)
