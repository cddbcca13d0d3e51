from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, RichPromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer, CompactAndRefine
from llama_index.core.schema import (
    Document,
    ImageNode,
    MetadataMode,
    NodeWithScore,
    QueryBundle,
)
from llama_index.core.tools import ToolOutput

from llama_index_recallm import RecaLLM, RecaLLMSynthesizer
from recallm_core.errors import ContextOverflowError, DocumentError, GenerationError


async def drained(response: Any) -> Any:
    """The response with its stream read to the end."""
    if isinstance(response, AsyncStreamingResponse):
        [text async for text in response.async_response_gen()]
    elif isinstance(response, StreamingResponse):
        list(response.response_gen)
    return response


async def ways(synthesizer: RecaLLMSynthesizer, nodes: list[NodeWithScore], question: str) -> Any:
    """One question in each of the four ways."""
    out = []
    for streaming in (False, True):
        synthesizer._streaming = streaming
        out.append(await drained(synthesizer.synthesize(question, nodes)))
        out.append(await drained(await synthesizer.asynthesize(question, nodes)))
    return out


def test_it_is_a_synthesizer() -> None:
    assert BaseSynthesizer in RecaLLMSynthesizer.__mro__


@pytest.mark.parametrize("size", [1, 1000])
async def test_every_way_to_ask_gives_the_same_answer_and_citations(kit: Any, size: int) -> None:
    synthesizer = kit.synthesizer(tokens_per_chunk=size, documents=kit.documents)
    found = await ways(synthesizer, kit.nodes(), kit.question)
    kinds = [Response, Response, StreamingResponse, AsyncStreamingResponse]
    for response, kind in zip(found, kinds, strict=True):
        assert isinstance(response, kind)
        assert kit.said(response) == kit.said(found[0])
        citations = kit.check(response, kit.documents, least=3)
        assert {citation.level for citation in citations} == {"document"}
    assert str(found[0]) == "It leaves at 9:30; leave is 16 weeks."
    assert [each.node.node_id for each in found[0].source_nodes] == ["n1", "n2"]


async def test_five_concurrent_questions_share_one_synthesizer(kit: Any) -> None:
    def script(prompt: str) -> str:
        number = prompt.rsplit("number ", 1)[1][0]
        return f"</think>It is <|start_recall|>item {number}<|end_recall|>."

    synthesizer = kit.synthesizer(script)
    nodes = [kit.node(f"Here is item {n} of five.", 0, f"d{n}", id_=f"n{n}") for n in range(5)]
    for streaming in (False, True):
        synthesizer._streaming = streaming
        asked = [synthesizer.asynthesize(f"Which is number {n}?", nodes) for n in range(5)]
        found = await asyncio.gather(*(drained(r) for r in await asyncio.gather(*asked)))
        for n, response in enumerate(found):
            assert [each.node_id for each in kit.check(response)] == [f"n{n}"]
            assert str(response) == f"It is item {n}."


# streams


async def test_what_is_streamed_can_be_read_again(kit: Any) -> None:
    synthesizer = kit.synthesizer(streaming=True)
    response = synthesizer.synthesize(kit.question, kit.nodes())
    metadata = response.metadata
    assert "recallm" not in metadata
    assert response.citations == []
    first = list(response.response_gen)
    assert len(first) > 3
    assert list(response.response_gen) == first
    assert str(response) == response.response_txt == "".join(first)
    assert metadata["recallm"]["citations"]
    assert response.get_response().citations == response.citations
    other = await synthesizer.asynthesize(kit.question, kit.nodes())
    assert str(other) == "".join(first)  # on this very loop, as QueryEngineTool.acall does
    assert [text async for text in other.async_response_gen()] == first
    assert kit.said(await other.get_response()) == kit.said(response)


async def test_dumping_an_unread_stream_reads_nothing(kit: Any) -> None:
    synthesizer = kit.synthesizer(streaming=True)
    for response in (
        synthesizer.synthesize(kit.question, kit.nodes()),
        await synthesizer.asynthesize(kit.question, kit.nodes()),
    ):
        output = ToolOutput(content="", tool_name="t", raw_input={}, raw_output=response)
        assert json.loads(output.model_dump_json())["raw_output"]["response_gen"] == ""
        assert str(response) == "It leaves at 9:30; leave is 16 weeks."
        dumped = json.loads(output.model_dump_json())["raw_output"]
        assert dumped["response_gen"] == str(response)
        assert dumped["metadata"]["recallm"]["citations"]


def test_taking_one_piece_and_then_looping_goes_on(kit: Any) -> None:
    response = kit.synthesizer(streaming=True).synthesize(kit.question, kit.nodes())
    pieces = [next(response.response_gen), *response.response_gen]
    assert "".join(pieces) == str(response)


async def test_a_handler_that_reads_the_stream_leaves_it_to_the_user(kit: Any, events: Any) -> None:
    events.drains = True
    synthesizer = kit.synthesizer(streaming=True)
    response = synthesizer.synthesize(kit.question, kit.nodes())
    assert "".join(response.response_gen) == "It leaves at 9:30; leave is 16 weeks."
    other = await synthesizer.asynthesize(kit.question, kit.nodes())
    said = [text async for text in other.async_response_gen()]
    assert "".join(said) == "It leaves at 9:30; leave is 16 weeks."
    assert kit.check(other)


async def test_streams_belong_to_no_event_loop(kit: Any) -> None:
    synthesizer = kit.synthesizer(streaming=True)
    response = await synthesizer.asynthesize(kit.question, kit.nodes())
    stream = response.async_response_gen()
    begun = await anext(stream)

    def elsewhere() -> str:
        async def rest() -> str:
            return "".join([text async for text in stream])

        return asyncio.run(rest())

    assert begun + await asyncio.to_thread(elsewhere) == str(response)


async def test_dropping_or_closing_a_stream_stops_the_model(kit: Any) -> None:
    synthesizer = kit.synthesizer(streaming=True)
    backend = synthesizer.llm.engine.backend
    response = synthesizer.synthesize(kit.question, kit.nodes())
    next(response.response_gen)
    response.response_gen.close()
    assert backend.closed_streams == 1
    assert str(response) == "I"
    response = synthesizer.synthesize(kit.question, kit.nodes())
    next(response.response_gen)
    del response
    assert backend.closed_streams == 2
    other = await synthesizer.asynthesize(kit.question, kit.nodes())
    await anext(other.response_gen)
    await other.response_gen.aclose()
    assert backend.closed_streams == 3


async def test_a_failing_model_raises_for_every_reader(kit: Any) -> None:
    synthesizer = kit.synthesizer(fail_after=60, streaming=True)
    response = synthesizer.synthesize(kit.question, kit.nodes())
    for _ in range(2):
        with pytest.raises(GenerationError, match="told to"):
            list(response.response_gen)
    with pytest.raises(GenerationError, match="told to"):
        str(response)
    other = await synthesizer.asynthesize(kit.question, kit.nodes())
    with pytest.raises(GenerationError, match="told to"):
        await other.get_response()


# events


async def test_events_come_in_the_order_of_the_base_class(kit: Any, events: Any) -> None:
    async def names(synthesizer: Any) -> tuple[list[str], list[Any]]:
        events.seen.clear()
        legacy = kit.legacy()
        synthesizer.callback_manager = legacy.manager()
        for streaming in (False, True):
            synthesizer._streaming = streaming
            await drained(synthesizer.synthesize("Q?", kit.nodes()))
            synthesizer.synthesize("Q?", [])
            await drained(await synthesizer.asynthesize("Q?", kit.nodes()))
            await synthesizer.asynthesize("Q?", [])
        kinds = ("SynthesizeStartEvent", "SynthesizeEndEvent", "LLMChatStartEvent")
        kept = [name for name in events.names if name in kinds or name == "LLMChatEndEvent"]
        seen = [each for each in legacy.seen if each[1] in (CBEventType.SYNTHESIZE, "llm")]
        return kept, seen

    class Plain(CompactAndRefine):
        """The base class's flow around one call of the model."""

        def get_response(self, query_str: str, text_chunks: Any, **_: Any) -> Any:
            asked = [ChatMessage(content=query_str)]
            if not self._streaming:
                return str(self._llm.chat(asked).message.content)
            stream = self._llm.stream_chat(asked)
            return (chunk.delta for chunk in stream)

        async def aget_response(self, query_str: str, text_chunks: Any, **_: Any) -> Any:
            asked = [ChatMessage(content=query_str)]
            if not self._streaming:
                return str((await self._llm.achat(asked)).message.content)
            stream = await self._llm.astream_chat(asked)

            async def pieces() -> Any:
                async for chunk in stream:
                    yield chunk.delta

            return pieces()

    ours, theirs = await names(kit.synthesizer()), await names(Plain(llm=kit.llm()))
    assert ours == theirs
    assert len(ours[0]) == 24


async def test_a_tracer_sees_everything_once(kit: Any, events: Any) -> None:
    for asynchronous in (False, True):
        events.seen.clear()
        legacy = kit.legacy()
        counter = TokenCountingHandler(tokenizer=str.split)
        manager = CallbackManager([legacy, counter])
        engine = RetrieverQueryEngine(
            kit.retriever(kit.nodes(), callback_manager=manager),
            kit.synthesizer(callback_manager=manager),
            callback_manager=manager,
        )
        response = await engine.aquery("Q?") if asynchronous else engine.query("Q?")
        assert kit.check(response)
        once = ["Retrieval", "Synthesize", "LLMChat", "Query"]
        for name in [f"{kind}{end}Event" for kind in once for end in ("Start", "End")]:
            assert events.names.count(name) == 1
        for kind in (CBEventType.RETRIEVE, CBEventType.SYNTHESIZE, CBEventType.LLM):
            assert legacy.seen.count(("start", kind)) == legacy.seen.count(("end", kind)) == 1
        assert len(counter.llm_token_counts) == 1
        ended = next(e for e in events.seen if e.class_name() == "SynthesizeEndEvent")
        assert ended.response is response


def test_an_error_fires_no_end_event(kit: Any, events: Any) -> None:
    with pytest.raises(GenerationError):
        kit.synthesizer(fail_after=3).synthesize("Q?", kit.nodes())
    assert "SynthesizeStartEvent" in events.names
    assert "SynthesizeEndEvent" not in events.names


# what is read


def prompt_of(synthesizer: RecaLLMSynthesizer) -> str:
    tokens = synthesizer.llm.engine.backend.requests[-1].token_ids.tolist()
    return bytes(token for token in tokens if token < 256).decode()


def test_labels_show_metadata_and_can_not_be_quoted(kit: Any) -> None:
    script = "</think>By <|start_recall|>Ines<|end_recall|>."
    node = kit.node(
        "Ask Ben.",
        0,
        "d",
        metadata={"file_name": "a.txt", "author": "Ines", "secret": "no"},
        excluded_llm_metadata_keys=["secret"],
    )
    synthesizer = kit.synthesizer(script)
    response = synthesizer.synthesize("Who?", [node])
    assert "a.txt; author: Ines" in prompt_of(synthesizer)
    assert "secret" not in prompt_of(synthesizer)
    assert all("Ines" not in citation.text for citation in response.citations)
    bare = kit.synthesizer(script, show_metadata=False)
    bare.synthesize("Who?", [node])
    assert "author" not in prompt_of(bare)
    assert "a.txt" in prompt_of(bare)


def test_a_template_gets_words_in_the_place_of_the_context(kit: Any) -> None:
    templates = [
        PromptTemplate("Use {context_str}. Be {tone}. {query_str}"),
        RichPromptTemplate("Use {{ context_str }}. Be {{ tone }}. {{ query_str }}"),
        ChatPromptTemplate(
            [
                ChatMessage(role="system", content="Be {tone}."),
                ChatMessage(role="user", content="Use {context_str}. {query_str}"),
            ]
        ),
    ]
    for template in templates:
        synthesizer = kit.synthesizer()
        engine = RetrieverQueryEngine(kit.retriever(kit.nodes()), synthesizer)
        engine.update_prompts({"response_synthesizer:text_qa_template": template})
        assert type(synthesizer.get_prompts()["text_qa_template"]) is type(template)
        response = synthesizer.synthesize("Is {it} so?", kit.nodes(), tone="brief")
        prompt = prompt_of(synthesizer)
        assert "Use (the documents above)." in prompt
        assert "Be brief." in prompt
        assert "Is {it} so?" in prompt
        assert prompt.count(kit.ferry) == 1
        kit.check(response)


def test_questions_are_never_quoted_whatever_the_model_is_set_to(kit: Any) -> None:
    script = "</think>You ask <|start_recall|>of Zanzibar<|end_recall|>."
    synthesizer = RecaLLMSynthesizer(kit.llm(script, scope="prompt"))
    for streaming in (False, True):
        synthesizer._streaming = streaming
        response = synthesizer.synthesize("What of Zanzibar?", kit.nodes())
        str(response)
        assert all("Zanzibar" not in citation.text for citation in response.citations)


def test_a_system_prompt_of_the_model_is_said(kit: Any) -> None:
    synthesizer = RecaLLMSynthesizer(kit.llm(system_prompt="Speak like a sailor."))
    synthesizer.synthesize("Q?", kit.nodes())
    assert "Speak like a sailor." in prompt_of(synthesizer)


def test_what_does_not_fit_is_left_out_lowest_score_first(kit: Any) -> None:
    texts = [f"{letter * 400} end." for letter in "abc"]
    nodes = [
        kit.node(text, 0, f"d{n}", id_=f"n{n}", score=score)
        for n, (text, score) in enumerate(zip(texts, [0.2, 0.9, 0.5], strict=True))
    ]
    script = "</think>The <|start_recall|>end<|end_recall|>."
    synthesizer = kit.synthesizer(script, token_budget=1000)
    response = synthesizer.synthesize("Q?", nodes)
    assert response.metadata["recallm"]["left_out"] == [{"node_id": "n0", "reason": "budget"}]
    assert texts[0] not in prompt_of(synthesizer)
    assert prompt_of(synthesizer).index(texts[1]) < prompt_of(synthesizer).index(texts[2])
    kit.check(response)
    assert len(response.source_nodes) == 3


@pytest.mark.parametrize("limit", [{"window": 9000}, {"token_budget": 2000}, {"token_budget": 800}])
def test_a_budget_below_one_node_reads_the_passages_that_bear_on_the_question(
    kit: Any, limit: Any
) -> None:
    lines = [f"Paragraph {n} is about nothing at all.\n\n" for n in range(300)]
    lines[150] = "The harbour master is called Odalys Brandt.\n\n"
    text = "".join(lines)
    script = "</think>She is <|start_recall|>Odalys Brandt<|end_recall|>."
    synthesizer = kit.synthesizer(script, **limit, documents={"d": f"Head. {text}"})
    nodes = [kit.node(text, 6, "d", id_="long"), kit.node("Nothing here. " * 999, id_="other")]
    response = synthesizer.synthesize("Who is the harbour master?", nodes)
    (citation,) = kit.check(response, [Document(id_="d", text=f"Head. {text}")])
    assert (citation.text, citation.level) == ("Odalys Brandt", "document")
    read = len(prompt_of(synthesizer))
    assert read < limit.get("token_budget", 9000) + 2000
    for left_out in response.metadata["recallm"]["left_out"]:
        assert left_out == {"node_id": "other", "reason": "budget"}


async def test_a_budget_without_room_for_any_passage_is_refused(kit: Any) -> None:
    for budget in (0, 5):
        synthesizer = kit.synthesizer(token_budget=budget)
        with pytest.raises(ValueError, match="no room for any passage"):
            synthesizer.synthesize(kit.question, kit.nodes())
        with pytest.raises(ValueError, match="raise token_budget"):
            await synthesizer.asynthesize(kit.question, kit.nodes())


# abstentions


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        "<|start_recall|>The ferry leaves<|end_recall|></think>The documents don't say.",
        "</think>Whales sing.",
    ],
)
async def test_an_abstention_can_be_taken_for_no_answer(
    kit: Any, script: str, streaming: bool
) -> None:
    kit.recipe = None  # words that owe a quote have one, and so are no abstention
    synthesizer = kit.synthesizer(script, streaming=streaming)
    for response in (
        synthesizer.synthesize("Q?", kit.nodes()),
        await synthesizer.asynthesize("Q?", kit.nodes()),
    ):
        assert str(response) == "The documents don't say."
        assert response.abstained
        assert response.citations == response.cited_nodes == []
        nearest = ["The ferry leaves"] if "ferry" in script else []
        assert [each.text for each in response.nearest] == nearest
        plain = response.metadata["recallm"]
        assert plain["abstained"]
        assert [each["text"] for each in plain["nearest"]] == nearest


def test_what_was_matched_afterwards_says_so(kit: Any) -> None:
    script = "</think>At <|start_recall|>9:30<|end_recall|>. A ticket costs 14 euros."
    response = kit.synthesizer(script).synthesize("When, and how much?", kit.nodes())
    found = kit.check(response)
    assert [each.basis for each in found] == ["recalled", "matched"]
    assert found[1].text == "A ticket costs 14 euros"


# bad input


@pytest.mark.parametrize("streaming", [False, True])
async def test_without_nodes_there_is_the_base_class_s_answer(kit: Any, streaming: bool) -> None:
    synthesizer = kit.synthesizer(streaming=streaming, empty_response="Nothing.")
    blank = [kit.node(""), kit.node(" \n"), NodeWithScore(node=ImageNode(image="eA=="))]
    for nodes in ([], blank):
        found = [synthesizer.synthesize("Q?", nodes), await synthesizer.asynthesize("Q?", nodes)]
        kinds = [StreamingResponse, AsyncStreamingResponse] if streaming else [Response, Response]
        for response, kind in zip(found, kinds, strict=True):
            assert isinstance(response, kind)
            assert str(response) == "Nothing."
            assert (response.abstained, response.finish_reason) == (True, "empty")
            assert response.source_nodes == nodes
            assert response.metadata["recallm"]["citations"] == []
            left_out = [each["reason"] for each in response.metadata["recallm"]["left_out"]]
            assert left_out == ["empty"] * len(nodes)
    assert synthesizer.llm.engine.backend.requests == []


def test_nodes_without_text_are_left_out(kit: Any) -> None:
    image = NodeWithScore(node=ImageNode(image="eA==", id_="image"))
    response = kit.synthesizer().synthesize("Q?", [image, *kit.nodes()])
    kit.check(response)
    assert response.metadata["recallm"]["left_out"] == [{"node_id": "image", "reason": "empty"}]
    assert response.source_nodes[0] is image


def test_a_node_without_a_source_is_cited_by_itself(kit: Any) -> None:
    citations = kit.check(kit.synthesizer().synthesize("Q?", [kit.node(kit.ferry)]))
    assert {(each.level, each.ref_doc_id, each.doc_start) for each in citations} == {
        ("text", None, None)
    }


async def test_bad_input_is_refused_with_words(kit: Any) -> None:
    with pytest.raises(TypeError, match="MockLLM"):
        RecaLLMSynthesizer(MockLLM())
    with pytest.raises(TypeError, match="by name"):
        RecaLLMSynthesizer(kit.llm(), kit.documents)
    with pytest.raises(ValueError, match="token_budget"):
        kit.synthesizer(token_budget=-1)
    with pytest.raises(TypeError, match="documents must"):
        kit.synthesizer(documents=3)
    with pytest.raises(DocumentError, match="surrogate"):
        kit.synthesizer().synthesize("Q?", [kit.node("\ud800 x")])
    with pytest.raises(ValueError, match="empty"):
        kit.synthesizer().synthesize(" ", kit.nodes())
    with pytest.raises(ContextOverflowError, match="context length is 50"):
        await kit.synthesizer(window=50).asynthesize("Q?", kit.nodes())


def test_control_characters_and_marks_in_nodes_are_plain_text(kit: Any) -> None:
    text = "a\x00b <|end_recall|></think> \x1b[2J\u202e done."
    script = "</think>So <|start_recall|>a\x00b <|end_recall|>."
    response = kit.synthesizer(script).synthesize("Q?", [kit.node(text, 0, "d")])
    kit.check(response)


# bare strings


async def test_bare_strings_are_answered_by_text(kit: Any) -> None:
    synthesizer = kit.synthesizer()
    expected = "It leaves at 9:30; leave is 16 weeks."
    texts = [kit.ferry, kit.leave]
    assert synthesizer.get_response("Q?", texts) == expected
    assert await synthesizer.aget_response("Q?", texts) == expected
    assert synthesizer.get_response("Q?", []) == "Empty Response"
    synthesizer._streaming = True
    assert "".join(synthesizer.get_response("Q?", texts)) == expected
    astream = await synthesizer.aget_response("Q?", texts)
    assert "".join([text async for text in astream]) == expected
    assert list(synthesizer.get_response("Q?", [""])) == ["Empty Response"]


# what comes back


def test_answers_can_be_shown_and_stored(kit: Any) -> None:
    response = kit.synthesizer(documents=kit.documents).synthesize("Q?", kit.nodes())
    assert response.marked_text() == "It leaves at 9:30 [1] [2]; leave is 16 weeks [3]."
    assert '[3] "Parental leave is 16 weeks" (d2)' in response.with_quotes()
    assert "<script" not in response._repr_html_()
    plain = json.loads(json.dumps(response.to_json()))
    assert plain["citations"][0]["text"] == response.citations[0].text
    for citation in response.citations:
        copy = type(citation).model_validate_json(citation.model_dump_json())
        assert copy == citation
        block, node = citation.as_block(), citation.as_node()
        assert block.cited_content.text == node.node.get_content(MetadataMode.LLM) == citation.text
        assert node.node.ref_doc_id == citation.ref_doc_id


def test_quotes_can_be_appended_to_the_source_nodes(kit: Any) -> None:
    for streaming in (False, True):
        synthesizer = kit.synthesizer(citation_nodes=True, streaming=streaming)
        nodes = kit.nodes()
        response = synthesizer.synthesize("Q?", nodes)
        list(getattr(response, "response_gen", ()))
        assert len(nodes) == 2
        added = response.source_nodes[2:]
        assert [each.node.text for each in added] == [each.text for each in response.citations]


def test_a_query_bundle_is_a_question(kit: Any) -> None:
    kit.check(kit.synthesizer().synthesize(QueryBundle("Q?"), kit.nodes()))


def test_the_default_model_is_the_one_that_ships(monkeypatch: Any, kit: Any) -> None:
    from llama_index.core import Settings

    llm = kit.llm()
    monkeypatch.setattr(Settings, "_llm", llm)
    assert RecaLLMSynthesizer().llm is llm
    monkeypatch.setattr(Settings, "_llm", MockLLM())
    monkeypatch.setattr(RecaLLM, "engine", llm.engine)
    assert RecaLLMSynthesizer().llm.model == "recallm-mini"
