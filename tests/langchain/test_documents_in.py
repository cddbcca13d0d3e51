"""The ways in which documents reach the model, and what is read of other messages."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_recallm import (
    RecallEmbeddings,
    create_grounded_documents_chain,
    documents_to_content_blocks,
    documents_to_text,
    grounded_prompt,
    message_citations,
    resolve_citations,
)
from langchain_recallm.conversation import read
from recallm_core.errors import DocumentError

QUESTION = {"type": "text", "text": "When?"}
CALL = {"name": "search", "args": {"q": "ferry"}, "id": "1", "type": "tool_call"}


def prompt_text(model: Any) -> str:
    ids = model.llm.backend.requests[-1].token_ids.tolist()
    return bytes(t for t in ids if t < 256).decode()


@pytest.mark.parametrize("kind", ["text-plain", "document", "search_result"])
def test_documents_in_blocks_are_cited(kit: Any, kind: Any) -> None:
    blocks = documents_to_content_blocks(kit.documents, kind=kind)
    message = kit.chat().invoke([HumanMessage([*blocks, QUESTION])])
    citations = kit.check(message, kit.documents, least=5)
    assert citations[0]["extras"]["document_id"] == "ferry"
    assert citations[0]["title"] == "Ferry"
    assert citations[0]["url"] == "https://example.org/ferry"


def test_blocks_as_others_write_them_are_read(kit: Any) -> None:
    text = kit.ferry.page_content
    coded = base64.b64encode(text.encode()).decode()
    plain = {"type": "text", "media_type": "text/plain", "data": text}
    entries = [{"type": "text", "text": text}, {"type": "text", "text": "More."}]
    for block in (
        {"type": "text-plain", "mime_type": "text/plain", "base64": coded},
        {"type": "file", "mime_type": "text/markdown", "base64": coded},
        {"type": "document", "source": plain, "title": "T"},
        {"type": "document", "source": {"type": "content", "content": entries}},
        {"type": "document", "source": {**plain, "type": "base64", "data": coded}},
        {"type": "search_result", "source": "s", "title": "T", "content": entries},
        {"type": "search_result", "source": "s", "title": "T", "content": text},
    ):
        message = kit.chat().invoke([HumanMessage([block, QUESTION])])
        kit.check(message, [kit.ferry], least=4)


def test_documents_can_be_bound(kit: Any) -> None:
    bound = kit.chat().bind(documents=list(kit.documents))
    kit.check(bound.invoke("When?"), kit.documents, least=5)


@pytest.mark.parametrize("form", ["strings", "core", "mixed"])
def test_strings_and_core_documents_are_documents_too(kit: Any, form: str) -> None:
    from recallm_core import Document as CoreDocument

    texts = [d.page_content for d in kit.documents]
    given: list[Any] = texts if form == "strings" else [CoreDocument(t) for t in texts]
    if form == "mixed":
        given = [texts[0], kit.leave]
    kit.check(kit.chat().invoke("When?", documents=given), kit.documents, least=5)


def test_two_ways_at_once_are_an_error(kit: Any) -> None:
    blocks = documents_to_content_blocks([kit.ferry])
    with pytest.raises(ValueError, match="two ways"):
        kit.chat().invoke([HumanMessage([*blocks, QUESTION])], documents=[kit.leave])


@pytest.mark.parametrize("given", ["text", b"bytes", {"a": 1}, Document("x"), 3])
def test_what_is_no_list_of_documents_is_refused(kit: Any, given: Any) -> None:
    with pytest.raises(DocumentError, match="list"):
        kit.chat().invoke("?", documents=given)
    with pytest.raises(DocumentError, match="must be"):
        kit.chat().invoke("?", documents=[3])


def test_one_id_for_two_texts_is_refused(kit: Any) -> None:
    with pytest.raises(DocumentError, match="'a'"):
        kit.chat().invoke("?", documents=[Document("x", id="a"), Document("y", id="a")])


def test_empty_documents_quote_nothing(kit: Any) -> None:
    script = "</think>The ferry. <|start_recall|>When?<|end_recall|>"
    for documents in ([], [Document("")], [Document(" \n")]):
        message = kit.chat(script).invoke("When?", documents=documents)
        assert message_citations(message) == []
        assert message.response_metadata["abstained"] is True


def test_without_documents_the_user_s_messages_are_quoted(kit: Any) -> None:
    history = [
        SystemMessage("The ferry leaves Port Hallow at 9:30, says the system."),
        HumanMessage("Note: A ticket costs 14 euros."),
        HumanMessage([{"type": "text", "text": "The ferry leaves Port "}, "Hallow at 9:30. "]),
        AIMessage("Parental leave is 16 weeks"),
        HumanMessage("When?"),
    ]
    message = kit.chat().invoke(history)
    texts = [Document(m.text, id=f"message:{n}") for n, m in enumerate(history)]
    users = [texts[n] for n in (1, 2, 4)]
    citations = kit.check(message, users, least=3)
    assert {c["extras"]["document_id"] for c in citations} == {"message:1", "message:2"}
    assert message.response_metadata["documents"] == ["message:1", "message:2", "message:4"]


def test_a_quote_over_two_messages_cites_each(kit: Any) -> None:
    messages = [HumanMessage("The first part."), HumanMessage("The second part.")]
    script = "</think><|start_recall|>first part.\n\nThe second<|end_recall|>"
    message = kit.chat(script).invoke(messages)
    texts = [Document(m.text) for m in messages]
    citations = kit.check(message, texts, least=2)
    assert [c["cited_text"] for c in citations] == ["first part.", "The second"]


def test_the_whole_prompt_can_be_in_scope_beside_documents(kit: Any) -> None:
    script = "</think><|start_recall|>14 euros<|end_recall|> <|start_recall|>Why so<|end_recall|>"
    message = kit.chat(script, scope="prompt").invoke("Why so?", documents=[kit.ferry])
    citations = kit.check(message, [kit.ferry, Document("Why so?")], least=2)
    assert [c["extras"]["document_id"] for c in citations] == ["ferry", "message:0"]


# tools


def test_an_artifact_of_documents_is_cited_and_its_text_left_out(kit: Any) -> None:
    content = "\n\n".join(d.page_content for d in kit.documents)
    model = kit.chat()
    message = model.invoke(
        [
            HumanMessage("When?"),
            AIMessage("Let me see.", tool_calls=[CALL]),
            ToolMessage(content, tool_call_id="1", artifact=list(kit.documents)),
        ]
    )
    citations = kit.check(message, kit.documents, least=5)
    assert citations[0]["extras"]["document_id"] == "ferry"
    text = prompt_text(model)
    assert text.count(kit.ferry.page_content) == 1
    assert "tool_call" not in text
    assert "Let me see." not in text


def test_tool_text_beside_documents_is_kept(kit: Any) -> None:
    model = kit.chat()
    model.invoke(
        [
            HumanMessage("When?"),
            AIMessage("", tool_calls=[CALL]),
            ToolMessage("Two hits.", tool_call_id="1", name="search", artifact=[kit.ferry]),
        ]
    )
    assert "Result of search:\nTwo hits." in prompt_text(model)
    assert kit.ferry.page_content in prompt_text(model)
    assert '<tool_call>{"name": "search", "arguments": {"q": "ferry"}}' in prompt_text(model)


def test_search_results_of_a_tool_are_cited(kit: Any) -> None:
    blocks = documents_to_content_blocks(kit.documents, kind="search_result")
    history = [
        HumanMessage("When?"),
        AIMessage("", tool_calls=[CALL]),
        ToolMessage(blocks, tool_call_id="1"),
    ]
    kit.check(kit.chat().invoke(history), kit.documents, least=5)
    history[-1] = ToolMessage(blocks, tool_call_id="1", artifact=list(kit.documents))
    kit.check(kit.chat().invoke(history), kit.documents, least=5)


def test_without_documents_a_tool_s_text_can_be_quoted(kit: Any) -> None:
    history = [
        HumanMessage("When?"),
        AIMessage("", tool_calls=[CALL]),
        ToolMessage(kit.ferry.page_content, tool_call_id="1"),
    ]
    message = kit.chat().invoke(history)
    assert {c["extras"]["document_id"] for c in message_citations(message)} == {"message:2"}


# what else comes in


def test_what_isn_t_text_is_refused_with_a_reason(kit: Any) -> None:
    image = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}
    pdf = {"type": "file", "base64": "aGk=", "mime_type": "application/pdf"}
    link = {"type": "text-plain", "mime_type": "text/plain", "url": "https://example.org"}
    bad = {"type": "text-plain", "mime_type": "text/plain", "base64": "\u00e9"}
    for block, said in (
        (image, "image"),
        ({"type": "image_url", "image_url": {"url": "x"}}, "text only"),
        ({"type": "mystery"}, "mystery"),
        (pdf, "document loader"),
        (link, "nothing is"),
        (bad, "UTF-8"),
        ({"type": "document", "source": {"type": "content", "content": [image]}}, "text blocks"),
    ):
        with pytest.raises(ValueError, match=said):
            kit.chat().invoke([HumanMessage([block, QUESTION])])


def test_odd_conversations_get_a_clear_answer(kit: Any) -> None:
    for messages, said in (
        ([], "no messages"),
        ([SystemMessage("Be brief.")], "user"),
        ([HumanMessage("a"), AIMessage("b")], "must end"),
        ([HumanMessage("  ")], "question is empty"),
        ([ChatMessage("a", role="ghost")], "ghost"),
        ([HumanMessage("a"), RemoveMessage(id="1")], "RemoveMessage"),
    ):
        with pytest.raises(ValueError, match=said):
            kit.chat().invoke(messages)


def test_system_messages_anywhere_come_first() -> None:
    talk = read([HumanMessage("a"), SystemMessage("s"), HumanMessage("b"), SystemMessage("t")])
    assert talk.turns == (
        {"role": "system", "content": "s\n\nt"},
        {"role": "user", "content": "a\n\nb"},
    )


def test_history_of_other_providers_is_read_for_its_text() -> None:
    old = AIMessage(
        [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "Yes."},
            {"type": "tool_use", "id": "1", "name": "search", "input": {}},
        ]
    )
    talk = read([HumanMessage("a"), old, HumanMessage("b")])
    assert talk.turns[1]["content"].startswith("Yes.")


# helpers and chains


def retriever(kit: Any) -> Any:
    store = InMemoryVectorStore(RecallEmbeddings())
    store.add_documents(list(kit.documents))
    return store.as_retriever()


def test_an_existing_chain_is_cited_with_one_helper(kit: Any) -> None:
    model = kit.chat()
    chain = (
        {"context": retriever(kit), "question": RunnablePassthrough()} | grounded_prompt() | model
    )
    message = chain.invoke("When does the ferry leave?")
    ids = {d.id: d for d in kit.documents}
    kit.check(message, [ids[name] for name in message.response_metadata["documents"]], least=5)
    assert prompt_text(model).count("When does the ferry leave?") == 1


def test_a_grounded_prompt_without_documents_quotes_nothing(kit: Any) -> None:
    script = "</think><|start_recall|>When<|end_recall|> is unknown."
    chain = grounded_prompt("Be brief.", history="past") | kit.chat(script)
    message = chain.invoke(
        {"context": [], "input": "When?", "past": [("human", "Hi"), ("ai", "Yo")]}
    )
    assert message_citations(message) == []
    with pytest.raises(ValueError, match="before any formatting"):
        chain.invoke({"context": "text", "input": "When?"})
    with pytest.raises(ValueError, match="no question"):
        chain.invoke({"context": []})


def test_the_documents_chain_takes_the_prompt_of_a_stuff_chain(kit: Any) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Use the context:\n{context}"), ("human", "{input}")]
    )
    model = kit.chat()
    chain = create_grounded_documents_chain(model, prompt)
    message = chain.invoke({"context": list(kit.documents), "input": "When?"})
    kit.check(message, kit.documents, least=5)
    assert prompt_text(model).count(kit.ferry.page_content) == 1
    plain = create_grounded_documents_chain(model, output_parser=StrOutputParser())
    said = plain.invoke({"context": list(kit.documents), "input": "When?"})
    assert said == message.text


def test_citations_of_a_flat_prompt_are_lifted_to_documents(kit: Any) -> None:
    text = documents_to_text(kit.documents)
    messages = [SystemMessage("Be brief."), HumanMessage(f"{text}\n\nWhen?")]
    for version in ("v1", "v0"):
        flat = kit.chat(output_version=version).invoke(messages)
        assert {c["extras"]["document_id"] for c in message_citations(flat)} == {"message:1"}
        for given in (None, messages):
            lifted = resolve_citations(flat, kit.documents, messages=given)
            citations = kit.check(lifted, kit.documents, least=5)
            assert citations[0]["extras"]["document_id"] == "ferry"
            assert lifted.response_metadata["documents"][:2] == ["ferry", "leave"]


def test_a_quote_that_no_document_holds_stays_with_its_message(kit: Any) -> None:
    script = "</think><|start_recall|>When<|end_recall|> <|start_recall|>14 euros<|end_recall|>"
    messages = [HumanMessage(f"{documents_to_text([kit.ferry])}\n\nWhen?")]
    flat = kit.chat(script).invoke(messages)
    lifted = resolve_citations(flat, [kit.ferry], messages=messages)
    first, second = message_citations(lifted)
    assert first["extras"]["document_id"] == "message:0"
    assert second["extras"]["document_id"] == "ferry"
    kit.check(lifted, [kit.ferry, Document(messages[0].text)], least=2)
    with pytest.raises(DocumentError, match="the messages that the model was called with"):
        resolve_citations(flat, [kit.ferry], messages=[HumanMessage("other")])


def test_a_lifted_quote_in_two_documents_is_ambiguous_unless_the_prompt_decides(kit: Any) -> None:
    copy = kit.ferry.model_copy(update={"id": "copy"})
    script = "</think><|start_recall|>14 euros<|end_recall|>"
    messages = [HumanMessage(f"{documents_to_text([kit.ferry, copy])}\n\nWhen?")]
    flat = kit.chat(script).invoke(messages)
    (citation,) = message_citations(resolve_citations(flat, [kit.ferry, copy]))
    assert len(citation["extras"]["occurrences"]) == 2
    (citation,) = message_citations(resolve_citations(flat, [kit.ferry, copy], messages=messages))
    assert citation["extras"]["document_id"] == "ferry"
    assert "occurrences" not in citation["extras"]


def test_a_runnable_can_choose_documents_for_each_call(kit: Any) -> None:
    model = kit.chat()
    chain = RunnableLambda(lambda q: model.bind(documents=retriever(kit).invoke(q)).invoke(q))
    message = chain.invoke("When does the ferry leave?")
    assert message_citations(message)


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("kind", ["text-plain", "document", "search_result"])
def test_a_document_whose_citations_are_off_is_read_but_not_cited(
    kit: Any, kind: Any, others: bool
) -> None:
    secret = Document(
        page_content="The ferry to the island leaves at 23:45.", metadata={"title": "X"}
    )
    (off,) = documents_to_content_blocks([secret], kind=kind)
    blocks = documents_to_content_blocks(kit.documents, kind=kind) if others else []
    off = {**off, "citations": {"enabled": False}}
    model = kit.chat()
    message = model.invoke([HumanMessage([off, *blocks, QUESTION])])
    assert "X:\nThe ferry to the island leaves at 23:45." in prompt_text(model)
    cited = [found["cited_text"] for found in message_citations(message)]
    assert not any("23:45" in text for text in cited)
    assert bool(cited) == others
    conversation = read([HumanMessage([off, *blocks, QUESTION])])
    assert not conversation.flat
    assert len(conversation.sources.documents) == (len(kit.documents) if others else 0)
    on = {**off, "citations": {"enabled": True}}
    assert len(read([HumanMessage([on, QUESTION])]).sources.documents) == 1
