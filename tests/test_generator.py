"""The whole surface of RecaLLM with scripted models: answers, streams, threads, cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from recallm_core.answering.stream import Event, Finished
from recallm_core.answers.trace import (
    AnswerDelta,
    ReasoningDelta,
    RecallDelta,
    RecallEnded,
    RecallStarted,
)
from recallm_core.backends import GenerationRequest
from recallm_core.documents.document import Document, collect
from recallm_core.errors import (
    ContextOverflowError,
    DocumentError,
    GenerationCancelledError,
    GenerationError,
)
from recallm_core.generator import RecaLLM
from recallm_core.packing import pack_everything
from recallm_core.prompting.params import GenerationParams
from recallm_core.prompting.recipe import Recipe, trained_recipe
from recallm_core.testing import ByteTokenizer, ScriptedBackend, random_llm, scripted_llm

EIFFEL = Document("The Eiffel Tower was finished in 1889.\r\nIt is 330 metres tall.", "eiffel")
LOUVRE = Document("The Louvre opened in 1793. 🎨", "louvre", "Louvre")
SCRIPT = (
    "When? <|start_recall|>was finished in 1889<|end_recall|> So.</think>"
    "Answer: It was finished in <|start_recall|>1889<|end_recall|>."
)
SLOW = "Let me think." * 50 + SCRIPT


def own(kind: str) -> RecaLLM:
    if kind == "trained":
        return scripted_llm(SCRIPT)
    thinks = {"think_open": "<think>", "think_close": "</think>"} if kind == "thinking" else {}
    return scripted_llm(SCRIPT, recipe=Recipe(**thinks))


def backend_of(llm: RecaLLM) -> ScriptedBackend:
    assert isinstance(llm.backend, ScriptedBackend)
    return llm.backend


@pytest.mark.parametrize("kind", ["trained", "thinking", "prompted"])
def test_an_answer_has_its_quotes_where_they_stand(kind: str) -> None:
    answer = own(kind).answer("When was the tower finished?", [EIFFEL, LOUVRE])
    assert answer.text.endswith("It was finished in 1889.")
    assert not answer.abstained
    assert answer.finish_reason == "stop"
    assert answer.question == "When was the tower finished?"
    assert [span.text for span in answer.trace.spans] == ["was finished in 1889", "1889"]
    texts = {"eiffel": EIFFEL.text}
    for citation in answer.citations:
        assert texts[citation.document_id][citation.start : citation.end] == citation.text
        assert answer.text[citation.answer_start : citation.answer_end].lower() in citation.text
    usage = answer.usage
    assert usage.prompt_tokens == len(
        own(kind)
        .prepare([{"role": "user", "content": "When was the tower finished?"}], [EIFFEL, LOUVRE])[0]
        .token_ids
    )
    assert usage.recall_tokens > len("was finished in 18891889")
    if kind == "trained":
        assert answer.trace.reasoning == "When? was finished in 1889 So."
    assert set(answer.sources) == {"eiffel", "louvre"}


def test_events_come_as_they_happen_and_end_with_the_answer() -> None:
    stream = scripted_llm(SCRIPT).stream("When?", [EIFFEL])
    events: list[Event] = list(stream)
    kinds = [type(e) for e in events if not isinstance(e, RecallDelta)]
    order = [k for k, last in zip(kinds, [None, *kinds], strict=False) if k is not last]
    assert order == [
        ReasoningDelta,
        RecallStarted,
        RecallEnded,
        ReasoningDelta,
        AnswerDelta,
        RecallStarted,
        RecallEnded,
        AnswerDelta,
        Finished,
    ]
    assert isinstance(events[-1], Finished)
    assert stream.result() is events[-1].answer
    assert stream.next_events() == []
    assert list(stream) == []
    stream.close()
    assert stream.result() is events[-1].answer


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_the_size_of_chunks_changes_nothing(size: int) -> None:
    llm = scripted_llm(SCRIPT, tokens_per_chunk=size)
    assert llm.answer("When?", [EIFFEL]) == scripted_llm(SCRIPT).answer("When?", [EIFFEL])


def test_chat_takes_history_and_system_messages() -> None:
    seen: list[str] = []

    def script(prompt: str) -> str:
        seen.append(prompt)
        return SCRIPT

    llm = scripted_llm(script)
    messages = [
        {"role": "system", "content": "Be brief <|eos|>."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi <|end_recall|>"},
        {"role": "user", "content": "When?"},
    ]
    answer = llm.chat(messages, [EIFFEL])
    assert answer.question == "When?"
    assert answer.citations
    places = [seen[0].index(m["content"]) for m in messages]
    assert places == sorted(places)
    assert llm.chat([{"role": "user", "content": "When?"}]).abstained  # no documents, no evidence


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": " \n"}],
        [{"role": "assistant", "content": "x"}],
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "robot", "content": "x"}, {"role": "user", "content": "x"}],
        [{"role": "user", "content": "a \ud800"}],
        [{"role": "assistant", "content": "\udfff"}, {"role": "user", "content": "x"}],
        ["When?"],
        "When?",
        {"role": "user", "content": "x"},
    ],
    ids=str,
)
def test_what_is_no_conversation_is_refused_before_the_model_runs(messages: Any) -> None:
    llm = scripted_llm(SCRIPT)
    with pytest.raises(ValueError, match=r"."):
        llm.chat(messages, [EIFFEL])
    assert backend_of(llm).requests == []


def test_an_empty_question_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="the question is empty; ask something"):
        scripted_llm(SCRIPT).answer("  ", [EIFFEL])
    with pytest.raises(ValueError, match="use answer"):
        scripted_llm(SCRIPT).chat("When?")  # type: ignore[arg-type]


def test_a_lone_surrogate_is_named_with_its_place() -> None:
    with pytest.raises(DocumentError, match=r"message 0 has a lone surrogate \(U\+D800\)"):
        scripted_llm(SCRIPT).answer("a\ud800", [EIFFEL])
    with pytest.raises(DocumentError, match="lone surrogate"):
        scripted_llm(SCRIPT).answer("a", ["\udc80"])


@pytest.mark.parametrize("documents", [[], [""], [" \n"], ["", Document("", "x")]])
def test_nothing_to_quote_is_an_abstention_without_a_quote(documents: list[Any]) -> None:
    answer = scripted_llm(SCRIPT).answer("When?", documents)
    assert answer.citations == ()
    assert answer.trace.spans == ()
    assert answer.abstained


def test_texts_documents_and_sets_are_documents() -> None:
    llm = scripted_llm(SCRIPT)
    one = llm.answer("When?", [EIFFEL.text])
    assert one.citations[0].document_id.startswith("doc-")
    again = llm.answer("When?", collect([EIFFEL.text, Document(EIFFEL.text)]))
    assert [c.start for c in again.citations] == [c.start for c in one.citations]
    for wrong in (EIFFEL, "text", 5, None, [5]):
        with pytest.raises(DocumentError):
            llm.answer("When?", wrong)  # type: ignore[arg-type]


def test_duplicates_with_their_own_ids_are_all_listed() -> None:
    copies = [EIFFEL, Document(EIFFEL.text, "copy"), Document("x 1889 y", "other"), EIFFEL]
    answer = scripted_llm(SCRIPT).answer("When?", copies)
    last = answer.citations[-1]
    assert last.text == "1889"
    assert {o.document_id for o in last.occurrences} == {"eiffel", "copy", "other"}
    for place in last.occurrences:
        assert answer.sources[place.document_id].text[place.start : place.end] == "1889"
    with pytest.raises(DocumentError, match="two different texts have the id"):
        scripted_llm(SCRIPT).answer("When?", [EIFFEL, Document("x", "eiffel")])


def test_questions_too_long_for_the_window_are_refused_with_the_numbers() -> None:
    llm = scripted_llm(SCRIPT, window=4000)
    with pytest.raises(ContextOverflowError, match="context length is 4,000") as caught:
        llm.answer("why " * 2000, [EIFFEL], max_new_tokens=100)
    error = caught.value
    assert error.prompt_tokens > 8000
    assert (error.reserve_tokens, error.window) == (100, 4000)
    with pytest.raises(ContextOverflowError):
        llm.answer("why?", [EIFFEL], max_new_tokens=4000)
    assert backend_of(llm).requests == []


def test_a_document_of_fifty_megabytes_is_refused_at_once() -> None:
    llm = scripted_llm(SCRIPT, window=32_768)
    with pytest.raises(ContextOverflowError, match="build a CorpusIndex") as caught:
        llm.answer("why?", [EIFFEL, Document("all work and no play " * 2_500_000, "big")])
    assert caught.value.prompt_tokens > 50_000_000
    assert backend_of(llm).requests == []


def test_documents_beyond_the_window_are_searched() -> None:
    llm = scripted_llm("<|start_recall|>The vault<|end_recall|></think>x", window=16_384)
    noise = [Document(f"Page {n} speaks of ships and weather. " * 20, f"n{n}") for n in range(60)]
    vault = Document("The vault is opened with the number 7719.", "vault")
    answer = llm.answer("How is the vault opened?", [*noise, vault])
    assert answer.usage.prompt_tokens < 16_384
    assert answer.trace.spans[0].document_id == "vault"


def test_ten_thousand_tiny_documents() -> None:
    documents = [Document(f"Item {n} costs {n * 7} coins.", f"d{n}") for n in range(10_000)]
    llm = scripted_llm("<|start_recall|>Item 9876 costs<|end_recall|></think>It costs 69132 coins")
    answer = llm.answer("What is the price of item 9876?", documents)
    assert answer.trace.spans[0].text == "Item 9876 costs"
    assert answer.trace.spans[0].document_id == "d9876"


@pytest.mark.parametrize(
    ("script", "policy", "abstained"),
    [
        ("</think>The documents don't say.", "said", True),
        ("</think>The documents don’t say!", "either", True),
        ("</think>The documents don't say.", "unsupported", True),
        ("</think>Paris", "said", False),
        ("</think>Paris", "unsupported", True),
        ("</think>Paris", "either", True),
        ("<|start_recall|>1889<|end_recall|></think>1889", "either", False),
        ("<|start_recall|>1889<|end_recall|></think>The documents don't say.", "either", True),
        ("<|start_recall|>1889<|end_recall|></think>The documents don't say.", "unsupported", True),
        ("</think>", "said", True),
    ],
)
def test_abstention_follows_the_policy(script: str, policy: Any, abstained: bool) -> None:
    answer = scripted_llm(script).answer("When?", [EIFFEL], abstain_policy=policy)
    assert answer.abstained is abstained


def test_quoting_the_words_of_an_abstention_is_no_abstention() -> None:
    document = Document("He said: The documents don't say. It was in 1889.", "d")
    script = "</think>Quote: <|start_recall|>The documents don't say<|end_recall|>"
    answer = scripted_llm(script).answer("What did he say?", [document])
    assert not answer.abstained
    assert answer.citations[0].text == "The documents don't say"


def test_settings_are_checked_and_single_ones_win() -> None:
    llm = scripted_llm("</think>" + "x" * 500)
    params = GenerationParams(max_new_tokens=300, stop="q")
    answer = llm.answer("When?", [EIFFEL], params=params, max_new_tokens=20)
    assert answer.finish_reason == "length"
    assert answer.usage.output_tokens == 20
    with pytest.raises(TypeError, match=r"unknown settings \['max_tokens'\]"):
        llm.answer("When?", [EIFFEL], max_tokens=5)
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"seed": "x"}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            llm.answer("When?", [EIFFEL], **wrong)


def test_the_seed_makes_random_answers_repeatable() -> None:
    llm = random_llm(marks=0.2)
    first, second, other = (
        llm.answer("When?", [EIFFEL], seed=seed, max_new_tokens=200) for seed in (1, 1, 2)
    )
    assert first == second != other


def test_thinking_ends_in_time_for_an_answer() -> None:
    llm = scripted_llm("hm " * 400 + SCRIPT)
    answer = llm.answer("When?", [EIFFEL], max_new_tokens=200)
    assert answer.usage.reasoning_tokens <= 151
    assert answer.text
    answer = llm.answer("When?", [EIFFEL], max_thinking_tokens=0)
    assert answer.trace.reasoning == ""


def test_a_cut_off_answer_says_so_and_a_stop_string_is_a_stop() -> None:
    llm = scripted_llm("</think>one two three four")
    cut = llm.answer("q", [EIFFEL], max_new_tokens=9, abstain_policy="said")
    assert (cut.finish_reason, cut.text) == ("length", "one two")
    stopped = llm.answer("q", [EIFFEL], stop=["three"], abstain_policy="said")
    assert (stopped.finish_reason, stopped.text) == ("stop", "one two")


def test_recall_can_be_switched_off_and_kept_to_a_section() -> None:
    llm = scripted_llm(SCRIPT)
    for where, sections in (
        ("none", []),
        ("answer", ["answer"]),
        ("thinking", ["thinking"]),
        ("thinking+answer", ["thinking", "answer"]),
    ):
        answer = llm.answer("When?", [EIFFEL], recall_in=where)
        assert [s.section for s in answer.trace.spans] == sections


def test_the_whole_prompt_can_be_quoted_if_asked_for() -> None:
    script = "<|start_recall|>tower of Babel<|end_recall|></think>tower of Babel"
    llm = scripted_llm(script)
    answer = llm.answer("What of the tower of Babel?", [EIFFEL], scope="prompt")
    (citation,) = answer.citations
    assert citation.document_id == "message:0"
    assert answer.sources["message:0"].text[citation.start : citation.end] == "tower of Babel"
    assert "Babel" not in "".join(
        s.text for s in llm.answer("What of the tower of Babel?", [EIFFEL]).trace.spans
    )
    with pytest.raises(ValueError, match="give it another id"):
        llm.answer("q", [Document("x", "message:0")], scope="prompt")


# what goes wrong


class Broken(ScriptedBackend):
    """Raises something that is no error of ours, at once or in mid-stream."""

    def __init__(self, where: str) -> None:
        super().__init__(SCRIPT)
        self.where = where

    def generate(self, request: GenerationRequest) -> Any:
        if self.where == "start":
            raise GenerationError("no room")
        return super().generate(request)

    def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
        for count, token in enumerate(super()._tokens(request, number)):
            if count == 5:
                raise OSError("the disk is gone")
            yield token


def broken(where: str = "middle") -> RecaLLM:
    backend = Broken(where)
    return RecaLLM(backend.tokenizer, backend, trained_recipe())


async def drained(llm: RecaLLM) -> list[Event]:
    return [event async for event in llm.astream("When?", [EIFFEL])]


def test_the_backends_exceptions_reach_every_caller() -> None:
    calls: list[Any] = [
        lambda llm: llm.answer("When?", [EIFFEL]),
        lambda llm: list(llm.stream("When?", [EIFFEL])),
        lambda llm: llm.answer_batch([("When?", [EIFFEL])] * 3),
        lambda llm: asyncio.run(llm.aanswer("When?", [EIFFEL])),
        lambda llm: asyncio.run(drained(llm)),
    ]
    for call in calls:
        with pytest.raises(GenerationError, match="OSError: the disk is gone") as caught:
            call(broken())
        assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(GenerationError, match="no room"):
            call(broken("start"))
        with pytest.raises(GenerationError, match="as it was told to"):
            call(scripted_llm(SCRIPT, fail_after=3))


def test_a_stream_that_failed_or_was_closed_gives_no_answer() -> None:
    stream = broken().stream("When?", [EIFFEL])
    with pytest.raises(GenerationError, match="disk"):
        list(stream)
    with pytest.raises(GenerationCancelledError, match="closed before the answer"):
        stream.result()
    assert list(stream) == []


def test_tools_and_schemas_are_never_dropped_silently() -> None:
    llm = scripted_llm(SCRIPT)
    messages = [{"role": "user", "content": "When?"}]
    junk: list[dict[str, Any]] = [{"tools": [object()]}, {"response_schema": object()}]
    for options in junk:
        with pytest.raises((NotImplementedError, ValueError, TypeError)):
            llm.chat(messages, [EIFFEL], **options)
        with pytest.raises((NotImplementedError, ValueError, TypeError)):
            asyncio.run(llm.achat(messages, [EIFFEL], **options))


# cancellation


def test_closing_a_stream_closes_the_backends() -> None:
    llm = scripted_llm(SLOW)
    with llm.stream("When?", [EIFFEL]) as stream:
        next(stream)
    assert backend_of(llm).closed_streams == 1
    stream.close()
    assert backend_of(llm).closed_streams == 1
    assert list(stream) == []
    with pytest.raises(GenerationCancelledError):
        stream.result()


def test_dropping_a_stream_closes_the_backends() -> None:
    llm = scripted_llm(SLOW)
    for _event in llm.stream("When?", [EIFFEL]):
        break
    del _event
    gc.collect()
    assert backend_of(llm).closed_streams == 1


def test_a_complete_answer_closes_nothing_early() -> None:
    llm = scripted_llm(SCRIPT)
    llm.answer("When?", [EIFFEL])
    gc.collect()
    assert backend_of(llm).closed_streams == 0


def test_a_batch_that_fails_closes_all_its_streams() -> None:
    llm = scripted_llm(SLOW, fail_after=10)
    with pytest.raises(GenerationError):
        llm.answer_batch([("When?", [EIFFEL])] * 4)
    gc.collect()
    assert backend_of(llm).closed_streams == 4
    with pytest.raises(ValueError, match="empty"):
        llm.answer_batch([("When?", [EIFFEL]), ("", [EIFFEL])])
    gc.collect()
    assert backend_of(llm).closed_streams == 5


def test_a_batch_keeps_its_order() -> None:
    llm = scripted_llm(lambda prompt: "</think>" + prompt.rsplit("Question: ", 1)[1])
    asked = ((f"q{n}", [EIFFEL]) for n in range(9))
    found = llm.answer_batch(asked, abstain_policy="said")
    assert [answer.text for answer in found] == [f"q{n}" for n in range(9)]
    assert llm.answer_batch([]) == []


class Gated(ScriptedBackend):
    """Gives a token only while the gate is open; a closed stream stops waiting."""

    def __init__(self) -> None:
        super().__init__(SLOW)
        self.gate = threading.Event()
        self.waiting = threading.Event()

    def _tokens(self, request: GenerationRequest, number: int) -> Iterator[int]:
        for count, token in enumerate(super()._tokens(request, number)):
            if count == 20:
                self.waiting.set()
                while not self.gate.wait(0.005) and not self.closed_streams:
                    pass
            yield token


def gated() -> tuple[RecaLLM, Gated]:
    backend = Gated()
    return RecaLLM(backend.tokenizer, backend, trained_recipe()), backend


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happened")


def test_cancelling_a_task_closes_the_stream_while_the_model_is_busy() -> None:
    async def main() -> None:
        llm, backend = gated()
        task = asyncio.create_task(llm.aanswer("When?", [EIFFEL]))
        await until(backend.waiting.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert backend.closed_streams == 1

    asyncio.run(main())


def test_a_timeout_closes_the_stream() -> None:
    async def main() -> None:
        llm, backend = gated()
        task = asyncio.create_task(drained(llm))
        await until(backend.waiting.is_set)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.05)
        await until(lambda: backend.closed_streams == 1)

    asyncio.run(main())


def test_leaving_an_async_loop_closes_the_stream() -> None:
    async def main() -> None:
        llm = scripted_llm(SLOW)
        async for _ in llm.astream("When?", [EIFFEL]):
            break
        await until(lambda: backend_of(llm).closed_streams == 1)

    asyncio.run(main())


def test_cancelling_while_the_prompt_is_built_leaves_no_stream_behind() -> None:
    class Slow(ByteTokenizer):
        def __init__(self) -> None:
            super().__init__()
            self.begun = threading.Event()

        def encode_plain(self, text: str) -> Any:
            if text == EIFFEL.text:
                self.begun.set()
                time.sleep(0.1)
            return super().encode_plain(text)

    async def main() -> None:
        tokenizer = Slow()
        llm = scripted_llm(SLOW, tokenizer=tokenizer)
        task = asyncio.create_task(llm.aanswer("When?", [EIFFEL]))
        await until(tokenizer.begun.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: backend_of(llm).closed_streams == len(backend_of(llm).requests) == 1)

    asyncio.run(main())


def test_closing_from_another_thread_ends_the_iteration() -> None:
    llm, backend = gated()
    stream = llm.stream("When?", [EIFFEL])
    with ThreadPoolExecutor(1) as pool:
        events = pool.submit(list, stream)
        assert backend.waiting.wait(10)
        stream.close()
        got = events.result(10)
    assert not any(isinstance(event, Finished) for event in got)
    with pytest.raises(GenerationCancelledError):
        stream.result()


def test_the_event_loop_is_never_blocked() -> None:
    async def main() -> None:
        llm, backend = gated()
        ticks = 0
        task = asyncio.create_task(llm.aanswer("When?", [EIFFEL]))
        await until(backend.waiting.is_set)
        for _ in range(50):  # the model is stuck meanwhile
            await asyncio.sleep(0.001)
            ticks += 1
        assert not task.done()
        backend.gate.set()
        answer = await task
        assert ticks == 50
        assert answer.citations

    asyncio.run(main())


def test_async_and_sync_answers_are_the_same() -> None:
    async def main() -> list[Any]:
        llm = scripted_llm(SCRIPT)
        messages = [{"role": "user", "content": "When?"}]
        events = [e async for e in llm.astream("When?", [EIFFEL])]
        return [
            await llm.aanswer("When?", [EIFFEL]),
            await llm.achat(messages, [EIFFEL]),
            events[-1].answer if isinstance(events[-1], Finished) else None,
        ]

    assert asyncio.run(main()) == [scripted_llm(SCRIPT).answer("When?", [EIFFEL])] * 3


def test_many_answers_at_once_in_one_loop() -> None:
    async def main() -> list[Any]:
        llm = scripted_llm(SCRIPT, tokens_per_chunk=40)
        return await asyncio.gather(*(llm.aanswer(f"When {n}?", [EIFFEL]) for n in range(40)))

    answers = asyncio.run(main())
    assert [a.question for a in answers] == [f"When {n}?" for n in range(40)]
    assert all(a.citations for a in answers)


def test_sixteen_threads_at_once() -> None:
    llm = scripted_llm(SCRIPT, tokens_per_chunk=16)
    documents = [EIFFEL, LOUVRE]

    def ask(number: int) -> str:
        answer = llm.answer(f"When {number}?", [*documents, f"note {number}"])
        assert answer.citations[-1].text == "1889"
        return answer.question

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(32))) == [f"When {n}?" for n in range(32)]


def test_what_packs_may_count_tokens_with_the_model() -> None:
    llm = scripted_llm(SCRIPT)

    class Packs:
        documents = {"eiffel": EIFFEL}  # noqa: RUF012

        def pack_report(
            self, question: str, token_budget: int, count: Any, *, overhead: Any
        ) -> Any:
            from recallm_core.packing import Pack

            assert llm.count_tokens("abc") == 3
            found = pack_everything(
                [EIFFEL], token_budget=token_budget, count=count, overhead=overhead
            )
            assert isinstance(found, Pack)
            return found

    assert llm.answer("When?", Packs()).citations  # type: ignore[arg-type]


def test_a_model_is_closed_and_shown() -> None:
    with scripted_llm(SCRIPT) as llm:
        assert repr(llm) == "RecaLLM('scripted', mode='trained', window=1,000,000)"
