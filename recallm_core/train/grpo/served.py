"""Attempts by a vLLM server, which is given the adapter as it is before each step.

The server runs the base that the adapter goes on, and obeys the same constraint; trainer and server
share a folder. What is left between the two is rounding: the server tells how likely it held each
token to be, among those that were legal, and a run stops where trainer and server differ by more.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recallm_core.backends.vllm.connect import connect
from recallm_core.backends.vllm.http import ServerBackend
from recallm_core.errors import RecallmError
from recallm_core.models.writing import whole_folder
from recallm_core.train.grpo.config import GrpoConfig

FOLDER = "adapters"
"""Of a run's folder: where the server takes adapters from."""
MOST_GAP = 0.1
"""Mean difference of log-probabilities above which the server's policy is another one."""
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for


class ServedPolicy:
    """A server that makes the attempts of a run.

    Args:
        config: Of the run.
        base: The folder that the run starts from.
        vocab_size: Width of its logits.
        folder: Where adapters are written for the server.

    Raises:
        ServerError: No server answers, it doesn't hold its output to a constraint, or it serves a
            model with another tokenizer or recipe.
        RecallmError: Its model has another width or a shorter context length.
    """

    def __init__(self, config: GrpoConfig, base: Path, vocab_size: int, folder: Path) -> None:
        _, self.backend, _ = connect(config.rollouts_from, tokenizer=base)
        self._folder = folder
        self._written: list[Path] = []
        longest = config.prompt_tokens[1] + config.response_tokens
        if self.backend.window < longest or self.backend.vocab_size != vocab_size:
            context_length, width = self.backend.window, self.backend.vocab_size
            self.backend.close()
            raise RecallmError(
                f"{config.rollouts_from} has logits {width:,} wide and a context length of "
                f"{context_length:,}; the run needs {vocab_size:,} and {longest:,}: serve {base} "
                "itself, with --max-model-len if need be"
            )

    def at(self, model: Any, step: int, accelerator: Any) -> ServerBackend:
        """Returns the server once it has the model's adapter as it is now.

        Args:
            model: The policy, with its adapter.
            step: Optimizer steps done.
            accelerator: Lets the first process see to it, and the others wait.

        Raises:
            ServerError: The server doesn't take it.
        """
        name = f"step-{step:06d}-{digest(_weights(model))}"
        if accelerator.is_main_process:
            self._write(model, name)
            self.backend.use_adapter(name)
        accelerator.wait_for_everyone()
        self.backend.model = name
        return self.backend

    def _write(self, model: Any, name: str) -> None:
        target = self._folder / name
        if not target.is_dir():
            with whole_folder(target) as aside:
                model.save_pretrained(aside, save_embedding_layers=False)
        written = [*(path for path in self._written if path != target), target]
        for path in written[:-2]:  # the last but one may still be read
            shutil.rmtree(path, ignore_errors=True)
        self._written = written[-2:]

    def close(self) -> None:
        """Leaves the server; adapters that it may still be reading stay."""
        self.backend.close()


def _weights(model: Any) -> Mapping[str, Tensor]:
    from peft import get_peft_model_state_dict

    weights: Mapping[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return weights


def digest(weights: Mapping[str, Tensor]) -> str:
    """Returns what tells the weights of one step from those of any other."""
    state = hashlib.blake2b(digest_size=8)
    for name in sorted(weights):
        plain = weights[name].detach().cpu().contiguous()
        state.update(name.encode() + plain.view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def check_gap(differences: Sequence[Tensor]) -> None:
    """Checks that attempts came from the policy that learns from them.

    Args:
        differences: Between the log-probabilities of server and trainer, where there was a choice.

    Raises:
        RecallmError: They differ by more than rounding.
    """
    joined = torch.cat([*differences, torch.zeros(0)])
    mean = float(joined.abs().mean()) if len(joined) else 0.0
    if not mean <= MOST_GAP:
        raise RecallmError(
            f"the server's log-probabilities differ from the trainer's by {mean:.3g} on average "
            f"({MOST_GAP:g} at most): it serves another checkpoint, is quantised, or rounds too "
            "coarsely; serve the folder that the run starts from, with its own --dtype"
        )


def start_command(config: GrpoConfig, out: str) -> str:
    """Returns what starts the server of a run."""
    rank = next((r for r in _RANKS if r >= config.adapter_rank), _RANKS[-1])
    return (
        f"recallm serve {config.model or 'MODEL'} --adapters {out}/{FOLDER} --max-lora-rank {rank}"
    )
