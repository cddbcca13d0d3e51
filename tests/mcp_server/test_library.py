"""What clients can name: the documents below the folders served, and nothing else on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recallm_core.documents.document import Document
from recallm_core.errors import CorpusIndexError, DocumentError, GenerationCancelledError
from recallm_core.inputs.folders import Folder
from recallm_core.mcp_server.library import Library
from recallm_core.mcp_server.watching import Watch
from recallm_core.retrieval import CorpusIndex


@pytest.fixture
def library(house: Path) -> Iterator[Library]:
    library = Library([house])
    yield library
    library.close()


def ids(documents: tuple[Document, ...]) -> list[str]:
    return [document.id for document in documents]


def test_a_hostile_name_means_nothing(hostile: str, library: Library) -> None:
    with pytest.raises(DocumentError, match="no document or folder is called") as error:
        library.documents([hostile], Watch(""))
    assert "4711" not in str(error.value)
    with pytest.raises(DocumentError, match="no document or folder is called"):
        library.shelf(Watch("")).one(hostile)


def test_whole_paths_outside_mean_nothing(library: Library, house: Path) -> None:
    for path in (house.parent / "private" / "secret.md", house.parent, house / "link.md"):
        with pytest.raises(DocumentError):
            library.documents([str(path)], Watch(""))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("leave.md", ["leave.md"]),
        ("./leave.md", ["leave.md"]),
        ("handbook/leave.md", ["leave.md"]),
        ("rules", ["rules/travel.md"]),
        ("rules/", ["rules/travel.md"]),
        ("lines.jsonl", ["lines.jsonl#1", "two"]),
        ("two", ["two"]),
        ("handbook", ["leave.md", "lines.jsonl#1", "two", "rules/travel.md"]),
        (".", ["leave.md", "lines.jsonl#1", "two", "rules/travel.md"]),
    ],
)
def test_names_of_what_is_served(path: str, expected: list[str], library: Library) -> None:
    assert sorted(ids(library.documents([path], Watch("")))) == sorted(expected)


def test_a_whole_path_inside_is_a_name(library: Library, house: Path) -> None:
    assert ids(library.documents([str(house / "leave.md")], Watch(""))) == ["leave.md"]
    assert len(library.documents([str(house)], Watch(""))) == 4


def test_several_names_give_each_document_once_in_their_order(library: Library) -> None:
    documents = library.documents(["rules", "leave.md", "rules/travel.md"], Watch(""))
    assert ids(documents) == ["rules/travel.md", "leave.md"]


def test_nothing_of_the_secret_is_ever_read(library: Library, secret: str) -> None:
    assert all(secret not in document.text for document in library.documents(None, Watch("")))


def test_a_name_of_several_documents_is_no_single_one(library: Library) -> None:
    with pytest.raises(DocumentError, match=r"means 2 documents; name one: 'lines\.jsonl#1'"):
        library.shelf(Watch("")).one("lines.jsonl")


def test_a_folder_that_becomes_a_link_leads_nowhere(library: Library, house: Path) -> None:
    (house / "rules").rename(house / "old")
    (house / "rules").symlink_to(house.parent / "private")
    assert "old/travel.md" in ids(library.documents(None, Watch("")))
    with pytest.raises(DocumentError):
        library.documents(["rules/secret.md"], Watch(""))


def test_the_folder_served_stays_the_one_that_was_named(
    library: Library, house: Path, secret: str
) -> None:
    house.rename(house.parent / "moved")
    house.symlink_to(house.parent / "private")
    texts = [document.text for document in library.documents(None, Watch(""))]
    assert secret not in texts
    assert "The annual leave is 30 days." in texts


def test_a_race_between_listing_and_reading_is_lost(
    house: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library([house])
    opened = Folder.open

    def swapping(folder: Folder, below: tuple[str, ...], flags: int) -> int:
        target = house / "rules"
        if below[0] == "rules" and not target.is_symlink():
            target.rename(house / "away")
            target.symlink_to(house.parent / "private")
            (house.parent / "private" / "travel.md").write_text(secret)
        return opened(folder, below, flags)

    monkeypatch.setattr(Folder, "open", swapping)
    documents = library.documents(None, Watch(""))
    assert (house / "rules").is_symlink()
    assert all(secret not in document.text for document in documents)
    library.close()


def test_files_are_read_again_only_when_something_changed(library: Library, house: Path) -> None:
    first = library.documents(None, Watch(""))
    assert library.documents(None, Watch(""))[0] is first[0]
    (house / "leave.md").write_text("The annual leave is 28 days.")
    (house / "new.md").write_text("Something new.")
    texts = [document.text for document in library.documents(None, Watch(""))]
    assert "The annual leave is 28 days." in texts
    assert "Something new." in texts
    (house / "new.md").unlink()
    assert len(library.documents(None, Watch(""))) == len(first)


def test_indexes_of_parts_are_remembered_and_true(library: Library) -> None:
    documents = library.documents(["rules"], Watch(""))
    index = library.index_of(documents, Watch(""))
    assert {chunk.document_id for chunk in index.search("annual leave of trains", 9)} == {
        "rules/travel.md"
    }
    assert library.index_of(documents, Watch("")) is index


def test_an_index_goes_by_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "laws"
    CorpusIndex.build(["The law is the law."]).save(path)
    library = Library([], indexes={"laws": path})
    assert library.index("laws") is library.index("laws")
    for name in ("", "../laws", str(path), "Laws"):
        with pytest.raises(DocumentError, match="there are: laws"):
            library.index(name)
    broken = Library([], indexes={"none": tmp_path / "none"})
    (tmp_path / "none").mkdir()
    with pytest.raises(CorpusIndexError):
        broken.index("none")


def test_what_cannot_be_served_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file.md").write_text("x")
    for path, reason in (("nowhere", "no such file"), ("file.md", "not a directory")):
        with pytest.raises(DocumentError, match=f"can't serve .*{reason}.*name a folder"):
            Library([tmp_path / path])
    with pytest.raises(DocumentError, match="nothing to serve"):
        Library([])


def test_an_empty_folder_has_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="no document can be read"):
        Library([tmp_path]).documents(None, Watch(""))


def test_reading_can_be_called_off(library: Library) -> None:
    watch = Watch("")
    watch.stop()
    with pytest.raises(GenerationCancelledError):
        library.documents(None, watch)
    assert library.documents(None, Watch(""))
