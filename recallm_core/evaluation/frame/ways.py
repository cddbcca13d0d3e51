"""The ways to answer a sample: with recall, without its mask, and the same model without us."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain

from recallm_core.answering.stream import AnswerStream, request_of
from recallm_core.backends import TokenStream
from recallm_core.documents.document import Document
from recallm_core.errors import RecallmError
from recallm_core.evaluation.answering import WatchedBackend
from recallm_core.evaluation.cited.policies import record_of
from recallm_core.evaluation.frame.records import AnswerRecord
from recallm_core.evaluation.frame.sample import Sample
from recallm_core.evaluation.items import Item
from recallm_core.evaluation.unconstrained import FreeReader, free_rules
from recallm_core.generator import RecaLLM
from recallm_core.prompting.params import GenerationParams
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import Recipe
from recallm_core.tokenization.tokenizer import Tokenizer

RECALL = "recall"
UNMASKED = "recall without mask"
PLAIN = "without us"
THINKING = "without us, thinking first"
INSTRUCTION = "Answer from the documents, in a few words."
STEPS = (
    'Think step by step first. Then write the answer on a line of its own that begins with "Answer:'
    '".'
)
PREFIX = "Answer:"
_BUDGET = 64  # tokens of an answer that says nothing else


class NotInProcessError(RecallmError):
    """A way needs the model in this process."""


class _Base:
    """What the ways have in common: a watched model, and settings by sample.

    Args:
        llm: The model.
        name: As rows and tables name it.
        params: Settings that aren't the sample's.
        thought: Output tokens for reasoning and evidence, beside the answer's.
        documents: What of a sample's documents is shown; all of them by default.
    """

    def __init__(
        self,
        llm: RecaLLM,
        name: str,
        params: GenerationParams,
        thought: int,
        documents: Callable[[Item], Sequence[Document]] | None = None,
    ) -> None:
        self.name = name
        self._backend = WatchedBackend(llm.backend)
        whole = replace(llm.recipe, pack_tokens=0)  # a length is measured
        self._llm = RecaLLM(llm.tokenizer, self._backend, whole, name=llm.name)
        self._params = params
        self._thought = thought
        self._documents = documents or (lambda item: item.documents)

    def _begin(self, item: Item) -> None:
        """Makes the next output begin as the sample says.

        Raises:
            NotInProcessError: The model runs elsewhere.
        """
        if (item.reasoning or item.opens) and not self._backend.in_process:
            raise NotInProcessError(
                "an output can be made to begin with given words only where the model runs in this "
                "process; load it with transformers or llama.cpp"
            )
        words = self._llm.tokenizer.encode_plain(item.reasoning).ids if item.reasoning else ()
        self._backend.words = [int(token) for token in words]
        self._backend.opens = item.opens

    def _settings(self, item: Item) -> GenerationParams:
        """The settings with a sample's budgets."""
        budget = item.budget if isinstance(item, Sample) else _BUDGET
        return replace(
            self._params,
            max_new_tokens=budget + self._thought,
            max_thinking_tokens=self._thought if self._llm.recipe.thinks else None,
        )

    def _free(self, items: Sequence[Item]) -> list[AnswerRecord]:
        """Runs samples without a check of what comes."""
        with timer(len(items)) as times:
            outputs = run_free(self._backend, map(self._prompt_of, items))
        return [
            replace(self._record_of(item, output), seconds=times.wall, cpu_seconds=times.cpu)
            for item, output in zip(items, outputs, strict=True)
        ]

    def _prompt_of(self, item: Item) -> Prompt:
        raise NotImplementedError

    def _record_of(self, item: Item, output: Output) -> AnswerRecord:
        return free_record(item, output, self._llm.tokenizer)


class ByRecall(_Base):
    """As users are answered, with the mask; see ``_Base`` for the arguments."""

    def asks(self, item: Item) -> bool:
        """Whether there is anything to quote."""
        return bool(item.documents)

    def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
        """Returns what came of each sample."""
        with timer(len(items)) as times, ExitStack() as stack:
            streams = [self._open(item, stack) for item in items]
            answers = [stream.result() for stream in streams]
        return [record_of(answer, times.wall, times.cpu) for answer in answers]

    def _open(self, item: Item, stack: ExitStack) -> AnswerStream:
        self._begin(item)
        documents = list(self._documents(item)) or None
        settings = self._settings(item)
        stream = self._llm.stream_chat(turns(item), documents, params=settings)
        stack.callback(stream.close)
        return stream


class ByUnmasked(_Base):
    """The same wording and spans, which may hold anything; see ``unconstrained``."""

    def asks(self, item: Item) -> bool:
        """Whether there is anything to quote, and the model runs in this process."""
        return bool(item.documents) and self._backend.in_process

    def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
        """Returns what came of each sample."""
        return self._free(items)

    def _prompt_of(self, item: Item) -> Prompt:
        self._begin(item)
        params = replace(self._settings(item), prior="none")
        prompt, _ = self._llm.prepare(turns(item), list(self._documents(item)), params=params)
        return replace(prompt, rules=free_rules(prompt))


class ByPlain(_Base):
    """The same weights without us: no recall, no wording of ours but one sentence.

    Args:
        llm: The model.
        name: As rows and tables name it.
        params: Temperature and the like.
        thought: Tokens for thinking; 0: it answers at once.
        documents: What of a sample's documents is shown.
    """

    def __init__(
        self,
        llm: RecaLLM,
        name: str,
        params: GenerationParams,
        thought: int = 0,
        documents: Callable[[Item], Sequence[Document]] | None = None,
    ) -> None:
        super().__init__(llm, name, params, thought, documents)
        template = getattr(getattr(llm.tokenizer, "tokenizer", None), "chat_template", "")
        self._completes = template is None  # a base model goes on with questions of its own
        recipe = plain_recipe(llm.recipe, thinks=thought > 0, completes=self._completes)
        self._llm = RecaLLM(llm.tokenizer, self._backend, recipe, name=llm.name)
        self._params = GenerationParams(
            recall_in="none",
            evidence="free",
            prior="none",
            answer_form="words",
            temperature=params.temperature,
            top_p=params.top_p,
            seed=params.seed,
        )

    def asks(self, item: Item) -> bool:
        """Whether it opens no span."""
        return not item.opens

    def __call__(self, items: Sequence[Item]) -> list[AnswerRecord]:
        """Returns what came of each sample."""
        return self._free(items)

    def _prompt_of(self, item: Item) -> Prompt:
        self._begin(item)
        documents = list(self._documents(item)) or None
        return self._llm.prepare(turns(item), documents, params=self._settings(item))[0]

    def _record_of(self, item: Item, output: Output) -> AnswerRecord:
        answer = super()._record_of(item, output)
        text = answer.text
        if self._completes:
            text = text.strip().partition("\n")[0].strip()
        return replace(answer, text=text, words=after_prefix(text))


def plain_recipe(recipe: Recipe, *, thinks: bool = False, completes: bool = False) -> Recipe:
    """Returns how the same model is asked in plain words; a trained one keeps its own wording."""
    if recipe.mode == "trained":
        return replace(recipe, answer_prefix="")
    lines = ["{question}", INSTRUCTION, *([STEPS] if thinks else [])]
    question = "\n".join(lines) + ("\nAnswer:" if completes else "")
    return Recipe(
        mode="prompted",
        think_open=recipe.think_open,
        think_close=recipe.think_close,
        document="Document [{index}](Title: {title}) {text}\n",
        documents_close="\n",
        question=question,
        answer_prefix="",
    )


def after_prefix(text: str) -> str:
    """Returns what stands after the last ``Answer:``, or all of it where there is nothing."""
    return text.rpartition(PREFIX)[2].strip() or text.strip()


def turns(item: Item) -> list[dict[str, str]]:
    """Returns the conversation that asks an item."""
    if isinstance(item, Sample):
        return item.turns()
    return [{"role": "user", "content": item.question}]


# without the constraint


@dataclass(frozen=True, slots=True)
class Output:
    """What came of a prompt under rules that aren't checked.

    Attributes:
        prompt: With the rules that it ran under.
        tokens: The output.
        finish_reason: As in ``Answer``.
    """

    prompt: Prompt
    tokens: tuple[int, ...]
    finish_reason: str


def run_free(backend: WatchedBackend, prompts: Iterable[Prompt]) -> list[Output]:
    """Runs prompts under the rules that they have; one is made when those before it have begun."""
    begun: list[tuple[Prompt, TokenStream]] = []
    with ExitStack() as stack:
        for prompt in prompts:
            stream = backend.generate(request_of(prompt, backend, prompt.rules))
            stack.callback(stream.close)
            begun.append((prompt, stream))
        return [
            Output(prompt, tuple(chain.from_iterable(stream)), stream.finish_reason or "stop")
            for prompt, stream in begun
        ]


def free_record(item: Item, output: Output, tokenizer: Tokenizer) -> AnswerRecord:
    """Returns an unchecked output as a row has it; of its spans, which stand in a document."""
    read = FreeReader(output.prompt, output.prompt.rules, tokenizer).read(output.tokens)
    words = read.answer
    for span in read.spans:
        words = words.replace(span, " ", 1)
    texts = [document.text for document in item.documents]
    return AnswerRecord(
        text=read.answer,
        words=" ".join(words.split()) or read.answer,
        quoted=read.spans,
        verbatim=sum(any(span in text for text in texts) for span in read.spans),
        prompt_tokens=len(output.prompt.token_ids),
        output_tokens=read.tokens,
        finish_reason=output.finish_reason,
    )


@dataclass(slots=True)
class Times:
    """Wall and processor time of an answer: a batch's, divided by its answers."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def timer(answers: int) -> Iterator[Times]:
    """Measures what runs inside."""
    times = Times()
    wall, cpu = time.perf_counter(), time.process_time()
    yield times
    times.wall = (time.perf_counter() - wall) / answers
    times.cpu = (time.process_time() - cpu) / answers
