"""The evidence reader's encoder in plain arrays, for machines without torch.

It is BERT with three scores a token (Devlin et al., 2019): the same numbers as torch's, to the
rounding of 32-bit floats, one row at a time, so that nothing is padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]
Shape = tuple[int, ...]

_EPSILON = 1e-12  # of BERT's layer norms
# erf by Abramowitz and Stegun, 7.1.26: wrong by 1.5e-7 at most
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_SCALE = 0.3275911


def shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Returns the arrays that such an encoder is made of, and their shapes.

    Args:
        config: Its sizes, as ``reader.read_config`` returns them.
    """
    wide, inner = config["hidden_size"], config["intermediate_size"]
    arrays: dict[str, Shape] = {
        "bert.embeddings.word_embeddings.weight": (config["vocab_size"], wide),
        "bert.embeddings.position_embeddings.weight": (config["max_position_embeddings"], wide),
        "bert.embeddings.token_type_embeddings.weight": (config["type_vocab_size"], wide),
        **_norm("bert.embeddings.LayerNorm", wide),
        **_dense("classifier", 3, wide),
    }
    for number in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{number}"
        for name in ("query", "key", "value"):
            arrays |= _dense(f"{layer}.attention.self.{name}", wide, wide)
        arrays |= _dense(f"{layer}.attention.output.dense", wide, wide)
        arrays |= _norm(f"{layer}.attention.output.LayerNorm", wide)
        arrays |= _dense(f"{layer}.intermediate.dense", inner, wide)
        arrays |= _dense(f"{layer}.output.dense", wide, inner)
        arrays |= _norm(f"{layer}.output.LayerNorm", wide)
    return arrays


def _dense(name: str, rows: int, columns: int) -> dict[str, Shape]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, wide: int) -> dict[str, Shape]:
    return {f"{name}.weight": (wide,), f"{name}.bias": (wide,)}


class ArrayEncoder:
    """An encoder over plain arrays; safe to call from many threads.

    Args:
        config: Its sizes.
        arrays: What ``shapes`` names.
    """

    def __init__(self, config: Mapping[str, Any], arrays: Mapping[str, Floats32]) -> None:
        self._heads: int = config["num_attention_heads"]
        self._layers: int = config["num_hidden_layers"]
        self._arrays = arrays

    def logits(
        self, ids: Sequence[Sequence[int]], kinds: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        """Returns the scores of rows, ``float64[tokens, 3]`` each.

        Args:
            ids: The ids of each row.
            kinds: Its token types.
        """
        return [self._row(*row).astype(np.float64) for row in zip(ids, kinds, strict=True)]

    def _row(self, ids: Sequence[int], kinds: Sequence[int]) -> Floats32:
        words, places, types = (
            self._arrays[f"bert.embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        )
        hidden = words[list(ids)] + places[: len(ids)] + types[list(kinds)]
        hidden = self._layer_norm("bert.embeddings.LayerNorm", hidden)
        for number in range(self._layers):
            hidden = self._layer(f"bert.encoder.layer.{number}", hidden)
        return self._dense("classifier", hidden)

    def _layer(self, layer: str, hidden: Floats32) -> Floats32:
        attended = self._dense(f"{layer}.attention.output.dense", self._attention(layer, hidden))
        hidden = self._layer_norm(f"{layer}.attention.output.LayerNorm", hidden + attended)
        inner = _gelu(self._dense(f"{layer}.intermediate.dense", hidden))
        outer = self._dense(f"{layer}.output.dense", inner)
        return self._layer_norm(f"{layer}.output.LayerNorm", hidden + outer)

    def _attention(self, layer: str, hidden: Floats32) -> Floats32:
        tokens, wide = hidden.shape
        query, key, value = (
            self._by_head(self._dense(f"{layer}.attention.self.{name}", hidden))
            for name in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(wide // self._heads))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = scores / scores.sum(axis=-1, keepdims=True)
        attended: Floats32 = (shares @ value).swapaxes(0, 1).reshape(tokens, wide)
        return attended

    def _by_head(self, values: Floats32) -> Floats32:
        """``float32[heads, tokens, part]``; contiguous, or numpy multiplies without BLAS."""
        parts = values.reshape(len(values), self._heads, -1).swapaxes(0, 1)
        return np.ascontiguousarray(parts)

    def _dense(self, name: str, values: Floats32) -> Floats32:
        product: Floats32 = values @ self._arrays[f"{name}.weight"].T
        return product + self._arrays[f"{name}.bias"]

    def _layer_norm(self, name: str, values: Floats32) -> Floats32:
        centred = values - values.mean(axis=-1, keepdims=True)
        spread = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        scaled: Floats32 = centred / spread * self._arrays[f"{name}.weight"]
        return scaled + self._arrays[f"{name}.bias"]


def _gelu(values: Floats32) -> Floats32:
    """Half of a value times 1 + erf(value / sqrt 2)."""
    size = np.abs(values) * np.float32(np.sqrt(0.5))
    t = np.float32(1.0) / (np.float32(1.0) + np.float32(_ERF_SCALE) * size)
    series = np.zeros_like(t)
    for factor in reversed(_ERF):
        series = (series + np.float32(factor)) * t
    erf = np.sign(values) * (np.float32(1.0) - series * np.exp(-size * size))
    result: Floats32 = np.float32(0.5) * values * (np.float32(1.0) + erf)
    return result
