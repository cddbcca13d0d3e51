"""Stage 1: only the rows of the recall tokens learn, as small additions beside a frozen model.

The additions are a few thousand 32-bit numbers, so a 7B model can stay frozen in 16 bits: an update
of 5e-5 would be rounded away in a 16-bit row. They are merged into the weights afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from recallm_core.models.writing import whole_file

FILE = "rows.safetensors"


class NewRows(nn.Module):
    """What is added to some rows of a model's embeddings, and of its output layer if untied."""

    ids: Tensor
    slots: Tensor

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        super().__init__()
        self._hooks: tuple[RemovableHandle, ...] = ()
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        self.tied = head is None or head.weight is table.weight
        width = table.weight.shape[1]
        self.inputs = nn.Parameter(torch.zeros(len(ids), width))
        if not self.tied:
            self.outputs = nn.Parameter(torch.zeros(len(ids), width))
        slots = torch.zeros(table.weight.shape[0], dtype=torch.long)
        slots[list(ids)] = torch.arange(1, len(ids) + 1)
        self.register_buffer("ids", torch.tensor(list(ids)), persistent=False)
        self.register_buffer("slots", slots, persistent=False)

    def attach(self, model: Any) -> None:
        """Freezes the model and adds the rows to what its two layers give."""
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model.recall_rows = self
        self._hooks = (
            model.get_input_embeddings().register_forward_hook(self._embedding),
            model.get_output_embeddings().register_forward_hook(self._score),
        )

    def detach(self, model: Any) -> None:
        """Adds the rows to the weights of the model that they stand beside, and leaves it."""
        for hook in self._hooks:
            hook.remove()
        del model.recall_rows
        with torch.no_grad():
            for layer, added in self._tables(model).values():
                _add(layer.weight, self.ids.tolist(), added)

    def whole_rows(self, model: Any) -> dict[str, Tensor]:
        """Returns the rows as they are with what is added, by the name of their layer."""
        return {
            name: layer.weight[self.ids].float() + added.detach()
            for name, (layer, added) in self._tables(model).items()
        }

    def _tables(self, model: Any) -> dict[str, tuple[Any, Tensor]]:
        """The layers with rows of their own, by name, and what is added to these."""
        layers = [(model.get_input_embeddings(), self.inputs)]
        if not self.tied:
            layers.append((model.get_output_embeddings(), self.outputs))
        names = {id(module): name for name, module in model.named_modules()}
        return {names[id(layer)]: (layer, added) for layer, added in layers}

    def _embedding(self, _: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        padded = torch.cat([self.inputs.new_zeros(1, self.inputs.shape[1]), self.inputs])
        return out + nn.functional.embedding(self.slots[args[0]], padded).to(out.dtype)

    def _score(self, _: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        rows = self.inputs if self.tied else self.outputs
        more = nn.functional.linear(args[0].to(rows.dtype), rows)
        return out.index_add(-1, self.ids, more.to(out.dtype))

    def save(self, folder: Path) -> None:
        """Writes the rows; the file appears whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().cpu().contiguous() for name, p in self.named_parameters()}
        with whole_file(folder / FILE) as aside:
            save_file(tensors, aside, metadata={"ids": ",".join(map(str, self.ids.tolist()))})

    def read(self, folder: Path) -> None:
        """Takes the rows that ``save`` wrote."""
        self.load_state_dict(load_file(folder / FILE))


def merge(model: Any, folder: Path, ids: Sequence[int]) -> None:
    """Adds saved rows to the weights of a plain model."""
    saved = load_file(folder / FILE)
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    with torch.no_grad():
        for layer, name in ((table, "inputs"), (head, "outputs")):
            if name in saved:
                _add(layer.weight, ids, saved[name])


def _add(weight: Tensor, ids: Sequence[int], rows: Tensor) -> None:
    """Adds to some rows of a weight, in 32 bits."""
    total = weight[list(ids)].float() + rows.to(weight.device)
    weight[list(ids)] = total.to(weight.dtype)
