"""What the evidence reader's training starts from, and the folder that it ends in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from recallm_core.evidence.reader import (
    SIZE_LIMITS,
    computes_in_16_bits,
    read_config,
    read_weights,
    reader_file,
)
from recallm_core.inputs.model_files import whole_tokenizer
from recallm_core.train.static_embedder import verify_teacher


@dataclass(frozen=True, slots=True)
class Base:
    """An encoder to start from.

    Attributes:
        folder: Of all-MiniLM-L6-v2 (Apache-2.0), whose hashes are checked before anything is
            loaded; or of a reader that was exported before.
        is_reader: Which of the two.
    """

    folder: Path
    is_reader: bool = False

    def tokenizer(self) -> Tokenizer:
        """Returns its tokenizer, without truncation and padding."""
        return whole_tokenizer(self.folder / "tokenizer.json")

    def config(self) -> dict[str, Any]:
        """Returns its sizes.

        Raises:
            CheckpointError: The folder isn't as it should be.
        """
        if not self.is_reader:
            verify_teacher(self.folder)
        return read_config(reader_file(self.folder, "config.json"))

    def model(self) -> Any:
        """Returns the encoder with three outputs a token; its word table is frozen.

        In 16 bits where they are computed with, else in 32: a processor without them, a virtual
        AMD EPYC with AVX2, took 46 seconds for a step in 16 bits and 2.4 in 32.

        Raises:
            CheckpointError: The folder isn't as it should be.
        """
        from transformers import BertConfig, BertForTokenClassification

        if self.is_reader:
            sizes = BertConfig(**self.config(), num_labels=3, attn_implementation="sdpa")
            model = BertForTokenClassification(sizes)
            path = reader_file(self.folder, "model.safetensors")
            model.load_state_dict(read_weights(path, model.state_dict()))
        else:
            verify_teacher(self.folder)
            model = BertForTokenClassification.from_pretrained(
                str(self.folder), num_labels=3, use_safetensors=True, attn_implementation="sdpa"
            )
        model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
        is_fast = torch.cuda.is_available() or computes_in_16_bits()
        return model.to(torch.bfloat16 if is_fast else torch.float32)


def write_folder(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], tokenizer: Tokenizer, out: Path
) -> None:
    """Writes a reader's folder: matrices as int8 with a scale per row, the rest in 16 bits."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        value = tensor.detach().float()
        if value.ndim == 2:
            scale = value.abs().amax(1).clamp_min(1e-8) / 127
            tensors[name] = (value / scale[:, None]).round().to(torch.int8).contiguous()
            tensors[f"{name}.scale"] = scale
        else:
            tensors[name] = value.to(torch.float16)
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "model.safetensors.partial"
    save_file(tensors, partial)
    partial.chmod(0o644)
    partial.replace(out / "model.safetensors")
    sizes = {name: config[name] for name in SIZE_LIMITS}
    (out / "config.json").write_text(json.dumps(sizes, indent=1) + "\n", "utf-8")
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
