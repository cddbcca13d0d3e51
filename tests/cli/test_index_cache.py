"""An index that is kept between questions saves time and never changes an answer."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from recallm_core import cli
from recallm_core.cli import index_cache as ask_cache
from recallm_core.documents.document import Document
from recallm_core.errors import CorpusIndexError
from recallm_core.retrieval import CorpusIndex, segment
from recallm_core.testing import scripted_llm

SCRIPT = (
    "Where? <|start_recall|>27 days of paid leave<|end_recall|> There."
    "</think>You have 27 days of paid leave."
)
LEAVE = "# Leave\n\nYou have 27 days of paid leave a year.\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "recallm" / "ask"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "leave.md").write_text(LEAVE)
    for number in range(8):
        pick = random.Random(number)
        words = (pick.choice(["stone", "river", "ship", "red"]) for _ in range(900))
        (folder / f"other{number}.txt").write_text(" ".join(words))
    return folder


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the documents that were indexed."""
    ids: list[str] = []
    build = segment.build

    def spy(documents: Sequence[Document], *rest: Any) -> Any:
        ids.extend(document.id for document in documents)
        return build(documents, *rest)

    monkeypatch.setattr(segment, "build", spy)
    return ids


def ask(docs: Path, *options: str, window: int = 4000) -> int:
    argv = ["ask", "How many days of paid leave?", "--docs", str(docs), "--json", *options]
    argv += ["--max-new-tokens", "500"]
    return cli.main(argv, load=lambda _: scripted_llm(SCRIPT, window=window))


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_the_second_question_indexes_nothing(
    docs: Path, cache: Path, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(docs) == 0
    first = answer(capsys)
    assert len(built) == 9
    built.clear()
    assert ask(docs) == 0
    assert built == []
    assert answer(capsys) == first
    (citation,) = first["citations"]
    assert LEAVE[citation["start"] : citation["end"]] == "27 days of paid leave"
    assert citation["lines"] == [3, 3]
    assert cache.stat().st_mode & 0o077 == 0


def test_only_a_changed_file_is_indexed_and_a_deleted_one_is_gone(
    docs: Path, cache: Path, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(docs) == 0
    capsys.readouterr()
    built.clear()
    (docs / "leave.md").write_text("New.\n\n" + LEAVE)
    (docs / "other0.txt").unlink()
    assert ask(docs) == 0
    assert len(built) == 1
    assert answer(capsys)["citations"][0]["lines"] == [5, 5]
    (kept,) = cache.iterdir()
    assert len(CorpusIndex.open(kept).documents) == 8


def test_without_the_cache_nothing_is_kept_and_the_answer_is_the_same(
    docs: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(docs, "--no-cache") == 0
    plain = answer(capsys)
    assert not cache.exists()
    assert ask(docs) == 0
    assert answer(capsys) == plain


def test_what_fits_the_window_is_read_whole(docs: Path, cache: Path) -> None:
    assert ask(docs, window=1_000_000) == 0
    assert not cache.exists()


def spoil_array(place: Path) -> None:
    target = next(place.rglob("*vectors.npy"))
    data = bytearray(target.read_bytes())
    data[-1] ^= 1
    target.chmod(0o600)
    target.write_bytes(bytes(data))


def spoil_pointer(place: Path) -> None:
    (place / "CURRENT").write_text("../../elsewhere")


def spoil_with_another_file(place: Path) -> None:
    (place / "CURRENT").unlink()
    (place / "stranger").write_text("")


def replace_by_link(place: Path) -> None:
    place.rename(place.parent.parent / "moved")
    place.symlink_to(place.parent.parent / "moved")


@pytest.mark.parametrize(
    "spoil", [spoil_array, spoil_pointer, spoil_with_another_file, replace_by_link]
)
def test_a_damaged_index_is_made_anew_without_a_word(
    docs: Path,
    cache: Path,
    built: list[str],
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
) -> None:
    assert ask(docs) == 0
    first = answer(capsys)
    (place,) = cache.iterdir()
    spoil(place)
    built.clear()
    assert ask(docs) == 0
    assert len(built) == 9
    assert answer(capsys) == first
    built.clear()
    assert ask(docs) == 0
    assert built == []
    assert not place.is_symlink()


def test_a_sound_index_with_other_texts_is_brought_up_to_date(
    docs: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(docs) == 0
    first = answer(capsys)
    (place,) = cache.iterdir()
    forged = CorpusIndex.open(place)
    forged.add([Document("You have 99 days.", id=each) for each in list(forged.documents)])
    forged.save()
    assert ask(docs) == 0
    assert answer(capsys) == first


def test_an_index_that_cannot_be_saved_still_answers(
    docs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise CorpusIndexError("disk full")

    monkeypatch.setattr(CorpusIndex, "save", full)
    assert ask(docs) == 0
    assert list(cache.iterdir()) == []


def test_a_folder_that_others_may_write_is_not_used(docs: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert ask_cache.folder() is None
    assert ask(docs) == 0
    assert list(cache.iterdir()) == []


def test_a_relative_cache_folder_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ask_cache.folder() == tmp_path / ".cache" / "recallm" / "ask"


def test_the_indexes_used_longest_ago_go_first(cache: Path) -> None:
    root = ask_cache.folder()
    assert root == cache
    texts = [Document(f"red ship {number} " * 40, id="a") for number in range(3)]
    for number, document in enumerate(texts[:2]):
        ask_cache.cached_index([f"p{number}"], [document], root=root)
    first, second = (root / ask_cache._name([f"p{number}"]) for number in range(2))
    os.utime(first, (2_000, 2_000))
    os.utime(second, (1_000, 1_000))
    limit = ask_cache._size(first) * 5 // 2
    ask_cache.cached_index(["p2"], [texts[2]], root=root, limit=limit)
    assert first.exists()
    assert not second.exists()
    assert sum(map(ask_cache._size, root.iterdir())) <= limit


def test_what_exceeds_the_limit_is_not_kept(cache: Path) -> None:
    root = ask_cache.folder()
    document = Document("red ship", id="a")
    index = ask_cache.cached_index(["p"], [document], root=root, limit=10)
    assert list(index.documents) == ["a"]
    assert list(cache.iterdir()) == []


def test_names_differ_by_path_and_bear_any_bytes(tmp_path: Path) -> None:
    odd = [["a", "b"], ["ab"], ["b", "a"], ["a\nb"], ["\udcff"], ["語"], []]
    assert len({ask_cache._name(paths) for paths in odd}) == len(odd)
