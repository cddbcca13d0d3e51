"""The evidence reader: a small encoder that says where in a passage an answer may stand.

It reads a question beside windows of the passages, and gives each token a score as the first and
as the last of an answer, and each sentence one as the evidence, against "not in this window". Its
scores become a tilt over where a model's quotes start and end (``reader_bias``); they never make
anything legal or illegal.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recallm_core.errors import CheckpointError
from recallm_core.evidence.array_encoder import ArrayEncoder, Floats32, Shape, shapes
from recallm_core.evidence.reader_windows import RowMaker, Rows, Window, cut
from recallm_core.inputs.extras import needs
from recallm_core.inputs.kernels import bound_kernels
from recallm_core.inputs.model_files import read_json, usable_file, whole_tokenizer
from recallm_core.locks import ForkSafeLock

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]

START, END, EVIDENCE = range(3)
BUILT_IN = Path(__file__).parent.parent / "models" / "evidence-reader"
_MAX_FILE = 1 << 27  # bytes of any file of a reader
SIZE_LIMITS = {  # of a config; sizes are checked before anything is allocated
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "vocab_size": 1 << 18,
    "max_position_embeddings": 1024,
    "type_vocab_size": 2,
}
_BATCH_TOKENS = 4096
_UNREAD = -10.0  # the evidence in marks alone, of which nothing is read


def reader_file(folder: Path, name: str) -> Path:
    """Returns the path of a file in a reader's folder.

    Raises:
        CheckpointError: It is missing or too large.
    """
    remedy = "train a reader with recallm train reader"
    return usable_file(folder, name, limit=_MAX_FILE, owner="the reader", remedy=remedy)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What the reader says of one window; all scores are against "not here", 0.

    Attributes:
        window: The window.
        start: For each token of it, how well an answer would start there.
        end: For each token of it, how well an answer would end there.
        evidence: For each sentence of it, how well it would be the evidence, by itself and by its
            likeliest answer.
    """

    window: Window
    start: Floats
    end: Floats
    evidence: Floats

    @property
    def answerable(self) -> float:
        """Log odds that the window holds an answer: that of its likeliest start and end."""
        return float((self.start.max() + self.end.max()) / 2)


class EvidenceReader:
    """A loaded reader; safe to call from many threads.

    Args:
        folder: A folder written by ``recallm train reader``; None: the one shipped.

    Raises:
        CheckpointError: The folder is incomplete, or its arrays have other shapes or types.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = BUILT_IN if folder is None else Path(folder)
        self._turn = ForkSafeLock()  # one pass at a time: many would take the cores from decoding
        self.tokenizer = whole_tokenizer(reader_file(self.folder, "tokenizer.json"))
        self._rows = RowMaker(self.tokenizer)
        config = read_config(reader_file(self.folder, "config.json"))
        if config["vocab_size"] != self.tokenizer.get_vocab_size():
            raise CheckpointError(
                f"the reader's tokenizer has {self.tokenizer.get_vocab_size():,} pieces but its "
                f"config says {config['vocab_size']:,}; the folder mixes two models"
            )
        weights = reader_file(self.folder, "model.safetensors")
        self._model = (
            _model(config, weights) if torch_is_loaded() else _array_model(config, weights)
        )

    def windows(self, texts: Sequence[str]) -> list[Window]:
        """Returns the windows of some passages, in order."""
        return [window for n, text in enumerate(texts) for window in cut(text, n, self.tokenizer)]

    def read(
        self,
        question: str,
        windows: Sequence[Window],
        titles: Sequence[str | None],
        recalled: Sequence[str] = (),
    ) -> list[Reading]:
        """Reads some windows beside a question.

        Args:
            question: What is asked.
            windows: What to read, as ``windows`` returned it.
            titles: The titles of all passages.
            recalled: What was recalled so far: the question is then about what follows from it.
        """
        rows = self._rows.rows(question, windows, titles, recalled)
        readings: list[Reading | None] = [None] * len(windows)
        by_length = sorted(range(len(windows)), key=lambda n: len(rows.ids[n]))
        for part in _parts(by_length, rows):
            for n, logits in zip(part, self._logits(rows, part), strict=True):
                readings[n] = _reading(windows[n], logits, rows.begins[n])
        return [reading for reading in readings if reading is not None]

    def _logits(self, rows: Rows, part: Sequence[int]) -> list[Floats]:
        ids, kinds = [rows.ids[n] for n in part], [rows.kinds[n] for n in part]
        if isinstance(self._model, ArrayEncoder):
            return self._model.logits(ids, kinds)
        import torch

        with self._turn, torch.inference_mode():
            out = self._model(**pad_rows(ids, kinds)).logits
        return list(out.double().numpy())


def pad_rows(
    ids: Sequence[Sequence[int]], kinds: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """Returns rows of one width as the encoder takes them.

    Args:
        ids: The ids of each row.
        kinds: Its token types.
    """
    import torch

    wide = torch.zeros((len(ids), max(map(len, ids))), dtype=torch.long)
    types, mask = torch.zeros_like(wide), torch.zeros_like(wide)
    for row, (row_ids, kind) in enumerate(zip(ids, kinds, strict=True)):
        wide[row, : len(row_ids)] = torch.tensor(row_ids)
        types[row, : len(row_ids)] = torch.tensor(kind)
        mask[row, : len(row_ids)] = 1
    return {"input_ids": wide, "token_type_ids": types, "attention_mask": mask}


def _parts(order: Sequence[int], rows: Rows) -> list[list[int]]:
    """Batches of rows of like length."""
    parts: list[list[int]] = []
    for n in order:
        if not parts or len(rows.ids[n]) * (len(parts[-1]) + 1) > _BATCH_TOKENS:
            parts.append([])
        parts[-1].append(n)
    return parts


def _reading(window: Window, logits: Floats, begin: int) -> Reading:
    text = logits[begin : begin + len(window.ids)] - logits[0]
    bounds = [*window.heads, len(window.ids)]
    answers = [_best_answer(text[low : max(high, low + 1)]) for low, high in pairwise(bounds)]
    evidence = (text[list(window.heads), EVIDENCE] + np.array(answers)) / 2
    evidence[np.diff(bounds) == 0] = min(_UNREAD, evidence.min())
    return Reading(window, text[:, START], text[:, END], evidence)


def _best_answer(text: Floats) -> float:
    """The score of the likeliest start and end, in this order, within some tokens."""
    starts = np.maximum.accumulate(text[:, START])
    return float((starts + text[:, END]).max() / 2)


def read_config(path: Path) -> dict[str, Any]:
    """Returns the encoder's sizes, checked.

    Raises:
        CheckpointError: One is missing or out of range.
    """
    sizes = read_json(path)
    for name, limit in SIZE_LIMITS.items():
        value = sizes.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= limit:
            raise CheckpointError(f"{path} should say {name} from 1 to {limit}, but says {value!r}")
    return {name: sizes[name] for name in SIZE_LIMITS}


def torch_is_loaded() -> bool:
    """Whether something else of this process runs on torch: its import takes 2 s and 350 MB."""
    return "torch" in sys.modules


def _array_model(config: dict[str, Any], weights: Path) -> ArrayEncoder:
    return ArrayEncoder(config, _read_arrays(weights, shapes(config)))


def _model(config: dict[str, Any], weights: Path) -> Any:
    import torch
    from transformers import BertConfig, BertForTokenClassification

    bound_kernels()
    with torch.device("meta"):
        model = BertForTokenClassification(
            BertConfig(**config, num_labels=3, attn_implementation="sdpa")
        )
    dtype = torch.bfloat16 if computes_in_16_bits() else torch.float32
    state = {k: v.to(dtype) for k, v in read_weights(weights, model.state_dict()).items()}
    model.load_state_dict(state, strict=True, assign=True)
    embeddings = model.bert.embeddings
    embeddings.position_ids = torch.arange(config["max_position_embeddings"])[None]
    embeddings.token_type_ids = torch.zeros(
        (1, config["max_position_embeddings"]), dtype=torch.long
    )
    return model.eval()


def computes_in_16_bits() -> bool:
    """Whether this processor multiplies bfloat16 itself; elsewhere that would be slower."""
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def read_weights(path: Path, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Reads int8 matrices with a scale per row, and the rest as they are, as 32-bit floats.

    Args:
        path: A file as ``recallm train reader`` writes it.
        like: Tensors by name, whose shapes the file's must have.

    Raises:
        CheckpointError: A tensor is missing, or has another shape or type.
    """
    import torch

    arrays = _read_arrays(path, {name: tuple(tensor.shape) for name, tensor in like.items()})
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _read_arrays(path: Path, expected: Mapping[str, Shape]) -> dict[str, Floats32]:
    with needs("server", "the evidence reader"):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(str(path), framework="numpy") as arrays:
            return {name: _array(arrays, path, name, shape) for name, shape in expected.items()}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from error


def _array(arrays: Any, path: Path, name: str, expected: Shape) -> Floats32:
    """One array, its shape and type checked before it is read."""
    scale, names, shape = f"{name}.scale", set(arrays.keys()), list(expected)
    is_matrix = len(shape) == 2
    if name not in names or is_matrix != (scale in names):
        raise CheckpointError(f"{path} has no usable {name}")
    part, types = arrays.get_slice(name), ("I8",) if is_matrix else ("F16", "F32")
    if part.get_dtype() not in types or part.get_shape() != shape:
        raise CheckpointError(
            f"{name} in {path} should be {types} {shape}, but is {part.get_dtype()} "
            f"{part.get_shape()}"
        )
    if is_matrix and arrays.get_slice(scale).get_shape() != shape[:1]:
        raise CheckpointError(f"{scale} in {path} should have a scale per row")
    value: Floats32 = arrays.get_tensor(name).astype(np.float32)
    if is_matrix:
        value *= arrays.get_tensor(scale).astype(np.float32)[:, None]
    return value


_LOADING = ForkSafeLock()


@cache
def _default() -> EvidenceReader:
    return EvidenceReader()


def default_reader() -> EvidenceReader:
    """Returns the reader that ships with the library, loaded once."""
    with _LOADING:
        return _default()
