"""TRL's GRPO trainer over our own attempts, with log-probabilities under the constraint.

Two things differ from stock TRL. Attempts come from ``rollout``, and the one method that turns ids
into log-probabilities is overridden: policy, old policy and reference all go through it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PrinterCallback
from trl import GRPOTrainer

from recallm_core.backends import Backend
from recallm_core.backends.local.transformers import TransformersBackend
from recallm_core.tokenization.tokenizer import Tokenizer
from recallm_core.train.grpo.config import GrpoConfig
from recallm_core.train.grpo.problems import Problems
from recallm_core.train.grpo.rollout import Attempt, attempt_seed, attempts, digest
from recallm_core.train.grpo.served import ServedPolicy, check_gap
from recallm_core.train.grpo.supports import Supports, constrained_logps

OVERRIDDEN = "_get_per_token_logps_and_entropies"


class QuoteTrainer(GRPOTrainer):  # type: ignore[misc] # TRL has few types
    """Learns from the rewards of attempts that were made under the constraint.

    Args:
        problems: What is attempted; a row of the data set is a problem's number, as text.
        tokenizer: Of the model.
        config: Of the run.
        record: Where each batch of attempts is noted, a line each.
        served: Makes the attempts; None: the model that learns does.
        options: As TRL's trainer takes them.
    """

    def __init__(
        self,
        *,
        problems: Problems,
        tokenizer: Tokenizer,
        config: GrpoConfig,
        record: Path,
        served: ServedPolicy | None = None,
        **options: Any,
    ) -> None:
        self._problems, self._words, self._config = problems, tokenizer, config
        self._record, self._served = record, served
        self.supports = Supports()
        self._drawn: dict[tuple[int, ...], tuple[float, ...]] = {}
        super().__init__(rollout_func=self._attempt, reward_funcs=[self._hand_rewards], **options)
        self.remove_callback(PrinterCallback)  # Curve tells it on stderr

    def _attempt(self, prompts: Sequence[str], _: Any) -> dict[str, list[Any]]:
        """Makes the attempts of a batch; a problem comes as often as it is to be attempted."""
        tasks = [self._problems.task(int(number)) for number in prompts]
        step, first = self.state.global_step, self.accelerator.process_index * len(tasks)
        seeds = [attempt_seed(self._config.seed, step, first + n) for n in range(len(tasks))]
        with self._backend(step) as backend:
            batch = attempts(
                backend,
                self._words,
                tasks,
                seeds,
                self._config.reward,
                temperature=self._config.temperature,
                response_tokens=self._config.response_tokens,
            )
        for task in tasks:
            self.supports.add(task.prompt.token_ids.tolist(), task.prompt.rules)
        self._drawn = {
            (*task.prompt.token_ids.tolist(), *attempt.tokens): attempt.log_probs
            for task, attempt in zip(tasks, batch, strict=True)
        }
        self._note(step, prompts, batch)
        return {
            "prompt_ids": [task.prompt.token_ids.tolist() for task in tasks],
            "completion_ids": [list(attempt.tokens) for attempt in batch],
            "logprobs": [list(attempt.log_probs) for attempt in batch],
            "parts": [attempt.parts.to_dict() for attempt in batch],
            "family": [task.problem.family for task in tasks],
        }

    @contextmanager
    def _backend(self, step: int) -> Iterator[Backend]:
        """The policy as it is now, behind this library's engine or a server."""
        model = self.accelerator.unwrap_model(self.model)
        if self._served is not None:
            yield self._served.at(model, step, self.accelerator)
            return
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        was_training = model.training
        model.eval()
        backend = TransformersBackend(base)
        try:
            yield backend
        finally:
            backend.close()
            model.train(was_training)

    def _note(self, step: int, prompts: Sequence[str], batch: Sequence[Attempt]) -> None:
        """Notes the whole batch of a step, with the attempts of all processes in their order."""
        noted = [
            (int(number), digest(a.tokens), round(a.parts.total, 6), round(a.parts.retrieval, 6))
            for number, a in zip(prompts, batch, strict=True)
        ]
        of_all = gather_object(noted)
        if not self.accelerator.is_main_process:
            return
        problems, digests, rewards, retrieval = zip(*of_all, strict=True)
        line = {
            "step": step,
            "problems": problems,
            "digest": digest(digests),
            "rewards": rewards,
            "retrieval": retrieval,
        }
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _hand_rewards(
        self,
        *,
        parts: Sequence[dict[str, float]],
        family: Sequence[str],
        log_metric: Any,
        **_: Any,
    ) -> list[float]:
        """Hands TRL the rewards, and the curve each of their parts by family."""
        for values, name in zip(parts, family, strict=True):
            for part, value in values.items():
                log_metric(f"{name}/{part}", value)
                log_metric(f"all/{part}", value)
        return [values["total"] for values in parts]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns log-probabilities and entropies under the constraint, 0 where nothing stands."""
        size = batch_size or len(input_ids)
        logps, entropies = [], []
        for first in range(0, len(input_ids), size):
            ids, mask = input_ids[first : first + size], attention_mask[first : first + size]
            logits = self._logits(model, ids, mask, logits_to_keep)
            for row in range(len(ids)):
                log_probs, entropy = self._row(ids[row], mask[row], logits[row])
                logps.append(log_probs)
                entropies.append(entropy)
        if torch.is_grad_enabled():
            self._compare(input_ids, attention_mask, logps)
        together = torch.stack(entropies) if compute_entropy else None
        return torch.stack(logps), together, None

    def _compare(self, input_ids: Tensor, mask: Tensor, logps: Sequence[Tensor]) -> None:
        """Logs by how much the trainer's log-probabilities differ from those of the attempts."""
        gaps, choices = [], []
        for ids, there, row in zip(input_ids, mask, logps, strict=True):
            drawn = self._drawn.get(tuple(ids[there > 0].tolist()))
            if drawn is not None:
                expected = torch.tensor(drawn, device=row.device)
                actual = row.detach()[: len(expected)]
                gaps.append(float((actual - expected).abs().max()))
                choices.append((actual - expected)[actual < 0].cpu())
        largest = torch.tensor([max(gaps, default=math.nan)], device=input_ids.device)
        seen = self._metrics["train"]["log_prob_gap"]  # emptied with each point of the curve
        seen[:] = [max([*seen, float(self.accelerator.gather(largest).max())])]
        if self._served is not None:
            check_gap(choices)

    def _logits(self, model: Any, ids: Tensor, mask: Tensor, logits_to_keep: int) -> Tensor:
        with self.accelerator.autocast():
            out = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp_min(0),
                logits_to_keep=logits_to_keep + 1,
                use_cache=False,
            )
        logits: Tensor = out.logits[:, -logits_to_keep - 1 : -1] / self._config.temperature
        return logits

    def _row(self, ids: Tensor, mask: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """One row; its prompt is padded on the left, its completion on the right."""
        split = len(ids) - len(logits)
        prompt, completion = ids[:split][mask[:split] > 0], ids[split:][mask[split:] > 0]
        legal = self.supports.of(prompt.tolist(), completion.tolist())
        count = len(completion)
        log_probs, entropy = constrained_logps(logits[:count], completion, legal)
        room = (0, len(logits) - count)
        return torch.nn.functional.pad(log_probs, room), torch.nn.functional.pad(entropy, room)
