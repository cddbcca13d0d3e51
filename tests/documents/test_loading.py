"""Files and folders as documents: what is read, what is reported, what is never touched."""

import json
import os
import random
import resource
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.documents.document import Document, collect
from recallm_core.documents.extraction import decode, extract_html, extract_pdf
from recallm_core.documents.limited_process import LimitedProcess, pdf_process
from recallm_core.documents.loading import Skipped, load_documents
from recallm_core.errors import DocumentError
from recallm_core.inputs.folders import Folder
from recallm_core.retrieval import CorpusIndex

# ---------------------------------------------------------------- PDF files made by hand


def pdf(pages: list[str], *, encrypted: bool = False) -> bytes:
    """A PDF file with one line of Helvetica on each page."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        lines = " ".join(f"({line}) Tj 0 -20 Td" for line in text.split("\n"))
        stream = f"BT /F1 12 Tf 72 700 Td {lines} ET" if text else ""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    extra = ""
    if encrypted:
        key = "<" + "5a" * 32 + ">"
        objects.append(f"<< /Filter /Standard /V 1 /R 2 /O {key} /U {key} /P -4 >>")
        extra = f" /Encrypt {len(objects)} 0 R /ID [<{'00' * 16}> <{'00' * 16}>]"
    out, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    start = len(out)
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}"
    out += f"trailer\n<< /Size {size} /Root 1 0 R{extra} >>\nstartxref\n{start}\n%%EOF"
    return out.encode("latin-1")


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def reasons(skipped: tuple[Skipped, ...], folder: Path) -> dict[str, str]:
    return {s.path.removeprefix(folder.as_posix() + "/"): s.reason for s in skipped}


# ---------------------------------------------------------------- folders and ids


def test_a_folder_is_read_in_sorted_order_with_ids_below_it(tmp_path: Path) -> None:
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


def test_what_cannot_be_read_is_reported_and_the_rest_is_read(tmp_path: Path) -> None:
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


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-16-le"]
)
def test_marked_encodings_are_decoded_without_the_mark(encoding: str) -> None:
    text = "Ünïcödé 日本 👩\r\n"
    data = text.encode(encoding)
    marks = {"utf-16-be": b"\xfe\xff", "utf-16-le": b"\xff\xfe"}
    assert decode(marks.get(encoding, b"") + data) == text


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00\xd8", b"\xff\xfea", b"a\xed\xa0\x80", b"\xef\xbb\xbf\xff"]
)
def test_broken_encodings_are_refused(data: bytes) -> None:
    with pytest.raises(DocumentError, match="not utf"):
        decode(data)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_exactly_or_refused(data: bytes) -> None:
    try:
        text = decode(data)
    except DocumentError:
        return
    Document(text)
    if not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x00\x00\xfe\xff")):
        assert text.encode() == data


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("iso-8859-1", "cp1252"), ("windows-1251", "cp1251"), ("Shift_JIS", "shift_jis")],
)
def test_the_charset_of_a_page_counts_where_it_is_not_utf8(charset: str, codec: str) -> None:
    text = {"cp1252": "“café”", "cp1251": "привет", "shift_jis": "日本語"}[codec]
    page = f'<meta charset="{charset}"><p>{text}'
    assert decode(page.encode(codec), is_html=True) == page
    assert decode(page.encode(), is_html=True) == page


@pytest.mark.parametrize(
    "charset",
    ["zlib", "utf-7", "nonsense", "idna", "undefined", "unicode_escape", "raw_unicode_escape"],
)
def test_a_charset_that_is_none_is_passed_over(charset: str) -> None:
    with pytest.raises(DocumentError, match="not utf-8"):
        decode(f"<meta charset={charset}>".encode() + b"\xe9", is_html=True)


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


# ---------------------------------------------------------------- HTML


def test_a_page_reads_as_in_a_browser() -> None:
    page = """<!doctype html><html><head><title>My &amp;
    page</title><style>p { }</style><script>if (a < b) "</scriptx>"</script>
<body><nav><ul><li>Home<nav>deep</nav></ul></nav>
<h1>Head   line</h1><p>First
   second &lt;b&gt; <b>bold</b>text<br>new<br><br>x<p>Third 1 < 2 &copy2024 &#0; &#xD800;
<table><tr><td>a<td>b<tr><td>c<td>d</table>
<pre>
  code
    more</pre><!-- c > --> tail <a title="x > y" href='z'>link</a>&nbsp;<svg/>end"""
    found = extract_html(page, "p.html")
    assert found.title == "My & page"
    assert found.text == (
        "Head line\n\nFirst second <b> boldtext\nnew\n\nx\n\nThird 1 < 2 ©2024 \ufffd \ufffd\n\n"
        "a\tb\nc\td\n\n  code\n    more\n\ntail link\xa0end"
    )


words = st.lists(
    st.sampled_from(["w{}", "w{} ", " w{}\n", "\r\nw{}", "w{}&#10;", "&amp;w{}\t"]), max_size=4
).map("".join)
markup = st.sampled_from(
    [
        "<p>",
        "</p>",
        "<pre>",
        "</pre>",
        "<br>",
        "<b>",
        "</b >",
        "<li\n>",
        "<td>",
        "<nav>",
        "</nav>",
        "<!-- \n -->",
        "<script>\n x</script>",
        "<a b='\n>'>",
        "<!x\n>",
        "</ >",
        "< ",
        "<svg/>",
        "<",
    ]
)


@settings(max_examples=300)
@given(st.lists(words | markup, max_size=25))
def test_every_word_of_a_page_is_on_its_source_line(parts: list[str]) -> None:
    page, number = "", 0
    for part in parts:
        while "{}" in part:
            part = part.replace("{}", f"{number}x", 1)
            number += 1
        page += part
    found = extract_html(page, "p")
    document = Document(found.text, source_map=found.source_map)
    lines = page.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for i in range(number):
        if (at := found.text.find(f"w{i}x")) >= 0:
            assert f"w{i}x" in lines[document.line_at(at) - 1]
    assert found.text.strip("\n ") == found.text or "<pre" in page


@given(st.text(st.sampled_from("<>!-/?abp='\" \n&;#x1"), max_size=60))
def test_any_page_is_read(page: str) -> None:
    found = extract_html(page, "p")
    Document(found.text, source_map=found.source_map)
    if "<" not in page and "&" not in page:
        assert found.text == " ".join(page.split())


def test_navigation_that_never_ends_is_read() -> None:
    assert extract_html("<nav>menu<p>text", "p").text == "menu\n\ntext"


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<a ",
        "<!--",
        "<![",
        "</",
        "&",
        "<a b='",
        "<script>",
        "<nav>",
        "<a/",
        "<pre>\n",
        "= ",
        "<title>",
        "&#9",
        "<svg><nav></svg>",
    ],
)
def test_broken_markup_takes_one_pass(unit: str) -> None:
    extract_html("<p>text" + unit * 20_000, "p")  # the standard library's parser takes minutes


def test_a_character_reference_with_endless_digits_stays_as_it_is() -> None:
    digits = "9" * 5000
    assert extract_html(f"a &#{digits}; b", "p").text == f"a &#{digits}; b"


# ---------------------------------------------------------------- PDF


def test_pages_are_joined_and_found_again() -> None:
    found = extract_pdf(pdf(["First page.\nSecond line", "", "Third page"]), "f.pdf")
    document = Document(found.text, source_map=found.source_map)
    assert found.text == "First page.\nSecond line\f\fThird page"
    assert [document.page_at(found.text.index(w)) for w in ("First", "line", "Third")] == [1, 1, 3]
    assert document.page_at(len(found.text)) == 3


def test_a_pdf_with_too_much_text_is_refused() -> None:
    with pytest.raises(DocumentError, match="more than 10 characters"):
        extract_pdf(pdf(["a line", "another line"]), "f.pdf", max_chars=10)


def test_broken_pdfs_are_refused_or_read_but_never_crash() -> None:
    whole, dice = bytearray(pdf(["Some text here", "and more"])), random.Random(0)
    for _ in range(150):
        broken = whole.copy()
        for _ in range(dice.randint(1, 20)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        try:
            found = extract_pdf(bytes(broken[: dice.randint(0, len(broken))]), "f.pdf")
        except DocumentError:
            continue
        Document(found.text, source_map=found.source_map)


# ---------------------------------------------------------------- files that take too much


def bomb(stream: bytes, filters: bytes) -> bytes:
    """A PDF file with one page, whose content is given as it is stored."""
    contents = b"<</Length %d/Filter[%s]>>stream\n%s\nendstream" % (len(stream), filters, stream)
    resources = b"<</Font<</F1 5 0 R>>>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources%s>>" % resources,
        contents,
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = b"%PDF-1.7\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


def deflated(head: bytes, piece: bytes, times: int) -> bytes:
    made = zlib.compressobj(9)
    return b"".join(
        [made.compress(head), *(made.compress(piece) for _ in range(times)), made.flush()]
    )


HELLO = b"BT /F1 12 Tf 10 10 Td (hello) Tj ET\n"


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_a_pdf_that_inflates_without_end_takes_no_memory_here() -> None:
    twice = zlib.compress(deflated(HELLO, b" " * 1_000_000, 500), 9)
    before = peak()
    with pytest.raises(DocumentError, match="more than 384 MB of memory"):
        extract_pdf(bomb(twice, b"/FlateDecode/FlateDecode"), "o")
    assert peak() - before < 100_000_000
    assert extract_pdf(bomb(zlib.compress(HELLO), b"/FlateDecode"), "o").text == "hello"


def test_a_pdf_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recallm_core.documents.limited_process._SECONDS", 0.3)
    monkeypatch.setattr("recallm_core.documents.limited_process._SECONDS_A_MEGABYTE", 0.0)
    paths = deflated(HELLO, b"0 0 m 9 9 l S\n" * 70_000, 20)
    pdf_process.close()
    with pytest.raises(DocumentError, match="memory or 0 s"):
        extract_pdf(bomb(paths, b"/FlateDecode"), "o")


def test_a_pdf_is_read_alike_in_a_child_and_here(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pdf(["First page.\nSecond line é", "", "Third page"])
    inside = extract_pdf(data, "f.pdf")
    monkeypatch.setattr(pdf_process, "_usable", False)
    monkeypatch.setattr(pdf_process, "_child", None)
    assert extract_pdf(data, "f.pdf") == inside
    assert inside.source_map.pages == (1, 2, 3)


@pytest.mark.parametrize("failure", [OSError("no processes here"), ValueError("embedded")])
def test_pdfs_are_read_here_where_no_process_can_be_started(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("recallm_core.documents.limited_process.subprocess.Popen", refuse)
    process = LimitedProcess()
    assert process.read(b"%PDF", 10) is None
    monkeypatch.setattr("recallm_core.documents.extraction.pdf_process", process)
    assert extract_pdf(pdf(["text"]), "f.pdf").text == "text"


def test_what_was_interrupted_is_never_taken_for_the_next_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = LimitedProcess()

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recallm_core.documents.limited_process._answered", interrupted)
        with pytest.raises(KeyboardInterrupt):
            process.read(pdf(["first"]), 1000)
    found = process.read(pdf(["second"]), 1000)
    process.close()
    assert found is not None
    assert found["text"] == "second"


def test_the_child_has_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALLM_API_KEY", "swordfish")
    told: list[dict[str, str]] = []
    start = subprocess.Popen

    def started(*arguments: Any, **options: Any) -> Any:
        told.append(options["env"])
        return start(*arguments, **options)

    monkeypatch.setattr("recallm_core.documents.limited_process.subprocess.Popen", started)
    process = LimitedProcess()
    assert process.read(pdf(["text"]), 1000) is not None
    process.close()
    assert "swordfish" not in "".join(told[0].values())


@pytest.mark.parametrize(
    "hidden",
    [
        "<p hidden>SECRET</p>",
        "<div style='color:red; DISPLAY : none !important'>SECRET<br>SECRET</div>",
        '<span style="visibility:hidden">SECRET</span>',
        "<span aria-hidden=true>SECRET</span>",
        "<dialog>SECRET <b>SECRET</b></dialog>",
        "<template>SECRET</template>",
        "<p title='SECRET' data-x='a > SECRET'></p><input value=SECRET>",
        "<div hidden><div>SECRET</div><p>SECRET</div>",
        "<p hidden>SECRET<p>shown</p>",
        "<ul><li hidden>SECRET<li>shown</ul>",
        "<ul><li hidden>SECRET<ul><li>SECRET</ul></ul>",
        "<table><tr><td hidden>SECRET<td>shown</table>",
        "<img hidden><br hidden>",
        "<div hidden>SECRET</b></i></div>",
        "<details><summary>shown</summary>SECRET<p>SECRET<summary>SECRET</summary></details>",
        "<details>SECRET<div><summary>SECRET</summary></div><summary>shown</details>",
        "<details hidden><summary>SECRET</summary>SECRET</details>",
        "<details open>shown<details><summary>shown</summary>SECRET</details></details>",
        "<details><summary>shown<details><summary>shown</summary>SECRET</details></summary>SECRET"
        "</details>",
        "<template><details>SECRET</details></template>",
        "<p style='display:/* */none'>SECRET</p><p style='opacity: 0'>SECRET</p>",
        "<p style='opacity:0.5'>shown</p><span style='font-size:0px'>SECRET</span>",
        "<datalist><option>SECRET</datalist><video>SECRET</video>",
        "<p style='font-size:0.9em'>shown<p style='content-visibility:hidden'>SECRET</p>",
    ],
)
def test_what_a_browser_does_not_show_is_left_out(hidden: str) -> None:
    page = f"<p>before</p>{hidden}<p>after</p>"
    found = extract_html(page, "a.html")
    assert "SECRET" not in found.text
    assert found.text.split() == ["before", *["shown"] * hidden.count("shown"), "after"]


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


@given(st.lists(st.sampled_from(
    ["<p hidden>", "<div style=display:none>", "</p>", "</div>", "<li hidden>", "<ul>", "</ul>",
     "x", "<td hidden>", "<table>", "</table>", "<b>", "</b>", "<br>", "<dialog>", "</dialog>",
     "<nav>", "<details>", "<summary>", "</summary>", "</details>"]
), max_size=30).map("".join))  # fmt: skip
def test_hidden_elements_hide_no_more_than_is_in_them(page: str) -> None:
    kept = extract_html(page, "a.html", keep_hidden=True).text
    found = extract_html(page, "a.html").text
    assert found.count("x") <= kept.count("x") == page.count("x") or "<nav>" in page


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
