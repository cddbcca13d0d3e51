"""``RecallmLM``: a model with recall as a model of lm-evaluation-harness.

Importing this module registers it as ``recallm``; it needs ``lm-eval``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from recallm_core.answering.stream import AnswerStream
from recallm_core.errors import MissingExtraError
from recallm_core.evaluation.harness.samples import documents_of
from recallm_core.generator import RecaLLM
from recallm_core.prompting.params import GenerationParams

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("lm_eval"):
        raise
    raise MissingExtraError(
        "RecallmLM needs lm-evaluation-harness: pip install 'recallm-core[harness]'"
    ) from error

_TOKENS = 256


@register_model("recallm")
class RecallmLM(LM):  # type: ignore[misc]  # the harness has no types
    """A model with recall, for tasks that generate.

    A row of our tasks brings its documents; of any other task, the whole prompt is what may be
    quoted. Tasks that compare likelihoods can't be run.

    Args:
        model: As for ``RecaLLM.load``, or a loaded ``RecaLLM``.
        mode: ``auto``, ``trained`` or ``prompted``.
        thought: Output tokens for reasoning and evidence, beside the task's.
        max_gen_toks: Answer tokens where a task doesn't say.
        batch_size: Requests asked at once.
        options: What else ``RecaLLM.load`` takes.
    """

    def __init__(
        self,
        model: str | RecaLLM = "recallm-mini",
        mode: str = "auto",
        thought: int = 256,
        max_gen_toks: int = _TOKENS,
        batch_size: int | str = 4,
        **options: Any,
    ) -> None:
        super().__init__()
        options = {name: value for name, value in options.items() if name in ("device", "dtype")}
        self._llm: RecaLLM = (
            model if isinstance(model, RecaLLM) else RecaLLM.load(model, mode=mode, **options)
        )
        self._thought = int(thought)
        self._tokens = int(max_gen_toks)
        self._batch = int(batch_size) if str(batch_size).isdecimal() else 4

    @property
    def tokenizer_name(self) -> str:
        """Names the template in the harness's cache."""
        return str(self._llm.name)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Returns the turns one after another; the model's template is put around them later."""
        return "\n\n".join(turn["content"] for turn in chat_history)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Returns the answers that users would read."""
        answers: list[str] = []
        for first in range(0, len(requests), self._batch):
            batch = requests[first : first + self._batch]
            with ExitStack() as stack:
                streams = [self._begin(request, stack) for request in batch]
                texts = [stream.result().text for stream in streams]
            answers += [
                cut(text, request.args[1]) for text, request in zip(texts, batch, strict=True)
            ]
        return answers

    def _begin(self, request: Any, stack: ExitStack) -> AnswerStream:
        """Begins an answer; the stack closes it however it ends."""
        context, settings = request.args[:2]
        doc = request.doc if isinstance(request.doc, Mapping) else {}
        documents = documents_of(doc)
        params = self._params(settings)
        if documents is None:
            messages = [{"role": "user", "content": context}]
            stream = self._llm.stream_chat(messages, params=params, scope="prompt")
        else:
            turns = json.loads(doc["recallm_turns"])
            stream = self._llm.stream_chat(turns, documents, params=params)
        stack.callback(stream.close)
        return stream

    def _params(self, settings: Mapping[str, Any]) -> GenerationParams:
        sampled = settings.get("do_sample", False)
        return GenerationParams(
            max_new_tokens=int(settings.get("max_gen_toks", self._tokens)) + self._thought,
            temperature=float(settings.get("temperature", 0.0)) if sampled else 0.0,
        )

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuses: quotes are made while generating."""
        raise NotImplementedError(
            "RecallmLM only generates; choose tasks with output_type generate_until"
        )

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Refuses: quotes are made while generating."""
        raise NotImplementedError(
            "RecallmLM only generates; choose tasks with output_type generate_until"
        )


def cut(text: str, settings: Mapping[str, Any]) -> str:
    """Returns an answer up to the first of the task's stop strings."""
    stops = settings.get("until") or []
    places = [text.find(stop) for stop in ([stops] if isinstance(stops, str) else stops) if stop]
    ends = [place for place in places if place >= 0]
    return text[: min(ends)] if ends else text
