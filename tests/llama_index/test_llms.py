from __future__ import annotations

import asyncio
import copy
import json
import threading
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import FunctionTool

from llama_index_recallm import RecaLLM
from llama_index_recallm.answers import Writer
from llama_index_recallm.messages import read
from recallm_core.answers.trace import AnswerDelta, RecallDelta, RecallStarted
from recallm_core.errors import ContextOverflowError, DocumentError, GenerationError


def asked(kit: Any, *more: Any) -> list[ChatMessage]:
    blocks = [
        CitableBlock(title="Ferry", source="f.txt", content=kit.ferry),
        CitableBlock(title="Leave", source="l.txt", content=kit.leave),
        *more,
        TextBlock(text=kit.question),
    ]
    return [ChatMessage(role="user", blocks=blocks)]


def check(message: ChatMessage, kit: Any) -> list[CitationBlock]:
    texts = [kit.ferry, kit.leave]
    found = [block for block in message.blocks if isinstance(block, CitationBlock)]
    for block in found:
        at = block.additional_location_info
        quote = texts[at["citable_index"]][at["start_char_idx"] : at["end_char_idx"]]
        assert quote == block.cited_content.text
        assert 0 <= at["answer_start"] < at["answer_end"] <= len(message.content)
    return found


def test_it_calls_functions_where_its_template_can_show_them(kit: Any) -> None:
    llm = kit.llm()
    assert FunctionCallingLLM in type(llm).__mro__
    assert llm.metadata.is_chat_model
    assert llm.metadata.is_function_calling_model
    other = kit.llm()
    render = other.engine.tokenizer.render_chat
    other.engine.tokenizer.render_chat = lambda messages, **_: render(messages)
    assert not other.metadata.is_function_calling_model


CALL = '<tool_call>\n{"name": "price", "arguments": {"of": "ticket"}}\n</tool_call>'


async def test_tools_are_called_in_every_way_to_ask(kit: Any) -> None:
    def price(of: str) -> str:
        """Looks up a price."""
        return f"The {of} costs 14 euros."

    llm, tools = kit.llm("</think>" + CALL + CALL), [FunctionTool.from_defaults(price)]
    given: dict[str, Any] = {"tools": tools, "user_msg": "What does it cost?"}
    found = [llm.chat_with_tools(**given), await llm.achat_with_tools(**given)]
    found.append(list(llm.stream_chat_with_tools(**given))[-1])
    found.append([c async for c in await llm.astream_chat_with_tools(**given)][-1])
    for response in found:
        (call,) = llm.get_tool_calls_from_response(response)
        assert (call.tool_name, call.tool_kwargs) == ("price", {"of": "ticket"})
        assert call.tool_id
        assert response.raw["finish_reason"] == "tool_calls"
    both = llm.chat_with_tools(**given, allow_parallel_tool_calls=True)
    assert len(llm.get_tool_calls_from_response(both)) == 2
    called = llm.predict_and_call(tools, user_msg="What does it cost?")
    assert called.response == "The ticket costs 14 euros."
    words = kit.llm("</think>No idea.")
    response = words.chat_with_tools(**given)
    assert words.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="called no tool"):
        words.get_tool_calls_from_response(response)
    clock = FunctionTool.from_defaults(lambda: "noon", name="clock", description="Tells the time.")
    forced = words.chat_with_tools([clock], user_msg="What time is it?", tool_required=True)
    assert words.get_tool_calls_from_response(forced)[0].tool_name == "clock"


def test_an_answer_is_thinking_one_text_and_citations(kit: Any) -> None:
    message = kit.llm().chat(asked(kit)).message
    kinds = [type(block) for block in message.blocks]
    assert kinds == [ThinkingBlock, TextBlock, *[CitationBlock] * 3]
    assert message.content == "It leaves at 9:30; leave is 16 weeks."
    assert [block.source for block in check(message, kit)] == ["f.txt", "f.txt", "l.txt"]
    recalls = message.blocks[0].additional_information["recalls"]
    for recall in recalls:
        end = recall["offset"] + len(recall["text"])
        assert message.blocks[0].content[recall["offset"] : end] == recall["text"]


def test_blocks_can_be_switched_off_for_memory_shared_with_other_models(kit: Any) -> None:
    llm = kit.llm(citation_blocks=False, thinking_blocks=False)
    response = llm.chat(asked(kit))
    assert [type(block) for block in response.message.blocks] == [TextBlock]
    assert len(response.raw["recallm"]["citations"]) == 3
    assert all("thinking_delta" not in c.additional_kwargs for c in llm.stream_chat(asked(kit)))


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_every_way_to_ask_gives_the_same_answer(kit: Any, size: int) -> None:
    llm = kit.llm(tokens_per_chunk=size)
    one = llm.chat(asked(kit))
    streamed = list(llm.stream_chat(asked(kit)))
    astreamed = [chunk async for chunk in await llm.astream_chat(asked(kit))]
    for found in (await llm.achat(asked(kit)), streamed[-1], astreamed[-1]):
        assert found.message == one.message
        assert found.raw == one.raw
    for chunks in (streamed, astreamed):
        assert "".join(chunk.delta for chunk in chunks) == one.message.content
        thought = [chunk.additional_kwargs.get("thinking_delta", "") for chunk in chunks]
        assert "".join(thought) == one.message.blocks[0].content
        assert all(chunk.raw is None for chunk in chunks[:-1])


async def test_completing_is_chatting_with_one_message(kit: Any) -> None:
    llm = kit.llm("<|start_recall|>at 9:30<|end_recall|></think>It is at 9:30.")
    prompt = "The ferry leaves at 9:30. When?"
    one = llm.complete(prompt)
    assert one.text == "It is at 9:30."
    assert (await llm.acomplete(prompt)) == one
    streamed = list(llm.stream_complete(prompt))
    astreamed = [chunk async for chunk in await llm.astream_complete(prompt)]
    for chunks in (streamed, astreamed):
        assert "".join(chunk.delta for chunk in chunks) == one.text
        assert (chunks[-1].text, chunks[-1].raw) == (one.text, one.raw)


def test_without_citable_blocks_the_messages_are_quoted(kit: Any) -> None:
    llm = kit.llm("</think>So <|start_recall|>at 9:30<|end_recall|>.")
    history = [
        ChatMessage(role="system", content="Be kind."),
        ChatMessage(role="user", content="Hello."),
        ChatMessage(role="assistant", content="Hi."),
        ChatMessage(role="user", content="It leaves"),
        ChatMessage(role="user", content="the port at 9:30. When?"),
    ]
    block = llm.chat(history).message.blocks[-1]
    at = block.additional_location_info
    assert block.source == "message:4"
    content = history[at["message_index"]].content
    assert content[at["start_char_idx"] : at["end_char_idx"]] == "at 9:30"


def test_what_a_tool_returned_is_quoted_without_its_heading(kit: Any) -> None:
    llm = kit.llm("</think>So <|start_recall|>14 euros<|end_recall|>.")
    call = ToolCallBlock(tool_call_id="1", tool_name="price", tool_kwargs={"of": "ticket"})
    history = [
        ChatMessage(role="user", content="What does it cost?"),
        ChatMessage(role="assistant", blocks=[call]),
        ChatMessage(role="tool", content="It is 14 euros.", additional_kwargs={"name": "price"}),
    ]
    at = llm.chat(history).message.blocks[-1].additional_location_info
    assert (at["message_index"], at["start_char_idx"], at["end_char_idx"]) == (2, 6, 14)
    turns = read(history).turns
    assert "price" in turns[1]["content"]
    history[2] = ChatMessage(
        role="tool", blocks=[CitableBlock(title="t", source="s", content="It is 14 euros.")]
    )
    block = llm.chat(history[:1] + history[2:]).message.blocks[-1]
    assert block.source == "s"


def test_text_documents_are_quoted_as_they_are(kit: Any) -> None:
    document = DocumentBlock(data=b"Costs 14 \xe2\x82\xac.", document_mimetype="text/plain")
    llm = kit.llm("</think>So <|start_recall|>14 \u20ac<|end_recall|>.")
    ask = TextBlock(text="?")
    message = llm.chat([ChatMessage(role="user", blocks=[document, ask])]).message
    assert message.blocks[-1].cited_content.text == "14 \u20ac"


def test_metadata_is_true(kit: Any) -> None:
    metadata = kit.llm(window=5000, max_tokens=700).metadata
    assert (metadata.context_window, metadata.num_output) == (5000, 700)
    assert kit.llm(window=5000).metadata.num_output == 1024


def test_what_is_logged_is_plain_json(kit: Any) -> None:
    llm = kit.llm()
    response = llm.chat(asked(kit))
    assert json.loads(json.dumps(response.raw)) == response.raw
    assert json.loads(response.model_dump_json())["message"]["role"] == "assistant"
    json.dumps(llm.to_payload() if hasattr(llm, "to_payload") else llm.to_dict())
    assert response.message == ChatMessage.model_validate_json(response.message.model_dump_json())


@pytest.mark.parametrize("how", ["chat", "stream_chat", "complete", "stream_complete"])
async def test_callbacks_fire_once(kit: Any, events: Any, how: str) -> None:
    for prefix in ("", "a"):
        events.seen.clear()
        legacy = kit.legacy()
        counter = TokenCountingHandler(tokenizer=str.split)
        llm = kit.llm(callback_manager=CallbackManager([legacy, counter]))
        call = getattr(llm, prefix + how)
        given = asked(kit) if "chat" in how else "The ferry leaves Port Hallow at 9:30. When?"
        found = await call(given) if prefix else call(given)
        if "stream" in how:
            found = [c async for c in found][-1] if prefix else list(found)[-1]
        assert legacy.seen == [("start", CBEventType.LLM), ("end", CBEventType.LLM)]
        kind = "LLMChat" if "chat" in how else "LLMCompletion"
        assert events.names.count(f"{kind}StartEvent") == 1
        assert events.names.count(f"{kind}EndEvent") == 1
        assert len(counter.llm_token_counts) == 1
        usage = found.raw["usage"]
        assert counter.prompt_llm_token_count == usage["prompt_tokens"]
        assert counter.completion_llm_token_count == usage["completion_tokens"]


def test_quotes_are_announced_while_they_are_made(kit: Any, events: Any) -> None:
    list(kit.llm().stream_chat(asked(kit)))
    found = [event for event in events.seen if event.class_name() == "RecallSpanEvent"]
    assert [event.section for event in found] == ["thinking", "thinking", "answer"]
    for event in found:
        text = {"f.txt": kit.ferry, "l.txt": kit.leave}[event.source]
        assert text[event.start_char_idx : event.end_char_idx] == event.text
    last = events.names.index("LLMChatEndEvent")
    assert events.seen.index(found[-1]) < last


def test_evidence_before_the_answer_is_no_text_of_it() -> None:
    writer = Writer()
    assert writer.add(RecallStarted("evidence", 0)) is None
    assert writer.add(RecallDelta("The ferry")) == ("", "The ferry")
    assert writer.add(AnswerDelta("It sails.")) == ("It sails.", "")


async def test_leaving_a_stream_stops_the_model(kit: Any) -> None:
    llm = kit.llm()
    stream = llm.stream_chat(asked(kit))
    next(stream)
    stream.close()
    del stream
    assert llm.engine.backend.closed_streams == 1
    astream = await llm.astream_chat(asked(kit))
    await anext(astream)
    await astream.aclose()
    del astream
    for _ in range(500):  # the wrapper of llama-index leaves the closing to the event loop
        if llm.engine.backend.closed_streams < 2:
            await asyncio.sleep(0.01)
    assert llm.engine.backend.closed_streams == 2


async def test_the_event_loop_runs_on_while_the_model_does(kit: Any) -> None:
    gate = threading.Event()

    def script(_: str) -> str:
        gate.wait(10)  # only the loop can open it
        return kit.script

    llm = kit.llm(script)
    task = asyncio.create_task(llm.achat(asked(kit)))
    while not llm.engine.backend.requests:
        await asyncio.sleep(0)
    gate.set()
    assert (await task).message.content


@pytest.mark.parametrize(
    ("messages", "error", "words"),
    [
        ([], ValueError, "no messages"),
        ([ChatMessage(role="user", content=" ")], ValueError, "empty"),
        ([ChatMessage(role="user", blocks=[ImageBlock(image=b"x")])], ValueError, "text only"),
        ([ChatMessage(role="user", content="\ud800")], DocumentError, "surrogate"),
        ([ChatMessage(role="assistant", content="Hi.")], ValueError, "user"),
        (
            [
                ChatMessage(
                    role="user",
                    blocks=[DocumentBlock(url="https://example.org/a.pdf"), TextBlock(text="?")],
                )
            ],
            ValueError,
            "nothing is fetched",
        ),
        (
            [
                ChatMessage(
                    role="user",
                    blocks=[CitableBlock(title="t", source="s", content="\udfff")],
                )
            ],
            DocumentError,
            "surrogate",
        ),
    ],
)
async def test_bad_messages_are_refused_with_words(
    kit: Any, messages: list[ChatMessage], error: type[Exception], words: str
) -> None:
    llm = kit.llm()
    with pytest.raises(error, match=words):
        llm.chat(messages)
    with pytest.raises(error, match=words):
        llm.stream_chat(messages)
    with pytest.raises(error, match=words):
        await llm.achat(messages)


def test_bad_settings_are_refused_with_words(kit: Any) -> None:
    with pytest.raises(ValueError, match="temprature"):
        RecaLLM(model="recallm-mini", temprature=0)
    with pytest.raises(ValueError, match="temperature"):
        RecaLLM(model="recallm-mini", temperature=-1)
    with pytest.raises(TypeError, match="must be a name"):
        RecaLLM(model=3)
    llm = kit.llm()
    with pytest.raises(TypeError, match="temprature"):
        llm.chat(asked(kit), temprature=0)
    with pytest.raises(ContextOverflowError, match="context length is 100"):
        kit.llm(window=100).chat(asked(kit))


async def test_a_failing_model_raises_and_never_hangs(kit: Any) -> None:
    llm = kit.llm(fail_after=5)
    with pytest.raises(GenerationError, match="told to"):
        llm.chat(asked(kit))
    with pytest.raises(GenerationError, match="told to"):
        list(llm.stream_chat(asked(kit)))
    with pytest.raises(GenerationError, match="told to"):
        [chunk async for chunk in await llm.astream_chat(asked(kit))]


def test_copies_share_the_model(kit: Any) -> None:
    llm = kit.llm(temperature=0.5)
    other = copy.deepcopy(llm)
    assert other.engine is llm.engine
    assert other.temperature == 0.5


def test_roles_of_other_providers_are_read() -> None:
    turns = read(
        [
            ChatMessage(role=MessageRole.USER, content="a"),
            ChatMessage(role=MessageRole.CHATBOT, content="b"),
            ChatMessage(role=MessageRole.DEVELOPER, content="c"),
            ChatMessage(role=MessageRole.FUNCTION, content="d"),
        ]
    ).turns
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]


SECRET = "swordfish"


def test_keys_and_passwords_are_never_shown() -> None:
    llm = RecaLLM(model="m", base_url="http://127.0.0.1:1", api_key=SECRET)
    assert SECRET not in repr(llm) + str(llm) + llm.to_json() + str(llm.to_dict())
    for settings in (
        {"base_url": f"http://user:{SECRET}@127.0.0.1:1"},
        {"model": f"https://user:{SECRET}@127.0.0.1:1"},
        {"load_options": {"api_key": SECRET}},
        {"api_key": [SECRET]},
    ):
        with pytest.raises(ValueError, match="api_key") as caught:
            RecaLLM(**settings)
        assert SECRET not in str(caught.value)
