"""Files and folders as documents: what is read, what is reported, what is never touched."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.documents.document import collect
from recallm_core.documents.loading import Skipped, load_documents
from recallm_core.errors import DocumentError
from recallm_core.inputs.folders import Folder
from recallm_core.retrieval import CorpusIndex


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def reasons(skipped: tuple[Skipped, ...], folder: Path) -> dict[str, str]:
    return {s.path.removeprefix(folder.as_posix() + "/"): s.reason for s in skipped}


# ---------------------------------------------------------------- folders and ids


def test_a_folder_is_read_in_sorted_order_with_ids_below_it(
    pdf: Callable[..., bytes], tmp_path: Path
) -> None:
    write(
        tmp_path,
        {
            "b.txt": "plain",
            "a/z.md": "# Title here\n\nbody",
            "a/b/c.rst": "*****\nHead\n*****\n\nbody",
            "c.html": "<title>A page</title><p>text",
            "d.pdf": pdf(["one", "two"]),
            "e.jsonl": '{"text": "x", "id": "own", "title": "T", "metadata": {"k": [1]}}\n'
            '\n{"text": "y"}\r\n',
            ".git/x.txt": "hidden",
            ".hidden.txt": "hidden",
        },
    )
    loaded = load_documents(tmp_path)
    assert loaded.skipped == ()
    assert [(d.id, d.title) for d in loaded] == [
        ("a/b/c.rst", "Head"),
        ("a/z.md", "Title here"),
        ("b.txt", "b.txt"),
        ("c.html", "A page"),
        ("d.pdf", "d.pdf"),
        ("own", "T"),
        ("e.jsonl#3", None),
    ]
    assert loaded.documents[-2].metadata == {"k": [1]}
    assert len(collect(loaded)) == len(loaded) == 7


def test_source_code_settings_and_logs_of_a_folder_are_text(tmp_path: Path) -> None:
    names = ["a.py", "b/c.TS", "b/Makefile", "d.log", "e.toml", "f.cpp", "README", "g.sql"]
    write(tmp_path, dict.fromkeys(names, "x = 1\r\n"))
    others = {"h.pyc": b"\xa7\r\r\n", "i.so": b"\x7fELF", "movie.ts": bytes(range(256)) * 9}
    installed = {"node_modules/a/b.js": "x", "b/__pycache__/c.py": "x"}
    write(tmp_path, {**others, **installed})
    loaded = load_documents(tmp_path)
    assert sorted(d.id for d in loaded) == sorted(names)
    assert {d.text for d in loaded} == {"x = 1\r\n"}
    found = reasons(loaded.skipped, tmp_path)
    assert found["h.pyc"].endswith("nor source code")
    assert found["movie.ts"].startswith("a binary file")
    assert {"node_modules", "b/__pycache__"} < set(found)
    (named,) = load_documents(tmp_path / "node_modules")
    assert named.text == "x"


def test_text_is_never_touched(tmp_path: Path) -> None:
    text = "\tone\r\ntwo\rthree \x00\n\nfour \u2028 é e\u0301 👩‍👩‍👧 \x0c end "
    write(tmp_path, {"a.txt": text, "b.md": text, "c.rst": text})
    for document in load_documents(tmp_path):
        assert document.text == text
        assert document.line_at(text.index("four")) == 5


def test_same_names_in_two_folders_get_ids_that_differ(tmp_path: Path) -> None:
    write(tmp_path, {"x/a.txt": "1", "y/a.txt": "2", "z/y/a.txt": "3", "b.txt": "4"})
    roots = [tmp_path / "x", tmp_path / "y", tmp_path / "z/y", tmp_path / "b.txt"]
    assert [d.id for d in load_documents(roots)] == ["a.txt", "y/a.txt", "y/a.txt (2)", "b.txt"]


def test_a_file_reached_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "1"})
    loaded = load_documents([tmp_path, tmp_path / "a.txt"])
    assert [d.id for d in loaded] == ["a.txt"]
    assert "already read as" in loaded.skipped[0].reason


def test_progress_and_skips_are_told_as_they_come(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "1", "b.txt": "", "c.txt": "3"})
    steps: list[object] = []
    loaded = load_documents(
        tmp_path, on_skip=steps.append, on_progress=lambda *numbers: steps.append(numbers)
    )
    assert steps == [(1, 3), loaded.skipped[0], (2, 3), (3, 3)]


# ---------------------------------------------------------------- what is left out


def test_what_cannot_be_read_is_reported_and_the_rest_is_read(
    pdf: Callable[..., bytes], tmp_path: Path
) -> None:
    write(
        tmp_path,
        {
            "binary.txt": bytes(range(256)),
            "cut.pdf": pdf(["text"])[:80],
            "empty.md": "",
            "blank.txt": " \n\t\n",
            "blank.html": "<script>x</script>",
            "good.txt": "good",
            "huge.txt": "x" * 5001,
            "latin.txt": "caf\xe9".encode("latin-1"),
            "locked.pdf": pdf(["text"], encrypted=True),
            "picture.png": b"\x89PNG",
            "scan.pdf": pdf(["", ""]),
            "utf16.txt": "no mark".encode("utf-16-le"),
        },
    )
    loaded = load_documents(tmp_path, max_bytes=5000)
    assert [d.id for d in loaded] == ["good.txt"]
    found = reasons(loaded.skipped, tmp_path)
    expected = {
        "binary.txt": "a binary file",
        "cut.pdf": "malformed",
        "empty.md": "empty",
        "blank.txt": "no text in it",
        "blank.html": "no text in it",
        "huge.txt": "larger than 5,000 bytes",
        "latin.txt": r"not utf-8 (byte 0xE9 at 3); convert it",
        "locked.pdf": "encrypted",
        "picture.png": "not one of .txt",
        "scan.pdf": "no text on its 2 pages",
        "utf16.txt": "a binary file, or text in an encoding without",
    }
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in found[name]


def test_links_are_never_followed(tmp_path: Path) -> None:
    write(tmp_path, {"root/a.txt": "inside", "outside/secret.txt": "secret"})
    root = tmp_path / "root"
    (root / "out.txt").symlink_to(tmp_path / "outside/secret.txt")
    (root / "outdir").symlink_to(tmp_path / "outside")
    (root / "in.txt").symlink_to(root / "a.txt")
    (root / "loop").symlink_to(root)
    (root / "gone.txt").symlink_to(root / "nowhere")
    loaded = load_documents(root)
    assert [d.text for d in loaded] == ["inside"]
    found = reasons(loaded.skipped, root)
    assert found["out.txt"] == found["outdir"] == "a link that leads out of the folder"
    assert found["in.txt"] == found["loop"] != found["out.txt"]
    assert found["gone.txt"] == "a dangling link"


def test_a_link_that_is_named_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"real.txt": "text", "folder/b.txt": "b"})
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    (tmp_path / "linked").symlink_to(tmp_path / "folder")
    loaded = load_documents([tmp_path / "link.txt", tmp_path / "linked"])
    assert [(d.id, d.text) for d in loaded] == [("link.txt", "text"), ("b.txt", "b")]


def test_a_file_that_becomes_a_link_after_the_listing_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"root/a.txt": "1", "root/b.txt": "2", "secret.txt": "secret"})
    victim = tmp_path / "root/b.txt"
    real_open = os.open

    def swap(path: Path | str, flags: int, **more: int) -> int:
        if Path(path).name == victim.name:
            victim.unlink()
            victim.symlink_to(tmp_path / "secret.txt")
        return real_open(path, flags, **more)

    monkeypatch.setattr(os, "open", swap)
    loaded = load_documents(tmp_path / "root")
    assert [d.text for d in loaded] == ["1"]
    assert loaded.skipped[0].path.endswith("b.txt")


@pytest.mark.parametrize("by_descriptor", [True, False])
@pytest.mark.parametrize("moment", ["listing", "reading"])
def test_a_folder_that_becomes_a_link_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_descriptor: bool, moment: str
) -> None:
    if not by_descriptor:
        monkeypatch.setattr("recallm_core.inputs.folders._BY_DESCRIPTOR", False)
    files = {"docs/a.txt": "first", "docs/sub/deep/b.txt": "harmless", "out/deep/b.txt": "secret"}
    write(tmp_path, files | {"docs/0.bin": "", "out/deep/c.txt": "secret"})
    sub = tmp_path / "docs" / "sub"

    def swap(*_: object) -> None:
        if not sub.is_symlink():
            sub.rename(tmp_path / "gone")
            sub.symlink_to(tmp_path / "out")

    hooks = {"on_skip": swap} if moment == "listing" else {"on_progress": swap}
    loaded = load_documents(tmp_path / "docs", **hooks)  # type: ignore[arg-type]
    assert [d.text for d in loaded] == ["first"]
    assert any("sub" in each.path for each in loaded.skipped)


CHANGES: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "gone": (Path.unlink, "can't be read: no such file or directory"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "not a plain file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "not a plain file|is a directory"),
    "grown": (lambda path: path.write_bytes(b"x" * 5001), "larger than 5,000 bytes"),
    "emptied": (lambda path: path.write_bytes(b""), "empty"),
    "binary": (lambda path: path.write_bytes(bytes(range(256))), "a binary file"),
    "its folder is gone": (lambda path: path.parent.rename(path.parent.with_name("gone")), None),
    "its folder is a file": (
        lambda path: (path.parent.rename(path.parent.with_name("gone")), path.parent.touch()),
        None,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_after_the_listing_is_reported_and_the_rest_is_read(
    tmp_path: Path, change: str
) -> None:
    make, reason = CHANGES[change]
    write(tmp_path, {"root/a.txt": "first", "root/sub/b.txt": "second", "root/z.txt": "last"})
    victim = tmp_path / "root/sub/b.txt"

    def progress(done: int, _: int) -> None:
        if done == 1:
            make(victim)
            (tmp_path / "root/new.txt").write_text("came too late")

    loaded = load_documents(tmp_path / "root", max_bytes=5000, on_progress=progress)
    assert [d.text for d in loaded] == ["first", "last"]
    (skipped,) = loaded.skipped
    assert skipped.path == victim.as_posix()
    assert re.search(reason or "can't be read", skipped.reason)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    write(tmp_path, {"a/b/c.txt": "1", "a/d.txt": "2", "e.pdf": "no"})
    fds = Path("/proc/self/fd")
    if not fds.is_dir():
        pytest.skip("no list of descriptors here")
    before = len(list(fds.iterdir()))
    for _ in range(3):
        load_documents([tmp_path / "a", tmp_path])
    assert len(list(fds.iterdir())) == before


def test_folders_may_be_nested_as_deep_as_any_that_people_have(tmp_path: Path) -> None:
    path = tmp_path
    for _ in range(502):
        path = path / "d"
    path.mkdir(parents=True)
    (path.parent.parent / "in.txt").write_text("in")
    (path / "below.txt").write_text("below")
    loaded = load_documents(tmp_path)
    assert [d.text for d in loaded] == ["in"]
    assert loaded.skipped[0].reason == "more than 500 folders deep"


BAD_LINES = {
    "not a number": '{"text": "t", "metadata": {"x": NaN}}',
    "infinite": '{"text": "t", "metadata": {"x": [1, -Infinity]}}',
    "too large": '{"text": "t", "metadata": {"x": 1e999}}',
    "many digits": '{"text": "t", "metadata": {"x": ' + "9" * 5000 + "}}",
    "deep": '{"text": "t", "metadata": {"x": ' + "[" * 100 + "]" * 100 + "}}",
    "deeper": '{"text": "t", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "surrogate in metadata": '{"text": "t", "metadata": {"x": "\\ud800"}}',
    "surrogate in a key": '{"text": "t", "metadata": {"\\ud800": 1}}',
    "surrogate in the text": '{"text": "\\ud800"}',
    "surrogate in the id": '{"text": "t", "id": "\\udfff"}',
    "surrogate in the title": '{"text": "t", "title": "\\udfff"}',
    "a list as metadata": '{"text": "t", "metadata": [1]}',
    "a number as title": '{"text": "t", "title": 5}',
    "a long id": '{"text": "t", "id": ' + "9" * 5000 + "}",
    "no text": '{"text": 5}',
    "not an object": "[1]",
    "cut off": '{"text": "t',
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_skipped_and_the_rest_can_be_saved(tmp_path: Path, name: str) -> None:
    good = '{"text": "good one", "metadata": {"x": [1, 2.5, null, {"y": "z"}]}}'
    lines = [good, BAD_LINES[name], good.replace("one", "two")]
    write(tmp_path, {"docs/a.jsonl": "\n".join(lines)})
    loaded = load_documents(tmp_path / "docs")
    assert [d.text for d in loaded] == ["good one", "good two"]
    assert [s.reason.partition(":")[0] for s in loaded.skipped] == ["line 2"]
    index = CorpusIndex.build(loaded, path=tmp_path / "index")
    assert CorpusIndex.open(tmp_path / "index").stats() == index.stats()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_are_never_opened(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "1"})
    os.mkfifo(tmp_path / "pipe.txt")
    loaded = load_documents(tmp_path)
    assert [d.id for d in loaded] == ["a.txt"]
    assert reasons(loaded.skipped, tmp_path) == {"pipe.txt": "not a plain file"}
    with pytest.raises(DocumentError, match="neither a file nor a folder"):
        load_documents(tmp_path / "pipe.txt")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read everything")
def test_folders_and_files_without_access_are_reported(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "1", "shut/b.txt": "2", "c.txt": "3"})
    (tmp_path / "shut").chmod(0)
    (tmp_path / "c.txt").chmod(0)
    try:
        found = reasons(load_documents(tmp_path).skipped, tmp_path)
        assert found == dict.fromkeys(("shut", "c.txt"), "can't be read: permission denied")
        for name in found:
            with pytest.raises(DocumentError, match="permission denied"):
                load_documents(tmp_path / name)
    finally:
        (tmp_path / "shut").chmod(0o700)


def test_errors_of_the_system_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a.txt": "1", "b/c.txt": "2", "d.txt": "3"})
    real_open = os.open

    def fail(path: Path | str, flags: int, **more: int) -> int:
        if Path(path).name in ("a.txt", "b"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, **more)

    monkeypatch.setattr(os, "open", fail)
    loaded = load_documents(tmp_path)
    assert [d.id for d in loaded] == ["d.txt"]
    assert reasons(loaded.skipped, tmp_path) == dict.fromkeys(
        ("a.txt", "b"), "can't be read: permission denied"
    )


@pytest.mark.parametrize("name", ["absent.txt", "nul\x00.txt", "\ud800.txt", "x" * 5000])
def test_a_path_that_is_named_must_exist(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"a.txt": "1"})
    told: list[Skipped] = []
    with pytest.raises(DocumentError, match="can't read"):
        load_documents([tmp_path / "a.txt", tmp_path / name], on_skip=told.append)
    assert told == []


def test_a_dangling_link_that_is_named_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DocumentError, match="no such file"):
        load_documents(tmp_path / "gone.txt")


def test_a_named_file_of_another_kind_counts_as_text(tmp_path: Path) -> None:
    write(tmp_path, {"Makefile": "all:\n", "data.bin": bytes(300)})
    loaded = load_documents([tmp_path / "Makefile", tmp_path / "data.bin"])
    assert [(d.id, d.text) for d in loaded] == [("Makefile", "all:\n")]
    assert "binary" in loaded.skipped[0].reason


def test_names_that_are_no_unicode_are_shown_all_the_same(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("text")
        (tmp_path / os.fsdecode(b"caf\xe8.txt")).write_text("other")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert [d.id for d in load_documents(tmp_path)] == ["caf?.txt", f"{tmp_path.name}/caf?.txt"]


def test_an_empty_folder_has_no_documents(tmp_path: Path) -> None:
    loaded = load_documents(tmp_path)
    assert (loaded.documents, loaded.skipped) == ((), ())


@pytest.mark.slow
def test_a_deep_tree_is_read(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
        try:
            deep.mkdir()
        except OSError:  # the system's limit on path length
            deep = deep.parent
            break
    (deep / "a.txt").write_text("deep")
    assert [d.text for d in load_documents(tmp_path)] == ["deep"]


# ---------------------------------------------------------------- JSON lines


def test_bad_lines_are_reported_with_their_number(tmp_path: Path) -> None:
    lines = [
        '{"text": "good"}',
        "{broken",
        "[1]",
        '{"text": 3}',
        '{"text": " "}',
        '{"text": "a\\ud800b"}',
        '{"text": "x", "title": 7}',
        '{"text": "x", "metadata": [1]}',
        '{"text": "x", "id": {}}',
        "[" * 100_000,
        '{"text": "x", "n": ' + "9" * 10_000 + "}",
        '{"text": "one", "id": 7}',
        '{"text": "two", "id": "7"}',
        '{"text": "one", "id": "7"}',
        '{"text": "a\\nb \u2028 c"}',
    ]
    write(tmp_path, {"d.jsonl": "\n".join(lines)})
    loaded = load_documents(tmp_path)
    assert [d.id for d in loaded] == ["d.jsonl#1", "7", "7", "d.jsonl#15"]
    assert [s.reason.split(":")[0] for s in loaded.skipped] == [
        f"line {n}" for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13)
    ]
    assert "lone surrogate" in loaded.skipped[4].reason
    assert loaded.documents[-1].lines(0, 7) == (15, 15)


def test_many_bad_lines_are_summed_up(tmp_path: Path) -> None:
    write(tmp_path, {"d.jsonl": "x\n" * 1000})
    loaded = load_documents(tmp_path)
    assert len(loaded.skipped) == 21
    assert loaded.skipped[-1].reason == "and 980 more lines"


@given(st.text(max_size=40), st.text(min_size=1, max_size=8))
def test_texts_in_json_lines_come_back_unchanged(text: str, own_id: str) -> None:
    from recallm_core.documents.loading import _File, _from_line

    file = _File(Path("f.jsonl"), "f.jsonl", "f.jsonl")
    if text.strip():
        document = _from_line(json.dumps({"text": text, "id": own_id}), 5, file)
        assert (document.text, document.id) == (text, own_id)
        assert document.lines(0, len(text)) == (5, 5)


def test_hidden_text_is_counted_and_can_be_kept(tmp_path: Path) -> None:
    page = "<p>shown</p><details><summary>open</summary>a secret</details><p hidden=until-found>f"
    (tmp_path / "a.html").write_text(page)
    loaded = load_documents(tmp_path)
    assert [d.text.split() for d in loaded] == [["shown", "open", "f"]]
    (note,) = loaded.notes
    assert note.path.endswith("a.html")
    assert "7 characters that no browser shows" in note.text
    kept = load_documents(tmp_path, keep_hidden=True)
    assert "a secret" in kept.documents[0].text
    assert kept.notes == ()


def test_a_folder_held_open_is_read_as_it_is_and_stays_open(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("One.")
    folder = Folder(tmp_path / "docs")
    assert load_documents(folder) == load_documents(tmp_path / "docs")
    (tmp_path / "docs").rename(tmp_path / "moved")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "b.md").write_text("Two.")
    assert [document.text for document in load_documents([folder])] == ["One."]
    folder.close()
