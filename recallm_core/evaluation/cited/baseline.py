"""The same model without the library: its own chat template, one sentence, nothing constrained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recallm_core.documents.document import Document
from recallm_core.errors import RecallmError
from recallm_core.evaluation.cited.items import UNSCORED
from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.items import Item
from recallm_core.generator import RecaLLM
from recallm_core.tokenization.tokenizer import HFTokenizer

if TYPE_CHECKING:
    import torch

BASELINE = "without us"
INSTRUCTION = "Answer the question from the documents in a few words."
Ids = list[int]


class BaselineError(RecallmError):
    """The model can't be run without the library."""


class ByPlainModel:
    """Asks a model of transformers in plain words, greedily.

    Args:
        llm: The model; its recipe and its constraint aren't used.
        max_new_tokens: Output tokens at most.

    Raises:
        BaselineError: The model isn't run by transformers in this process.
    """

    name = BASELINE

    def __init__(self, llm: RecaLLM, max_new_tokens: int) -> None:
        model = getattr(llm.backend, "model", None)
        if not isinstance(llm.tokenizer, HFTokenizer) or not hasattr(model, "generate"):
            raise BaselineError(
                "--baseline needs a model that transformers runs in this process, got "
                f"{type(llm.backend).__name__}; leave it out for this model"
            )
        self._model: Any = model
        self._tokenizer = llm.tokenizer
        self._most = max_new_tokens
        self._chats = bool(llm.tokenizer.tokenizer.chat_template)

    def asks(self, item: Item) -> bool:
        """Only an answer can be judged: what it says instead of one, no rule can tell."""
        return item.answerable or item.group == UNSCORED

    def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
        """Returns what the model says to each question."""
        wall, cpu = time.perf_counter(), time.process_time()
        prompts = [self._tokenizer.encode_template(self.prompt(item)) for item in items]
        outputs = self._generate(prompts)
        share = 1 / len(items)
        seconds = (time.perf_counter() - wall) * share
        cpu_seconds = (time.process_time() - cpu) * share
        return [
            self._record_of(prompt, output, seconds, cpu_seconds)
            for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def prompt(self, item: Item) -> str:
        """Returns what the model reads; a model without a template completes the text."""
        documents = "\n\n".join(_document_text(n, d) for n, d in enumerate(item.documents, start=1))
        content = f"{INSTRUCTION}\n\n{documents}\n\nQuestion: {item.question}"
        text = self._tokenizer.render_chat([{"role": "user", "content": content}])
        return text if self._chats else f"{text.rstrip()}\nAnswer:"

    def _generate(self, prompts: Sequence[Ids]) -> list[Ids]:
        """The output tokens of each prompt, the end marker and what follows it left out."""
        import torch

        ids, mask = _pad_left(prompts, self._pad, self._model.device)
        with torch.inference_mode():
            whole = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=self._most,
                do_sample=False,
                num_beams=1,
                eos_token_id=list(self._tokenizer.eos_ids),
                pad_token_id=self._pad,
                **({} if self._chats else _until_line_end(self._tokenizer)),
            )
        return [self._cut(row) for row in whole[:, ids.shape[1] :].tolist()]

    @property
    def _pad(self) -> int:
        return self._tokenizer.eos_ids[0]

    def _cut(self, output: Ids) -> Ids:
        ends = [n for n, token in enumerate(output) if token in self._tokenizer.eos_ids]
        return output[: ends[0]] if ends else output

    def _record_of(
        self, prompt: Ids, output: Ids, seconds: float, cpu_seconds: float
    ) -> AnswerRecord:
        text = self._tokenizer.decode(output).strip()
        if not self._chats:
            text = text.partition("\n")[0].strip()
        return AnswerRecord(
            text=text,
            words=text,
            prompt_tokens=len(prompt),
            output_tokens=len(output),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            finish_reason="length" if len(output) >= self._most else "stop",
        )


def _document_text(number: int, document: Document) -> str:
    title = f": {document.title}" if document.title else ""
    return f"Document {number}{title}\n{document.text}"


def _pad_left(
    prompts: Sequence[Ids], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts side by side, filled up on the left, and which places are theirs."""
    import torch

    longest = max(map(len, prompts))
    rows = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    masks = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(rows, device=device), torch.tensor(masks, device=device)


def _until_line_end(tokenizer: HFTokenizer) -> dict[str, Any]:
    """A model that only completes text would go on with questions of its own."""
    return {"stop_strings": ["\n"], "tokenizer": tokenizer.tokenizer}
