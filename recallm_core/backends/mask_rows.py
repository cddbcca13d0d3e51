"""Writes what is legal into a row of logits, wherever the row lies."""

from __future__ import annotations

import torch

from recallm_core.constraint import Mask


def write_mask(row: torch.Tensor, mask: Mask, vocab_size: int) -> None:
    """Sets everything illegal in a row to minus infinity; legal logits keep their bits.

    Where others forbade all that is legal, the legal ids get equal logits: a copy must go on.

    Args:
        row: Logits of one sequence, changed in place; may be wider than the vocabulary.
        mask: What is legal.
        vocab_size: Ids from here on are never legal.
    """
    if mask.only is None:
        assert mask.forbid is not None
        row[torch.tensor(mask.forbid, device=row.device)] = -torch.inf
        row[vocab_size:] = -torch.inf
        return
    ids = torch.tensor(mask.only, device=row.device)
    kept = row[ids]
    if mask.bias is not None:
        kept = kept + torch.tensor(mask.bias, dtype=kept.dtype, device=row.device)
    if not torch.isfinite(kept).any():
        kept = torch.zeros_like(kept)
    row.fill_(-torch.inf)
    row[ids] = kept
