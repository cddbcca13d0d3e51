"""llama.cpp through the low-level interface of llama-cpp-python: a file's model, and its sequences.

Nothing here knows of prompts or constraints. What llama.cpp would end the process for is checked
before it is called: rows, places and sizes.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recallm_core.errors import CheckpointError, GenerationError, MissingExtraError

INSTALL = (
    "a GGUF file needs llama.cpp: pip install 'recallm-core[llama-cpp]' builds it with a C++ "
    "compiler and CMake (some 13 minutes on one core, once; pip keeps the wheel). Where there is "
    "no compiler: bring a wheel from a machine that has one (pip wheel llama-cpp-python), take a "
    "prebuilt one of its maintainers, or load the model's safetensors folder instead, which needs "
    "neither"
)
_RELEASES = ((0, 3, 36), (0, 4))  # its structures follow one commit of llama.cpp
_NO_PLACE = 1  # llama_decode found no free cells
_LONGEST_PIECE = 4096
_ERROR, _CONTINUED = 4, 5  # levels of llama.cpp; its bindings name others
_MOST_ROWS = 256  # sequences that llama.cpp can tell apart
KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}  # what keys and values are kept in
_CONTROL_KINDS = 1 | 2 | 8  # unknown, unused, control

Floats32 = NDArray[np.float32]


def library() -> Any:
    """Returns the module of the C interface.

    Raises:
        MissingExtraError: It isn't installed, can't be loaded, or is of another release.
    """
    try:
        import llama_cpp
    except ModuleNotFoundError as error:
        if error.name not in ("llama_cpp", "diskcache"):
            raise
        raise MissingExtraError(INSTALL) from error
    except (OSError, RuntimeError) as error:  # built for another machine
        raise MissingExtraError(f"llama-cpp-python can't be loaded ({error}); {INSTALL}") from error
    release = metadata.version("llama-cpp-python")
    numbers = tuple(int(part) for part in release.split(".")[:3] if part.isdecimal())
    if not _RELEASES[0] <= numbers < _RELEASES[1]:
        raise MissingExtraError(
            f"llama-cpp-python {release} is installed, expected at least 0.3.36 and below 0.4; run "
            "pip install 'recallm-core[llama-cpp]'"
        )
    logger = logging.getLogger("llama-cpp-python")
    if logger.level == logging.NOTSET:  # else it writes all it does to the terminal
        logger.setLevel(logging.CRITICAL)
    return llama_cpp


@contextmanager
def _errors_of(llama: Any) -> Iterator[list[str]]:
    """Collects what llama.cpp says of errors, and keeps it from the terminal."""
    lines: list[str] = []
    last = 0

    def note(level: int, text: bytes, _: Any) -> None:
        nonlocal last
        last = last if level == _CONTINUED else level
        if last == _ERROR:
            lines.append(text.decode("utf-8", "replace").strip())

    before, data = llama.llama_log_callback(), ctypes.c_void_p()
    llama.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    callback = llama.llama_log_callback(note)
    llama.llama_log_set(callback, None)
    try:
        yield lines
    finally:
        llama.llama_log_set(before, data)


class Model:
    """The weights of a GGUF file.

    Args:
        path: A file whose header was checked.
        gpu_layers: Layers that an accelerator takes, where this build knows one; -1: all.

    Raises:
        CheckpointError: llama.cpp can't load it, or it isn't a model that continues texts.
        MissingExtraError: llama.cpp isn't installed.
    """

    def __init__(self, path: Path, *, gpu_layers: int = -1) -> None:
        self.llama = llama = library()
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        with _errors_of(llama) as errors:
            self.handle = llama.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            reason = "; ".join(errors[-3:]) or "it doesn't say why"
            raise CheckpointError(
                f"llama.cpp can't load {path}: {reason[:600]}; update llama-cpp-python, or choose "
                "another file"
            )
        self._vocab = llama.llama_model_get_vocab(self.handle)
        self.vocab_size = int(llama.llama_vocab_n_tokens(self._vocab))
        self.context_length = int(llama.llama_model_n_ctx_train(self.handle))
        self.reach = int(llama.llama_model_n_swa(self.handle))  # of sliding windows; 0: none
        encodes = llama.llama_model_has_encoder(self.handle)
        if encodes or not llama.llama_model_has_decoder(self.handle) or self.vocab_size < 1:
            self.close()
            raise CheckpointError(f"{path} is no model that continues texts; choose another file")
        if llama.llama_model_is_diffusion(self.handle):
            self.close()
            raise CheckpointError(f"{path} doesn't write from left to right; choose another file")

    @property
    def begins(self) -> bool:
        """Whether texts begin with the token for beginnings."""
        return bool(self.llama.llama_vocab_get_add_bos(self._vocab))

    @property
    def beginning(self) -> int | None:
        """The token for beginnings, if there is one."""
        token = int(self.llama.llama_vocab_bos(self._vocab))
        return token if 0 <= token < self.vocab_size else None

    def controls(self) -> list[int]:
        """Ids that text can't produce."""
        kind, vocab = self.llama.llama_vocab_get_attr, self._vocab
        return [i for i in range(self.vocab_size) if kind(vocab, i) & _CONTROL_KINDS]

    def ends(self) -> list[int]:
        """Ids that end an output."""
        is_end, vocab = self.llama.llama_vocab_is_eog, self._vocab
        return [i for i in range(self.vocab_size) if is_end(vocab, i)]

    def pieces(self) -> Iterator[bytes]:
        """What each token stands for, control tokens by their spelling."""
        buffer = ctypes.create_string_buffer(_LONGEST_PIECE)
        spell, vocab = self.llama.llama_token_to_piece, self._vocab
        for token in range(self.vocab_size):
            size = spell(vocab, token, buffer, _LONGEST_PIECE, 0, True)
            yield ctypes.string_at(buffer, size) if size > 0 else b""

    def close(self) -> None:
        """Frees the weights; safe to call twice."""
        if self.handle:
            self.llama.llama_model_free(self.handle)
            self.handle = None


class Sequences:
    """Sequences of one model whose keys and values lie in cells that they share.

    A cell that two sequences have in common is stored once. Not safe to use from two threads.

    Args:
        model: The weights.
        cells: Tokens that all sequences hold together, at most.
        rows: Sequences at most.
        batch: Tokens read at once, at most.
        outputs: Rows of logits of one call, at most.
        threads: Threads of a call.
        kv_type: What keys and values are kept in, one of ``KV_TYPES``.

    Raises:
        CheckpointError: There isn't enough memory, or the model can't be run.
    """

    def __init__(
        self,
        model: Model,
        *,
        cells: int,
        rows: int,
        batch: int,
        outputs: int,
        threads: int,
        kv_type: str = "f16",
    ) -> None:
        assert 0 < rows <= _MOST_ROWS
        batch, outputs = max(batch, rows), max(outputs, rows)  # it ends the process otherwise
        self._llama = llama = model.llama
        self._vocab_size = model.vocab_size
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max = cells, rows
        params.n_batch = params.n_ubatch = batch
        params.n_outputs_max = outputs
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = KV_TYPES[kv_type]
        if kv_type == "f32":  # its fused attention would halve them
            params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.kv_unified = True  # otherwise copying a part of a sequence ends the process
        params.swa_full = True  # otherwise a window forgets at once what going back needs
        params.no_perf = True
        with _errors_of(llama) as errors:
            self._context = llama.llama_init_from_model(model.handle, params)
        if not self._context:
            raise CheckpointError(
                f"llama.cpp can't run the model with room for {cells:,} tokens: "
                f"{'; '.join(errors[-3:])[:600] or 'not enough memory'}; lower max_kv_bytes, or "
                "choose a smaller model"
            )
        self._memory = llama.llama_get_memory(self._context)
        self.cells = int(llama.llama_n_ctx(self._context))
        self.rows, self.batch_size, self._outputs = rows, batch, outputs
        self._batch = _Batch(llama, batch)
        self._reach = model.reach

    def read(
        self, parts: Sequence[tuple[int, int, Sequence[int]]], logit_places: Sequence[Sequence[int]]
    ) -> list[Floats32] | None:
        """Reads tokens of some sequences at once.

        Args:
            parts: Of each sequence its row, the place of its first new token, and the tokens.
            logit_places: Of each the tokens, counted from that one, whose logits are needed.

        Returns:
            The logits, good until the next call; None: there are no free cells, and nothing was
            read.

        Raises:
            GenerationError: llama.cpp failed; what was read must be dropped.
        """
        places = self._batch.fill(parts, logit_places)
        assert len(places) <= self._outputs
        code = self._llama.llama_decode(self._context, self._batch.struct)
        if code == _NO_PLACE:
            return None
        if code:
            raise GenerationError(f"llama.cpp failed with code {code} while it read tokens")
        return [self._row(place) for place in places]

    def _row(self, place: int) -> Floats32:
        logits = self._llama.llama_get_logits_ith(self._context, place)
        if not logits:
            raise GenerationError("llama.cpp gave no logits where they were asked for")
        return np.ctypeslib.as_array(logits, shape=(self._vocab_size,))

    def cut(self, row: int, length: int) -> bool:
        """Forgets all but the first tokens of a sequence; False: this model can't."""
        removed = self._llama.llama_memory_seq_rm(self._memory, row, length, -1)
        return bool(removed) and self.length(row) == length

    def length(self, row: int) -> int:
        """Tokens of a sequence."""
        return int(self._llama.llama_memory_seq_pos_max(self._memory, row)) + 1

    def holds(self, row: int, length: int) -> bool:
        """Whether a sequence has all that a token after its first ones looks at.

        A model of sliding windows forgets what no later token needs; cut back, it has a hole.
        """
        first = int(self._llama.llama_memory_seq_pos_min(self._memory, row))
        needed = max(0, length - self._reach + 1) if self._reach else 0
        return self.length(row) == length and first <= needed

    def drop(self, row: int) -> None:
        """Forgets a sequence."""
        self._llama.llama_memory_seq_rm(self._memory, row, -1, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Lets an empty row share the first tokens of another."""
        self._llama.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def state_size(self, row: int) -> int:
        """Bytes of a sequence's state."""
        return int(self._llama.llama_state_seq_get_size(self._context, row))

    def state(self, row: int) -> Any:
        """A sequence's state, which may be put into any row of the same model's."""
        size = self.state_size(row)
        buffer = (ctypes.c_uint8 * size)()
        if self._llama.llama_state_seq_get_data(self._context, buffer, size, row) != size:
            raise GenerationError("llama.cpp couldn't save a sequence")
        return buffer

    def restore(self, row: int, state: Any) -> bool:
        """Puts a state into an empty row; False: there are no free cells."""
        size = ctypes.sizeof(state)
        read = self._llama.llama_state_seq_set_data(self._context, state, size, row)
        if read != size:
            self.drop(row)
        return bool(read == size)

    def close(self) -> None:
        """Frees keys, values and scratch memory; safe to call twice."""
        if self._context:
            self._llama.llama_free(self._context)
            self._context = None


class _Batch:
    """The tokens of one call, in memory that llama.cpp reads."""

    def __init__(self, llama: Any, size: int) -> None:
        self._size = size
        self._tokens = np.zeros(size, dtype=np.int32)
        self._places = np.zeros(size, dtype=np.int32)
        self._rows = np.zeros(size, dtype=np.int32)
        self._ones = np.ones(size, dtype=np.int32)
        self._flags = np.zeros(size, dtype=np.int8)
        base, step = self._rows.ctypes.data, self._rows.itemsize
        self._row_pointers = np.arange(base, base + size * step, step, dtype=np.uintp)
        self.struct = llama.llama_batch()
        kinds = {name: kind for name, kind, *_ in llama.llama_batch._fields_}
        for name, array in (
            ("token", self._tokens),
            ("pos", self._places),
            ("n_seq_id", self._ones),
            ("seq_id", self._row_pointers),
            ("logits", self._flags),
        ):
            setattr(self.struct, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def fill(
        self, parts: Sequence[tuple[int, int, Sequence[int]]], logit_places: Sequence[Sequence[int]]
    ) -> list[int]:
        """Puts tokens into the batch; returns the places whose logits are wanted."""
        at = 0
        flagged: list[int] = []
        self._flags[:] = 0
        for (row, first, tokens), offsets in zip(parts, logit_places, strict=True):
            end = at + len(tokens)
            assert end <= self._size
            self._tokens[at:end] = tokens
            self._places[at:end] = np.arange(first, first + len(tokens))
            self._rows[at:end] = row
            flagged.extend(at + place for place in offsets)
            at = end
        self._flags[flagged] = 1
        self.struct.n_tokens = at
        return flagged
