"""Forward passes by llama.cpp: ragged batches, shared beginnings, tokens taken back."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from recallm_core.backends.local.llama_cpp_library import Floats32, Model, Sequences
from recallm_core.backends.local.numpy_scores import legal_scores
from recallm_core.backends.local.prefix_cache import PrefixCache
from recallm_core.backends.local.protocol import Ids, Slot
from recallm_core.backends.local.sampling import Best, Scores
from recallm_core.decoding.constraint import Mask
from recallm_core.errors import CheckpointError, GenerationError

_CELLS = 1024  # to begin with; more are made when they are needed
_ROUND = 256  # llama.cpp counts cells in these
_ALIKE = 0.1  # relative distance of logits; kernels differ by the size of a batch, faults by 1
_PROBE = (1007, 1303, 1909, 1201, 1808, 1502)  # ids (modulo the vocabulary) after the beginning
_PATIENCE = 1.0  # seconds of a prompt's piece, after which everything else is looked at
_LEAST_PIECE = 32  # tokens; smaller pieces cost more each
_LEAST_SHARED = 16  # tokens of a beginning that are worth finding


@dataclass(slots=True, eq=False)
class _Beginning:
    """The beginning of a prompt that was read.

    Attributes:
        ids: Its tokens.
        state: Its keys and values as bytes; None: they are in their own row.
    """

    ids: Ids
    state: Any = None

    @property
    def size(self) -> int:
        """Bytes beside the row."""
        return 0 if self.state is None else ctypes.sizeof(self.state)


class LlamaRunner:
    """All sequences of a model that llama.cpp runs.

    Each sequence has a row, and one row more holds the newest beginning of a prompt, whose cells
    the sequences that begin so share. Older beginnings wait as bytes, for in cells they would slow
    every pass. Where no cell is free, the sequences move to a place with more.

    Args:
        model: The weights; freed with ``clear``.
        rows: Sequences generated at once.
        step_tokens: Tokens that one of them may bring to a step.
        prefill_chunk: Prompt tokens read at once, at most.
        threads: Threads of a pass.
        kv_type: What keys and values are kept in.
        kept_bytes: Bytes of beginnings kept, at most.
        most_cells: Gives the number of cells that there may be, from the bytes of one.

    Raises:
        CheckpointError: The model can't be run, or not side by side with itself.
    """

    ragged = True

    def __init__(
        self,
        model: Model,
        *,
        rows: int,
        step_tokens: int,
        prefill_chunk: int,
        threads: int,
        kv_type: str,
        kept_bytes: int,
        most_cells: Callable[[int], int],
    ) -> None:
        self._model = model
        self._rows = rows + 1  # and one whose prompt is being read
        self._settings: dict[str, Any] = {
            "rows": self._rows + 1,  # and the newest beginning
            "batch": max(prefill_chunk, rows * step_tokens, 2 * len(_PROBE)),
            "outputs": max(rows * step_tokens, len(_PROBE) + 1),
            "threads": threads,
            "kv_type": kv_type,
        }
        self._slots: list[Slot] = []
        self._beginnings: list[_Beginning] = []  # the one used longest ago first
        self._kept_bytes = kept_bytes
        self._pace = 0.0  # prompt tokens a second
        self._sequences = self._new_sequences(_CELLS)
        try:
            self.can_rollback, self.token_bytes = _trial(self._sequences, _probe(model))
        except BaseException:
            self._sequences.close()
            raise
        self._most_cells = _round_up(most_cells(self.token_bytes))

    def _new_sequences(self, cells: int) -> Sequences:
        return Sequences(self._model, cells=cells, **self._settings)

    def session(self) -> AbstractContextManager[Any]:
        """Nothing."""
        return nullcontext()

    # ------------------------------------------------------------------ one sequence

    def open(self, token_ids: Ids, cache: PrefixCache) -> Slot:
        """Takes a row, and shares the cells of a beginning that is known."""
        self._reserve(token_ids)
        taken = {slot.row for slot in self._slots}
        row = min(row for row in range(self._rows) if row not in taken)
        slot = Slot(row=row, state=token_ids)
        self._slots.append(slot)
        try:
            slot.length = self._share_beginning(row, token_ids)
        except BaseException:
            self.close(slot)
            raise
        return slot

    def _reserve(self, ids: Ids) -> None:
        """Moves before a long prompt is read, not within it: a move loses what windows forget."""
        newest = [known.ids for known in self._beginnings if known.state is None]
        more = sum(len(known) - _in_common(known, ids) for known in newest) + len(ids)
        needed = _round_up(sum(slot.length for slot in self._slots) + more + _ROUND)
        if self._sequences.cells < min(needed, self._most_cells):
            self._move(min(max(needed, 2 * self._sequences.cells), self._most_cells))

    def _share_beginning(self, row: int, ids: Ids) -> int:
        """Puts the longest known beginning of a prompt into its row; returns its length."""
        lengths = [(_in_common(k.ids, ids), k.state is None) for k in self._beginnings]
        length, _ = best_match = max(lengths, default=(0, False))  # of equals the one in its row
        if length < _LEAST_SHARED:
            return 0
        best = self._beginnings.pop(lengths.index(best_match))
        self._beginnings.append(best)
        if not self._fill_row(row, best, length):
            self._sequences.drop(row)
            return 0
        return length

    def _fill_row(self, row: int, known: _Beginning, length: int) -> bool:
        """Gives a row the first tokens of a beginning; False: it can't go on from there."""
        if known.state is None:
            self._sequences.copy(self._own_row, row, length)
        elif 4 * length < len(known.ids) or not self._restore_state(row, known.state):
            return False
        whole = length == len(known.ids)
        if not whole and known.state is not None and not self._sequences.cut(row, length):
            return False
        if whole:  # as it was saved
            return self._sequences.length(row) == length
        return self._sequences.holds(row, length)

    def _restore_state(self, row: int, state: Any) -> bool:
        while not self._sequences.restore(row, state):
            if not self._more_room():
                return False
        return True

    @property
    def _own_row(self) -> int:
        return self._rows

    def prefill(self, slot: Slot, token_ids: Ids, chunk: int) -> int:
        """Reads a piece of a prompt, of about a second."""
        patient = int(self._pace * _PATIENCE) or chunk
        count = min(len(token_ids), chunk, max(patient, _LEAST_PIECE), self._sequences.batch_size)
        began = time.perf_counter()
        self._read([(slot.row, slot.length, token_ids[:count].tolist())], [()])
        self._pace = count / max(time.perf_counter() - began, 1e-9)
        slot.length += count
        return count

    def remember(self, slot: Slot, token_ids: Ids, cache: PrefixCache) -> None:
        """Lets the newest beginning's row share the cells of a prompt."""
        ids = token_ids[: slot.length].copy()
        fits = len(ids) * self.token_bytes <= self._kept_bytes
        if not self.can_rollback or not fits or len(ids) < _LEAST_SHARED:
            return
        if any(_in_common(known.ids, ids) == len(ids) for known in self._beginnings):
            return
        self._set_aside(ids)
        self._sequences.copy(slot.row, self._own_row, len(ids))
        if self._sequences.holds(self._own_row, len(ids)):
            self._beginnings.append(_Beginning(ids))
        else:
            self._sequences.drop(self._own_row)
        self._forget_oldest()

    def _set_aside(self, ids: Ids) -> None:
        """Empties the row of the newest beginning, and drops what other beginnings continue."""
        continued = [b for b in self._beginnings if _in_common(b.ids, ids) == len(b.ids)]
        for known in [b for b in self._beginnings if b.state is None]:
            if known not in continued:
                known.state = self._sequences.state(self._own_row)
            self._sequences.drop(self._own_row)
        self._beginnings = [b for b in self._beginnings if b not in continued]

    def _forget_oldest(self) -> None:
        while sum(known.size for known in self._beginnings) > self._kept_bytes:
            oldest = next(known for known in self._beginnings if known.state is not None)
            self._beginnings.remove(oldest)

    def activate(self, slot: Slot) -> None:
        """Nothing to do."""

    def close(self, slot: Slot) -> None:
        """Gives a row back."""
        if slot in self._slots:
            self._slots.remove(slot)
            self._sequences.drop(slot.row)

    # ------------------------------------------------------------------ all of them

    def step(
        self,
        slots: Sequence[Slot],
        tokens: Sequence[Sequence[int]],
        logit_places: Sequence[Sequence[int]],
    ) -> list[Floats32]:
        """One pass for all rows; the logits are computed where they are wanted only."""
        parts = [(slot.row, slot.length, row) for slot, row in zip(slots, tokens, strict=True)]
        return self._read(parts, logit_places)

    def score(
        self, logits: Sequence[Floats32], masks: Sequence[Mask], greedy: Sequence[bool]
    ) -> list[Scores | Best]:
        """Takes what a choice needs out of llama.cpp's memory."""
        return legal_scores(logits, masks, greedy)

    def keep(self, slot: Slot, count: int) -> None:
        """Takes back what comes after the first tokens of the last step."""
        slot.length += count
        if not self.can_rollback or self._sequences.length(slot.row) == slot.length:
            return
        if not self._sequences.cut(slot.row, slot.length):
            raise GenerationError("llama.cpp couldn't take tokens back; load with draft_tokens=0")

    def _read(
        self, parts: Sequence[tuple[int, int, Sequence[int]]], logit_places: Sequence[Sequence[int]]
    ) -> list[Floats32]:
        while True:
            rows = self._sequences.read(parts, logit_places)
            if rows is not None:
                return rows
            if not self._more_room():
                raise GenerationError(
                    f"there is no room for more than {self._sequences.cells:,} tokens of all "
                    "questions together; load with a larger max_kv_bytes, or ask fewer at once"
                )

    def _more_room(self) -> bool:
        """Makes more cells, or lets the newest beginning go; False: neither can be."""
        if self._sequences.cells < self._most_cells:
            self._move(min(2 * self._sequences.cells, self._most_cells))
            return True
        newest = [known for known in self._beginnings if known.state is None]
        for known in newest:
            self._beginnings.remove(known)
            self._sequences.drop(self._own_row)
        return bool(newest)

    def _move(self, cells: int) -> None:
        """Moves all sequences to a place with another number of cells.

        There are more where sequences shared some: each brings its own.
        """
        cells = max(cells, _round_up(sum(slot.length for slot in self._slots) + _CELLS))
        states = [(slot, self._sequences.state(slot.row)) for slot in self._slots]
        newest = [known for known in self._beginnings if known.state is None]
        for known in newest:
            known.state = self._sequences.state(self._own_row)
        self._sequences.close()
        self._sequences = self._new_sequences(cells)
        for slot, state in states:
            if slot.length and not self._sequences.restore(slot.row, state):
                raise GenerationError("llama.cpp couldn't move a sequence to where more fit")
        for known in newest:
            self._share_again(known)

    def _share_again(self, known: _Beginning) -> None:
        """Lets the newest beginning share the cells of a sequence that begins so, if there is."""
        for slot in self._slots:
            if slot.length >= len(known.ids) == _in_common(known.ids, slot.state):
                self._sequences.copy(slot.row, self._own_row, len(known.ids))
                if self._sequences.holds(self._own_row, len(known.ids)):
                    known.state = None
                    return
                self._sequences.drop(self._own_row)

    def release(self, spare_bytes: int) -> None:
        """Gives cells back that no sequence needs; beginnings wait as bytes."""
        large = self._sequences.cells * self.token_bytes > spare_bytes
        if large and not self._slots and self._sequences.cells > _CELLS:
            self._move(_CELLS)

    def clear(self) -> None:
        """Forgets all sequences and frees the model."""
        self._slots.clear()
        self._beginnings.clear()
        self._sequences.close()
        self._model.close()


def _round_up(cells: int) -> int:
    return max(_CELLS, cells + -cells % _ROUND)


def _in_common(first: Ids, second: Ids) -> int:
    """Tokens with which both begin."""
    size = min(len(first), len(second))
    differ = np.flatnonzero(first[:size] != second[:size])
    return int(differ[0]) if len(differ) else size


def _probe(model: Model) -> list[int]:
    """A few tokens to try a model with, after the one that texts begin with where there is one."""
    ids = [token % model.vocab_size for token in _PROBE]
    return [ids[0] if model.beginning is None else model.beginning, *ids]


def _trial(sequences: Sequences, ids: Sequence[int]) -> tuple[bool, int]:
    """Tries a new model out.

    Returns:
        Whether tokens can be taken back, and the bytes of a token's keys and values.

    Raises:
        CheckpointError: Two sequences at once don't give what each gives alone.
    """
    _read_all(sequences, [(0, 0, ids[:3])], [()])
    size = sequences.state_size(0)
    rest = _read_all(sequences, [(0, 3, ids[3:])], [range(4)])
    plain = np.stack([row.copy() for row in rest])  # of the last four tokens
    token_bytes = max(0, (sequences.state_size(0) - size) // 4)
    rollback = sequences.cut(0, 5)
    sequences.drop(0)
    together = _together(sequences, ids, rollback)
    if not _alike(together, plain[[1, 2, 0, 1]]):
        raise CheckpointError(
            "llama.cpp gives other results for two sequences at once than for one; this model "
            "can't be used here: take its safetensors folder instead"
        )
    return rollback and _shares(sequences, ids, plain[3]), token_bytes


def _together(sequences: Sequences, ids: Sequence[int], rollback: bool) -> Any:
    """The logits of two sequences of unequal length, where it can be with tokens taken back."""
    _read_all(sequences, [(0, 0, ids[:4]), (1, 0, ids[:3])], [(), ()])
    if rollback:
        _read_all(sequences, [(0, 4, ids[:2]), (1, 3, ids[:1])], [(), ()])
        sequences.cut(0, 4)
        sequences.cut(1, 3)
    rows = _read_all(sequences, [(0, 4, ids[4:6]), (1, 3, ids[3:5])], [range(2), range(2)])
    logits = np.stack([row.copy() for row in rows])
    sequences.drop(0)
    sequences.drop(1)
    return logits


def _shares(sequences: Sequences, ids: Sequence[int], expected: Any) -> bool:
    """Whether a row that shares the cells of another goes on as that one would."""
    _read_all(sequences, [(0, 0, ids)], [()])
    sequences.copy(0, 1, len(ids) - 1)
    shared = sequences.holds(1, len(ids) - 1)
    rows = _read_all(sequences, [(1, len(ids) - 1, ids[-1:])], [range(1)]) if shared else []
    alike = shared and _alike(rows[0][None], expected[None])
    sequences.drop(0)
    sequences.drop(1)
    return alike


def _read_all(
    sequences: Sequences,
    parts: Sequence[tuple[int, int, Sequence[int]]],
    logit_places: Sequence[Sequence[int]],
) -> list[Floats32]:
    rows = sequences.read(parts, logit_places)
    if rows is None:
        raise CheckpointError("llama.cpp found no room for a few tokens; the file is damaged")
    return rows


def _alike(logits: Any, expected: Any) -> bool:
    spread = np.linalg.norm(expected - expected.mean())
    return bool(np.linalg.norm(logits - expected) < _ALIKE * max(float(spread), 1e-30))
