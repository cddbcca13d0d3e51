from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from langchain_core.documents import Document
from langchain_core.load import dumpd, dumps, load
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, message_to_dict
from langchain_core.runnables import ConfigurableField
from langchain_core.tracers import BaseTracer
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

from langchain_recallm import ChatRecaLLM, message_citations
from langchain_recallm.sources import collect
from langchain_recallm.streaming import BlockWriter
from recallm_core.answers.trace import (
    AnswerDelta,
    RecallDelta,
    RecallEnded,
    RecallSpan,
    RecallStarted,
)
from recallm_core.errors import ContextOverflowError, DocumentError, ServerError
from recallm_core.testing import ScriptedBackend, scripted_llm

ONE = "<|start_recall|>The ferry leaves<|end_recall|></think>The ferry leaves soon."
QUESTION = "When does it leave, what does it cost, how long is leave?"


def merged(chunks: Any) -> AIMessageChunk:
    found = list(chunks)
    whole = found[0]
    for chunk in found[1:]:
        whole = whole + chunk
    return whole


def same(message: Any) -> tuple[Any, ...]:
    kept = message.additional_kwargs
    return message.content, message.response_metadata, message.usage_metadata, kept


async def ways(model: ChatRecaLLM, **call: Any) -> dict[str, Any]:
    """One question asked in every way there is."""
    found = {"invoke": model.invoke(QUESTION, **call)}
    found["ainvoke"] = await model.ainvoke(QUESTION, **call)
    found["stream"] = merged(model.stream(QUESTION, **call))
    found["astream"] = merged([chunk async for chunk in model.astream(QUESTION, **call)])
    found["batch"], found["batch2"] = model.batch([QUESTION, QUESTION], **call)
    found["abatch"] = (await model.abatch([QUESTION], **call))[0]
    if model.output_version == "v1":
        found["v3"] = model.stream_events(QUESTION, version="v3", **call).output
        stream = await model.astream_events(QUESTION, version="v3", **call)
        found["av3"] = await stream.output
    return found


@pytest.mark.parametrize("version", ["v1", "v0"])
@pytest.mark.parametrize(("script", "count"), [(ONE, 1), (None, 5)])
async def test_every_way_to_ask_gives_the_same_message(
    kit: Any, script: str | None, count: int, version: str
) -> None:
    model = kit.chat(script or kit.script, output_version=version, tokens_per_chunk=3)
    found = await ways(model, documents=list(kit.documents))
    assert len(kit.check(found["invoke"], kit.documents)) == count
    for message in found.values():
        assert same(message) == same(found["invoke"])
        kit.check(message, kit.documents)


texts = st.text(
    st.sampled_from("ab 1.,\n\r\t\u00e9\u0301\u4e2d\u6587\U0001f476\u200d\U0001f469<|>recall/"),
    max_size=60,
)


@settings(max_examples=25)
@given(docs=st.lists(texts, max_size=4), said=texts, wanted=texts, size=st.integers(1, 7))
def test_streams_merge_to_the_invoked_message_whatever_is_quoted(
    kit: Any, docs: list[str], said: str, wanted: str, size: int
) -> None:
    script = f"{said}<|start_recall|>{wanted}<|end_recall|>{said}</think>{wanted}"
    script += f"<|start_recall|>{said}<|end_recall|>{said}"
    model = kit.chat(script, tokens_per_chunk=size, max_tokens=200)
    documents = [Document(text) for text in docs]
    message = model.invoke("Which?", documents=documents)
    kit.check(message, documents, least=0)
    assert same(merged(model.stream("Which?", documents=documents))) == same(message)
    events = list(model.stream_events("Which?", version="v3", documents=documents))
    assert_valid_event_stream(events)
    finished = [e["content"] for e in events if e["event"] == "content-block-finish"]
    assert finished == message.content


def test_content_is_a_reasoning_block_and_one_cited_text_block(kit: Any) -> None:
    message = kit.chat().invoke(QUESTION, documents=list(kit.documents))
    reasoning, text = message.content
    assert reasoning["type"] == "reasoning"
    assert [r["cited_text"] for r in reasoning["extras"]["recalls"]] == [
        "The ferry leaves Port Hallow at 9:30",
        "A ticket costs 14 euros",
        "Parental leave is 16 weeks",
    ]
    assert text["text"] == message.text == "It leaves at 9:30, for 14 euros; leave is 16 weeks."
    first = text["annotations"][0]
    assert first["url"] == "https://example.org/ferry"
    assert first["title"] == "Ferry"
    assert message.text[first["start_index"] : first["end_index"]] in first["cited_text"]
    assert message.response_metadata["documents"] == ["ferry", "leave"]
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.response_metadata["abstained"] is False
    usage = message.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    details = usage["output_token_details"]
    assert details["reasoning"] > 0
    assert details["recall"] > 0


def test_plain_text_output_keeps_its_citations_in_standard_blocks(kit: Any) -> None:
    message = kit.chat(output_version="v0").invoke(QUESTION, documents=list(kit.documents))
    assert message.content == message.text
    blocks = kit.chat().invoke(QUESTION, documents=list(kit.documents)).content
    assert message.content_blocks == blocks


def test_a_quote_in_two_documents_lists_both(kit: Any) -> None:
    twice = [Document("The ferry leaves at nine."), Document("Never. The ferry leaves at ten.")]
    same_text = Document("The ferry leaves at nine.", id=None)
    (citation,) = kit.check(kit.chat(ONE).invoke("?", documents=twice), twice)
    assert [p["document_index"] for p in citation["extras"]["occurrences"]] == [0, 1]
    copies = [*twice[:1], same_text]
    (citation,) = kit.check(kit.chat(ONE).invoke("?", documents=copies), copies)
    assert [p["document_index"] for p in citation["extras"]["occurrences"]] == [0, 1]


def test_an_abstention_is_marked(kit: Any) -> None:
    message = kit.chat("</think>The documents don't say.").invoke("?", documents=[Document("x")])
    assert message.response_metadata["abstained"] is True
    assert message_citations(message) == []


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize(
    "script",
    [
        "<|start_recall|>The ferry leaves<|end_recall|></think>The documents don't say.",
        "</think>Whales sing.",
        "</think>",
    ],
)
def test_an_abstention_can_be_taken_for_no_answer_streamed_or_not(
    kit: Any, script: str, version: str
) -> None:
    model, given = kit.chat(script, output_version=version), list(kit.documents)
    whole = model.invoke(QUESTION, documents=given)
    chunks = list(model.stream(QUESTION, documents=given))
    for message in (whole, merged(chunks)):
        assert message.text == "The documents don't say."
        assert message.response_metadata["abstained"] is True
        assert message_citations(message) == []
        nearest = message.response_metadata.get("nearest", [])
        assert [each["cited_text"] for each in nearest] == ["The ferry leaves"] * (
            "ferry" in script
        )
        for each in nearest:
            kit.check_range(each, each["cited_text"], given)


def test_what_was_matched_afterwards_says_so(kit: Any) -> None:
    script = "</think>It leaves at <|start_recall|>9:30<|end_recall|>. A ticket costs 14 euros."
    message = kit.chat(script).invoke(QUESTION, documents=list(kit.documents))
    found = kit.check(message, kit.documents)
    assert [c["extras"]["basis"] for c in found] == ["recalled", "matched"]
    assert found[1]["cited_text"] == "A ticket costs 14 euros"


def test_evidence_before_the_answer_is_no_text_of_it(kit: Any) -> None:
    sources = collect([kit.ferry])[0]
    writer = BlockWriter(sources)
    span = RecallSpan("The ferry", "ferry", 0, 9, 0, (), "evidence", 0, 3)
    events = [RecallStarted("evidence", 0), RecallDelta("The ferry"), RecallEnded(span)]
    pieces = [
        piece for event in [*events, AnswerDelta("It sails.")] for piece in writer.pieces(event)
    ]
    assert [piece["type"] for piece in pieces] == ["reasoning", "reasoning", "text"]
    assert pieces[-1]["text"] == "It sails."


def test_a_cut_off_answer_says_so(kit: Any) -> None:
    model = kit.chat("</think>" + "word " * 50, max_tokens=20, max_thinking_tokens=5)
    message = model.invoke("?", documents=[Document("x")])
    assert message.response_metadata["finish_reason"] == "length"


def test_stops_of_the_model_and_of_a_call_are_merged(kit: Any) -> None:
    model = kit.chat("</think>one two three", stop=["three"])
    assert model.invoke("?").text == "one two"
    assert model.invoke("?", stop=["two"]).text == "one"
    assert model.bind(stop=["t"]).invoke("?").text == "one"


def test_settings_of_a_call_count_more_than_the_model_s(kit: Any) -> None:
    model = kit.chat(max_tokens=300, max_spans=5)
    message = model.invoke(QUESTION, documents=list(kit.documents), recall_in="none")
    assert message_citations(message) == []
    with pytest.raises(TypeError, match="max_spam"):
        model.invoke("?", max_spam=3)
    with pytest.raises(ValueError, match="top_p"):
        model.invoke("?", top_p=7)
    with pytest.raises(ValueError, match="can't change the model"):
        model.invoke("?", model="other")
    with pytest.raises(ValueError, match="temprature"):
        ChatRecaLLM(temprature=1)
    with pytest.raises(TypeError, match="RecaLLM"):
        ChatRecaLLM(model=3)  # type: ignore[arg-type]


def test_documents_over_the_window_are_packed_and_still_cited(kit: Any) -> None:
    filler = [
        Document(f"Paragraph {n}. " + "Nothing of note happens here. " * 20) for n in range(40)
    ]
    documents = [*filler, *kit.documents]
    model = kit.chat(window=6000, max_tokens=400)
    message = model.invoke("When does the ferry leave Port Hallow?", documents=documents)
    assert message.usage_metadata["input_tokens"] < 6000
    kit.check(message, documents)
    with pytest.raises(ContextOverflowError):
        kit.chat(window=100).invoke("?", documents=documents)


def test_an_index_can_be_given_instead_of_documents(kit: Any) -> None:
    from recallm_core import CorpusIndex
    from recallm_core import Document as CoreDocument

    index = CorpusIndex.build([CoreDocument(d.page_content, d.id) for d in kit.documents])
    message = kit.chat().invoke(QUESTION, documents=index)
    streamed = merged(kit.chat().stream(QUESTION, documents=index))
    assert streamed.content == message.content
    cited = message.response_metadata["documents"]
    documents = {d.id: d for d in kit.documents}
    kit.check(message, [documents[name] for name in cited])


# stopping


class _Slow(ScriptedBackend):
    """A scripted model that takes a moment for each token."""

    def _tokens(self, request: Any, number: int) -> Iterator[int]:
        for token in super()._tokens(request, number):
            time.sleep(0.002)
            yield token


def slow_model(**settings: Any) -> tuple[ChatRecaLLM, _Slow]:
    from recallm_core.generator import RecaLLM
    from recallm_core.prompting.recipe import trained_recipe

    backend = _Slow("</think>" + "many words " * 500, **settings)
    llm = RecaLLM(backend.tokenizer, backend, trained_recipe(sampling={"max_new_tokens": 8000}))
    return ChatRecaLLM(model=llm), backend


def test_closing_a_stream_stops_the_model() -> None:
    model, backend = slow_model()
    stream = model.stream("?")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert backend.closed_streams == 1


async def test_closing_an_asynchronous_stream_stops_the_model() -> None:
    model, backend = slow_model()
    stream = model.astream("?")
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert backend.closed_streams == 1


async def test_cancelling_stops_the_model_and_the_loop_never_waits_for_it() -> None:
    model, backend = slow_model()
    beats = 0
    task = asyncio.create_task(model.ainvoke("?"))
    while not backend.requests or beats < 20:
        await asyncio.sleep(0.001)
        beats += 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.closed_streams == 1


def test_a_timeout_stops_the_model() -> None:
    model, backend = slow_model()
    with pytest.raises(TimeoutError, match="timeout"):
        model.invoke("?", timeout=0.02)
    assert backend.closed_streams == 1


def test_a_failing_backend_fails_the_call(kit: Any) -> None:
    model = ChatRecaLLM(model=scripted_llm(kit.script, fail_after=5))
    fallback = model.with_fallbacks([kit.chat()])
    with pytest.raises(Exception, match="as it was told to"):
        model.invoke("?", documents=list(kit.documents))
    kit.check(fallback.invoke("?", documents=list(kit.documents)), kit.documents)


def test_a_batch_of_32_keeps_its_order(kit: Any) -> None:
    model = kit.chat(lambda prompt: f"</think>{prompt.rpartition('Question: ')[2].strip()}")
    asked = [f"number {n}" for n in range(32)]
    assert [m.text for m in model.batch(asked)] == asked


# identity


def test_settings_survive_saving_and_loading() -> None:
    model = ChatRecaLLM("recallm-mini", temperature=0.5, stop_sequences=["x"], max_tokens=7)
    again = load(
        dumpd(model), allowed_objects=[ChatRecaLLM], valid_namespaces=["langchain_recallm"]
    )
    assert isinstance(again, ChatRecaLLM)
    assert again.asdict() == model.asdict()
    assert again.stop == ["x"]


def test_a_ready_model_is_not_saved_by_its_name(kit: Any) -> None:
    assert dumpd(kit.chat())["type"] == "not_implemented"
    assert len(repr(kit.chat())) < 500


def test_a_ready_model_survives_copies_and_configuration(kit: Any) -> None:
    model = kit.chat()
    field = ConfigurableField(id="spans")
    configured = model.configurable_fields(max_spans=field).with_config(configurable={"spans": 1})
    message = configured.invoke(QUESTION, documents=list(kit.documents))
    assert len(message.content[0]["extras"]["recalls"]) == 1
    copy = model.model_copy(update={"max_spans": 1})
    assert copy.llm is model.llm
    kit.check(copy.invoke(QUESTION, documents=list(kit.documents)), kit.documents)


def test_answers_survive_checkpoints(kit: Any) -> None:
    message = kit.chat().invoke(QUESTION, documents=list(kit.documents))
    again = load(dumpd(message), allowed_objects=[AIMessage])
    assert again == message
    kit.check(again, kit.documents)
    assert message_to_dict(message)["data"]["content"] == message.content


def test_an_answer_is_history_for_the_next_question(kit: Any) -> None:
    model = kit.chat()
    first = model.invoke(QUESTION, documents=list(kit.documents))
    history = [HumanMessage(QUESTION), first, HumanMessage("And now?")]
    kit.check(model.invoke(history, documents=list(kit.documents)), kit.documents)
    asked = model.llm.backend.requests[-1].token_ids.tolist()  # type: ignore[attr-defined]
    text = bytes(t for t in asked if t < 256).decode()
    assert first.text in text
    assert "I look." not in text  # reasoning isn't told again


def test_the_cache_knows_models_documents_and_settings_apart(kit: Any) -> None:
    cache = InMemoryCache()
    model = kit.chat(cache=cache)
    asked = model.llm.backend.requests  # type: ignore[attr-defined]
    first = model.invoke(QUESTION, documents=list(kit.documents))
    kit.check(model.invoke(QUESTION, documents=list(kit.documents)), kit.documents)
    assert len(asked) == 1
    assert model.invoke(QUESTION, documents=[Document("other")]).content != first.content
    model.invoke(QUESTION, documents=list(kit.documents), max_spans=1)
    assert len(asked) == 3
    other = kit.chat(ONE, cache=cache).invoke(QUESTION, documents=list(kit.documents))
    assert other.content != first.content


class _Tracer(BaseTracer):
    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.runs.append(run)


def test_traces_hold_no_documents_and_no_weights(kit: Any) -> None:
    tracer = _Tracer()
    secret = Document("A long text. " * 500, id="secret")
    kit.chat().invoke("?", documents=[secret], config={"callbacks": [tracer]})
    (run,) = tracer.runs
    assert "A long text." not in repr((run.extra, run.serialized, run.inputs))
    assert run.extra["invocation_params"]["documents"] == "1 documents"
    assert run.extra["metadata"]["ls_provider"] == "recallm"


def test_tokens_are_counted_by_the_model_s_own_tokenizer(kit: Any) -> None:
    model = kit.chat()
    assert model.get_num_tokens("\u00e9a") == 3 == len(model.get_token_ids("\u00e9a"))
    blocks = [{"type": "text-plain", "mime_type": "text/plain", "text": "abcd"}, "ef"]
    assert model.get_num_tokens_from_messages([HumanMessage(blocks)]) == 10
    assert model.profile is not None
    assert model.profile["max_input_tokens"] == 1_000_000
    assert kit.chat(profile={"max_input_tokens": 5}).profile == {"max_input_tokens": 5}


def test_calls_from_many_threads_share_one_model(kit: Any) -> None:
    model = kit.chat()
    wrong: list[Any] = []

    def ask() -> None:
        try:
            kit.check(model.invoke(QUESTION, documents=list(kit.documents)), kit.documents)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, langchain_recallm; "
        "heavy = {'torch', 'transformers', 'faiss', 'vllm'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_texts_that_no_tokenizer_can_hold_are_refused(kit: Any) -> None:
    with pytest.raises(DocumentError, match="surrogate"):
        kit.chat().invoke("a\ud800")
    with pytest.raises(DocumentError, match="surrogate"):
        kit.chat().invoke("?", documents=[Document("a\udfff")])
    kit.chat().invoke("\x00 and \x1b[31m", documents=[Document("\x00")])


SECRET = "swordfish"


@pytest.mark.enable_socket
def test_keys_and_passwords_are_never_shown() -> None:
    chat = ChatRecaLLM(model="m", base_url="http://127.0.0.1:1", api_key=SECRET)
    shown = [repr(chat), str(chat), dumps(chat), str(chat._identifying_params)]
    shown += [
        str(chat._get_ls_params()),
        str(chat._get_invocation_params()),
        str(chat.model_dump()),
    ]
    assert not any(SECRET in text for text in shown)
    with pytest.raises(ServerError) as caught:
        chat.invoke("q")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": f"http://user:{SECRET}@127.0.0.1:1"},
        {"model": f"https://user:{SECRET}@127.0.0.1:1"},
        {"load_options": {"api_key": SECRET}},
        {"api_key": [SECRET]},
        {"api_key": SECRET, "temperature": "hot"},
    ],
)
def test_keys_and_passwords_in_the_wrong_place_are_refused_unseen(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"api_key|temperature") as caught:
        ChatRecaLLM(**wrong)
    assert SECRET not in str(caught.value)
