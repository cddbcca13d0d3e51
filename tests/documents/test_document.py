"""Documents: untouched text, positions in the source, and sets of them."""

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.documents.document import Document, collect
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import DocumentError

texts = st.text(st.sampled_from("ab é日👩\U0001f1e6\u0301\r\n\x00\x0b\u2028"), max_size=30)


@st.composite
def documents_with_range(draw: st.DrawFn) -> tuple[Document, int, int]:
    document = Document(draw(texts))
    ends = st.integers(0, len(document.text))
    start, end = sorted((draw(ends), draw(ends)))
    return document, start, end


def naive_line(text: str, offset: int) -> int:
    line = 1
    for i in range(1, offset + 1):
        ended = text[i - 1] == "\n" or (text[i - 1] == "\r" and text[i : i + 1] != "\n")
        line += ended
    return line


@given(documents_with_range())
def test_lines_are_counted_over_every_kind_of_newline(given_: tuple[Document, int, int]) -> None:
    document, start, end = given_
    assert document.line_at(start) == naive_line(document.text, start)
    last = naive_line(document.text, max(start, end - 1))
    assert document.lines(start, end) == (naive_line(document.text, start), last)


@given(documents_with_range())
def test_ranges_slice_the_encoded_text(given_: tuple[Document, int, int]) -> None:
    document, start, end = given_
    quote = document.text[start:end]
    a, b = document.utf16_range(start, end)
    assert document.text.encode("utf-16-le")[2 * a : 2 * b].decode("utf-16-le") == quote
    a, b = document.utf8_range(start, end)
    assert document.text.encode()[a:b].decode() == quote


@given(texts, st.dictionaries(st.text(max_size=3), st.lists(st.integers())))
def test_copies_and_pickles_are_equal(text: str, metadata: dict[str, list[int]]) -> None:
    source = SourceMap("file.txt", (0,), pages=(3,))
    for own_id in (None, "mine"):
        document = Document(text, own_id, "title", metadata, source_map=source)
        document.line_at(0)
        for twin in (
            pickle.loads(pickle.dumps(document)),
            copy.copy(document),
            copy.deepcopy(document),
        ):
            assert twin == document
            assert hash(twin) == hash(document)
            assert twin.automatic_id == document.automatic_id
            assert twin.page_at(0) == 3


def test_a_document_is_frozen_and_keeps_its_own_metadata() -> None:
    metadata = {"a": 1}
    document = Document("text", metadata=metadata)
    metadata["a"] = 2
    assert document.metadata == {"a": 1}
    with pytest.raises(TypeError):
        document.metadata["a"] = 3  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        document.text = "other"  # type: ignore[misc]
    assert replace(document, title="t").title == "t"


def test_a_map_gives_lines_and_pages_of_the_file() -> None:
    source = SourceMap("page.html", (0, 4, 8), lines=(10, 20, 20), pages=(1, 1, 2))
    document = Document("one\ntwo\na\nb", source_map=source)
    assert [document.line_at(i) for i in (0, 3, 4, 7, 8, 9, 10, 11)] == [
        *(10, 10, 20, 20),
        *(20, 20, 21, 21),
    ]
    assert [document.page_at(i) for i in (0, 7, 8, 11)] == [1, 1, 2, 2]
    assert Document("no pages").page_at(0) is None


@pytest.mark.parametrize(
    ("starts", "lines", "pages"),
    [((), None, None), ((1,), None, None), ((0, 2, 2), None, None), ((0,), (1, 2), None)],
)
def test_a_map_that_maps_nothing_is_refused(starts, lines, pages) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DocumentError, match="source map"):
        SourceMap("x", starts, lines, pages)


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (0, 5), (3, 2), (5, 5)])
def test_ranges_outside_the_text_are_refused(start: int, end: int) -> None:
    document = Document("four", "d")
    for ask in (document.lines, document.utf8_range, document.utf16_range):
        with pytest.raises(DocumentError, match="outside document 'd', whose text has 4"):
            ask(start, end)
    with pytest.raises(DocumentError, match="outside"):
        document.line_at(5)
    with pytest.raises(DocumentError, match="outside"):
        document.page_at(-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a\ud800b",), r"lone surrogate \(U\+D800\) at offset 1"),
        ((b"bytes",), "must be a str, got bytes"),
        (("x", "\udfff"), "id has a lone surrogate"),
        (("x", 7), "id must be a str, got int"),
        (("x", ""), "id can't be empty"),
        (("x", "i", 3), "title must be a str, got int"),
        (("x", "i", "t", [1]), "metadata must be a mapping, got list"),
    ],
)
def test_what_is_no_document_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        Document(*arguments)  # type: ignore[arg-type]


def test_equal_automatic_ids_are_aliases_and_every_source_is_kept() -> None:
    first, other, again = (
        Document("same", title="a"),
        Document("other"),
        Document("same", None, "b"),
    )
    found = collect([first, other, "same", again])
    assert list(found) == [first, other]
    assert len(found) == 2
    assert [d.title for d in found.aliases(first.id)] == ["a", None, "b"]
    assert found[other.id] is other
    assert first.id in found
    assert "absent" not in found


def test_equal_explicit_ids_need_equal_texts() -> None:
    found = collect([Document("x", "id"), Document("x", "id", "copy")])
    assert len(found.aliases("id")) == 2
    with pytest.raises(DocumentError, match="two different texts have the id 'id'"):
        collect([Document("x", "id"), Document("y", "id")])


@pytest.mark.parametrize("given_", ["text", b"text", Document("x"), None, 3])
def test_a_single_thing_is_no_list_of_documents(given_: object) -> None:
    with pytest.raises(DocumentError, match="must be a list of Document or str, got one"):
        collect(given_)  # type: ignore[arg-type]


def test_what_is_no_document_is_named_with_its_place() -> None:
    with pytest.raises(DocumentError, match="document 1 must be a Document or a str, got int"):
        collect(["x", 3])  # type: ignore[list-item]
    with pytest.raises(KeyError, match="no document has the id 'nowhere'"):
        collect(["x"])["nowhere"]


def test_blank_documents_are_reported_not_refused() -> None:
    found = collect(["", " \n", "text", Document("", "mine")])
    assert [d.text for d in found.blank] == ["", " \n", ""]
    assert len(collect([])) == 0


def test_a_set_can_be_pickled() -> None:
    found = collect(["a", Document("b", "id", metadata={"k": [1]})])
    assert pickle.loads(pickle.dumps(found)) == found
