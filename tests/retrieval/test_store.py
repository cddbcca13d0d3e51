"""A saved index is the old one or the new one, whole, whatever happens; damage is named."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recallm_core.documents.document import Document
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import CorpusIndexError
from recallm_core.retrieval import CorpusIndex, VectorSearch, store, texts, token_counts
from recallm_core.retrieval.embedding import FunctionEmbedder
from recallm_core.retrieval.texts import write_texts

TINY_SOURCE = """
import sys, zlib
import numpy as np
from recallm_core.documents.document import Document
from recallm_core.retrieval.embedding import FunctionEmbedder
from recallm_core.retrieval import CorpusIndex

def encode(texts):
    vectors = np.zeros((len(texts), 8), np.float32)
    for row, text in zip(vectors, texts):
        for word in text.split():
            row[zlib.crc32(word.encode()) % 8] += 1
    return vectors

TINY = FunctionEmbedder(encode, name="tiny")
"""
space = {}
exec(TINY_SOURCE, space)
TINY = space["TINY"]


def run(script, *arguments):
    """Runs a script that knows TINY in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", TINY_SOURCE + textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=2800,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sample():
    return [
        Document(
            "page one\fpage two, ünïcode \U0001f469\u200d\U0001f4bb and \0 and \r\n",
            id="pdf",
            title="A \u202e title",
            metadata={"year": 1999, "tags": ["a", None, 1.5], "nested": {"x": True}},
            source_map=SourceMap("a.pdf", (0, 9), (1, 4), (1, 2)),
        ),
        Document("a text without an id"),
        Document("", id="empty"),
        Document("red stone. " * 500, id="long", source_map=SourceMap("b.txt")),
    ]


def same(one, other):
    assert dict(one.documents) == dict(other.documents)
    for document_id in one.documents:
        first, second = one.documents[document_id], other.documents[document_id]
        assert first.source_map == second.source_map
        assert first.automatic_id == second.automatic_id
    for mode in ("hybrid", "dense", "lexical"):
        for question in ("page two", "red stone", "nothing"):
            assert one.search(question, 50, mode=mode) == other.search(question, 50, mode=mode)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "index"
    CorpusIndex.build(sample(), TINY, path)
    return path


def test_what_is_opened_is_what_was_saved(saved):
    same(CorpusIndex.open(saved, TINY), CorpusIndex.build(sample(), TINY))


def test_changes_are_saved_as_generations_that_share_files(saved):
    opened = CorpusIndex.open(saved, TINY)
    opened.add([Document(f"green number {n}", id=f"g{n}") for n in range(3)])
    opened.delete(["pdf"])
    opened.save()
    again = CorpusIndex.open(saved, TINY)
    same(again, opened)
    assert "pdf" not in again.documents
    assert again.stats().generation == 2
    again.delete(["g1"])
    again.save()
    links = [
        path.stat().st_nlink
        for path in (saved / "generation-000003").iterdir()
        if path.suffix == ".db"
    ]
    assert max(links) > 1
    assert sorted(path.name for path in saved.iterdir()) == [
        "CURRENT",
        "generation-000002",
        "generation-000003",
        "lock",
    ]
    same(CorpusIndex.open(saved, TINY), again)


def test_a_merge_of_saved_segments_keeps_everything(saved):
    opened = CorpusIndex.open(saved, TINY)
    for n in range(12):
        opened.add([Document(f"green stone number {n} " * 30, id=f"g{n}")])
        if n % 4 == 0:
            opened.save()
    opened.save()
    fresh = CorpusIndex.build(opened.documents.values(), TINY)
    same(CorpusIndex.open(saved, TINY), fresh)


def test_saving_elsewhere_makes_a_whole_copy(saved, tmp_path):
    opened = CorpusIndex.open(saved, TINY)
    opened.save(tmp_path / "deep" / "copy")
    shutil.rmtree(saved)
    same(CorpusIndex.open(tmp_path / "deep" / "copy", TINY), CorpusIndex.build(sample(), TINY))


def test_the_trained_parts_of_an_approximate_index_are_saved(tmp_path, monkeypatch):
    search = VectorSearch(exact_up_to=300)
    texts = [f"red stone number {n} " * 20 for n in range(400)]
    built = CorpusIndex.build(texts, TINY, tmp_path, vector_search=search)
    assert len(list((tmp_path / "generation-000001").glob("*-coarse-*.npy"))) == 2

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("faiss.Kmeans.train", never)
    opened = CorpusIndex.open(tmp_path, TINY, vector_search=search)
    exact = CorpusIndex.open(tmp_path, TINY)
    plain = CorpusIndex.build(texts, TINY)
    for mode in ("hybrid", "dense"):
        question = "stone number 7"
        assert opened.search(question, 20, mode=mode) == built.search(question, 20, mode=mode)
        assert exact.search(question, 20, mode=mode) == plain.search(question, 20, mode=mode)
    forged(tmp_path / "generation-000001", "-coarse-lists.npy", np.full(400, 999, np.int32))
    with pytest.raises(CorpusIndexError, match="impossible values in its lists"):
        CorpusIndex.open(tmp_path, TINY)


class Letters:
    """A tokenizer that counts characters, and how often it was asked."""

    fingerprint = "letters"
    asked = 0

    def encode_plain(self, text):
        self.asked += 1
        return type("Plain", (), {"ids": text})


def test_token_counts_are_saved_with_the_index(saved):
    opened = CorpusIndex.open(saved, TINY)
    chunks = opened.stats().chunks
    assert opened.count_tokens(Letters()) == chunks
    opened.save()
    assert len(list((saved / "generation-000002").glob("*-tokens-*.npy"))) == 1
    again, tokenizer = CorpusIndex.open(saved, TINY), Letters()
    assert again.count_tokens(tokenizer) == tokenizer.asked == 0
    again.add([Document("one more text", id="more")])
    assert again.count_tokens(tokenizer) == tokenizer.asked == 1
    again.save()
    assert CorpusIndex.open(saved, TINY).count_tokens(tokenizer) == 0
    same(CorpusIndex.open(saved, TINY), again)


@pytest.mark.parametrize("content", [np.full(1, 5, np.int32), np.full(1, 5, np.int64), b"", None])
def test_forged_token_counts_are_refused(saved, content):
    opened = CorpusIndex.open(saved, TINY)
    opened.count_tokens(Letters())
    opened.save()
    folder = saved / "generation-000002"
    name = token_counts.counts_name("letters")
    if content is None:
        content = np.full(opened.stats().chunks, -2, np.int32)
    forged(folder, f"-tokens-{name}.npy", content)
    with pytest.raises(CorpusIndexError, match=r"generation-000002.*(restore|build)"):
        CorpusIndex.open(saved, TINY)


def test_an_empty_index_can_be_saved(tmp_path):
    CorpusIndex(TINY).save(tmp_path)
    assert dict(CorpusIndex.open(tmp_path, TINY).documents) == {}


def test_another_embedder_is_refused_by_name(saved):
    other = FunctionEmbedder(TINY._encode, name="other")
    with pytest.raises(CorpusIndexError, match=r"made by the embedder 'function-8-tiny'.*other"):
        CorpusIndex.open(saved, other)


def rewritten(folder, change):
    """Changes a manifest and makes its seal fit again, as an attacker would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    content = json.dumps(manifest).encode()
    path.write_bytes(content)
    (folder / "manifest.sum").write_text(hashlib.blake2b(content, digest_size=32).hexdigest())


def test_another_version_is_refused_by_number(saved):
    rewritten(saved / "generation-000001", lambda manifest: manifest.update(version=7))
    with pytest.raises(CorpusIndexError, match="version 7, this library reads version 3"):
        CorpusIndex.open(saved, TINY)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format="something"),
        lambda m: m.update(segments={}),
        lambda m: m["segments"][0].update(name="../../etc"),
        lambda m: m["segments"][0].update(chunks=-1),
        lambda m: m["segments"][0].update(documents=True),
        lambda m: m["segments"].append(m["segments"][0]),
        lambda m: m.update(files={"../x": [1, "0" * 64]}),
        lambda m: m["files"].update({next(iter(m["files"])): [10**30, "0" * 64]}),
        lambda m: m["files"].update({next(iter(m["files"])): [1, "../x"]}),
        lambda m: m["files"].popitem(),
    ],
)
def test_a_forged_manifest_is_refused(saved, change):
    rewritten(saved / "generation-000001", change)
    with pytest.raises(CorpusIndexError, match="manifest"):
        CorpusIndex.open(saved, TINY)


def forged(folder, suffix, content):
    """Puts other content in a file and makes size and checksum fit."""
    (path,) = folder.glob(f"*{suffix}")
    path.unlink()
    if isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_bytes(content)
    digest = hashlib.blake2b(path.read_bytes(), digest_size=32).hexdigest()
    size = path.stat().st_size
    rewritten(folder, lambda m: m["files"].update({path.name: [size, digest]}))


def huge_header():
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (99999999999, 8), }"
    header = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("-vectors.npy", huge_header()),
        ("-vectors.npy", np.zeros((3, 8), np.float16)),
        ("-vectors.npy", b""),
        ("-vectors.npy", b"\x80\x04\x95"),
        ("-chunk_document.npy", np.array([["x"]], object)),
        ("-live.npy", np.ones(4, np.int8)),
        ("-words-starts.npy", np.array([0, 10**12])),
        ("-words-starts.npy", np.zeros(0, np.int64)),
        (".db", b"SQLite format 3\0" + b"\xff" * 5000),
        (".db", b""),
    ],
)
def test_forged_files_are_refused_before_they_are_used(saved, suffix, content):
    forged(saved / "generation-000001", suffix, content)
    with pytest.raises(CorpusIndexError, match=r"generation-000001.*(restore|build)"):
        CorpusIndex.open(saved, TINY)


@pytest.mark.parametrize("suffix", ["chunk_document", "chunk_end", "chunk_parent", "words-places"])
@pytest.mark.parametrize("value", [-1, 2**30])
def test_numbers_that_point_outside_are_refused(saved, suffix, value):
    folder = saved / "generation-000001"
    (path,) = folder.glob(f"*-{suffix}.npy")
    values = np.array(np.load(path))
    values[-1] = value
    forged(folder, f"-{suffix}.npy", values)
    with pytest.raises(CorpusIndexError, match="impossible values"):
        CorpusIndex.open(saved, TINY)


def test_a_table_with_more_than_its_own_schema_is_refused(saved, tmp_path):
    import sqlite3
    from contextlib import closing

    folder = saved / "generation-000001"
    (path,) = folder.glob("*.db")
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    with closing(sqlite3.connect(copy)) as changed, changed:
        changed.execute("CREATE TRIGGER t AFTER INSERT ON document BEGIN SELECT 1; END")
    forged(folder, ".db", copy.read_bytes())
    with pytest.raises(CorpusIndexError, match="tables other than"):
        CorpusIndex.open(saved, TINY)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_changed_byte_is_noticed_and_named(saved, data):
    folder = saved / "generation-000001"
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = path.read_bytes()
    place = data.draw(st.integers(0, max(0, len(content) - 1)))
    cut = data.draw(st.booleans())
    changed = content[:place] if cut else bytearray(content)
    if not cut:
        changed[place] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(changed)
        with pytest.raises(CorpusIndexError, match=folder.name) as raised:
            CorpusIndex.open(saved, TINY)
        assert path.stem.split(".")[0] in str(raised.value)
    finally:
        path.write_bytes(content)
    CorpusIndex.open(saved, TINY)


def test_a_missing_file_is_named(saved):
    (path,) = (saved / "generation-000001").glob("*-vectors.npy")
    path.unlink()
    with pytest.raises(CorpusIndexError, match=r"vectors\.npy is missing"):
        CorpusIndex.open(saved, TINY)
    shutil.rmtree(saved / "generation-000001")
    with pytest.raises(CorpusIndexError, match="is missing"):
        CorpusIndex.open(saved, TINY)
    with pytest.raises(CorpusIndexError, match="holds no index"):
        CorpusIndex.open(saved / "nowhere", TINY)


@pytest.mark.parametrize("content", [b"", b"generation-1", b"../generation-000001", b"x" * 999])
def test_a_pointer_that_points_nowhere_is_refused(saved, content):
    (saved / "CURRENT").write_bytes(content)
    with pytest.raises(CorpusIndexError, match="CURRENT"):
        CorpusIndex.open(saved, TINY)


def test_links_are_not_followed(saved, tmp_path):
    folder = saved / "generation-000001"
    (path,) = folder.glob("*-vectors.npy")
    outside = tmp_path / "outside.npy"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(CorpusIndexError, match="vectors"):
        CorpusIndex.open(saved, TINY)
    path.unlink()
    outside.rename(path)
    CorpusIndex.open(saved, TINY)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(CorpusIndexError, match="symbolic link"):
        CorpusIndex.open(saved, TINY)
    folder.unlink()
    (tmp_path / "moved").rename(folder)
    (saved / "lock").unlink()
    target = tmp_path / "victim"
    (saved / "lock").symlink_to(target)
    with pytest.raises(CorpusIndexError, match="can't be written"):
        CorpusIndex.open(saved, TINY).save()
    assert not target.exists()


def test_a_fifo_does_not_hang_the_reader(saved):
    (saved / "CURRENT").unlink()
    os.mkfifo(saved / "CURRENT")
    with pytest.raises(CorpusIndexError, match="plain file"):
        CorpusIndex.open(saved, TINY)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CorpusIndexError, match=r"thesis\.txt"):
        CorpusIndex.build(["red"], TINY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_change_by_another_process_isnt_overwritten(saved):
    one, other = CorpusIndex.open(saved, TINY), CorpusIndex.open(saved, TINY)
    one.add(["from one"])
    one.save()
    other.add(["from the other"])
    with pytest.raises(CorpusIndexError, match=r"changed by another process.*open it again"):
        other.save()
    one.save()
    assert len(CorpusIndex.open(saved, TINY).documents) == 5


def test_one_writer_at_a_time(saved, monkeypatch):
    import fcntl

    monkeypatch.setattr(store, "_PATIENCE", 0.1)
    opened = CorpusIndex.open(saved, TINY)
    with (saved / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CorpusIndexError, match="another process is writing"):
            opened.save()
    opened.save()


def test_opening_and_searching_change_nothing_in_the_folder(saved):
    def snapshot():
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in sorted(saved.rglob("*"))
        }

    before = snapshot()
    opened = CorpusIndex.open(saved, TINY)
    opened.search("red stone")
    opened.pack_report("red stone", 40, len)
    assert snapshot() == before


def test_a_folder_that_cant_be_written_keeps_its_index(saved, monkeypatch):
    opened = CorpusIndex.open(saved, TINY)
    opened.add(["more"])

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(store.Path, "rename", denied)
        with pytest.raises(CorpusIndexError, match=r"Permission denied.*untouched"):
            opened.save()
    assert len(CorpusIndex.open(saved, TINY).documents) == 4
    opened.save()
    assert len(CorpusIndex.open(saved, TINY).documents) == 5


def test_a_read_only_folder_is_read_and_not_written():
    # Not in tmp_path: root may write anywhere, so the script becomes another user, who must get in.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = Path(name) / "index"
        CorpusIndex.build(sample(), TINY, path)
        run(
            """
            import os, pathlib
            import faiss, sqlite3, encodings.idna, xml  # what is imported late is imported as root
            from recallm_core.errors import CorpusIndexError
            path = pathlib.Path(sys.argv[1])
            warm = CorpusIndex.open(path, TINY)
            warm.add(["warm up"])
            warm.pack_report("warm up", 40, len)
            for each in [*path.rglob("*"), path]:
                each.chmod(0o555 if each.is_dir() else 0o444)
            if os.geteuid() == 0:
                os.setuid(65534)
            index = CorpusIndex.open(path, TINY)
            assert index.search("red stone", 5)[0].document_id == "long"
            assert index.pack_report("red stone", 40, len).passages
            index.add(["more"])
            try:
                index.save()
            except CorpusIndexError as error:
                assert "Permission denied" in str(error) and "untouched" in str(error), error
            else:
                raise SystemExit("it was saved")
            assert len(CorpusIndex.open(path, TINY).documents) == 4
            """,
            path,
        )


def test_metadata_that_json_would_change_is_refused_by_name(tmp_path):
    for value in ({1: "x"}, {"x": (1, 2)}, {"x": float("nan")}, {"x": object()}):
        built = CorpusIndex.build([Document("red", id="bad", metadata=value)], TINY)
        with pytest.raises(CorpusIndexError, match="metadata of document 'bad'"):
            built.save(tmp_path / "index")


def test_a_full_disk_leaves_the_old_index(saved):
    run(
        """
        import resource, signal
        from recallm_core.errors import CorpusIndexError
        path = sys.argv[1]
        index = CorpusIndex.open(path, TINY)
        texts = [f"number {n} " * 40 for n in range(500)]
        index.add(texts)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for limit in (0, 10, 200, 5000, 20000, 100000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                index.save()
            except CorpusIndexError as error:
                assert "can't be written" in str(error), error
            else:
                raise SystemExit(f"saved within {limit} bytes")
            assert len(CorpusIndex.open(path, TINY).documents) == 4
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        index.save()
        assert len(CorpusIndex.open(path, TINY).documents) == 504
        """,
        saved,
    )
    assert not list(saved.glob("building-*"))


KILLS = """
    import os, random, signal, time
    path, kills = sys.argv[1], int(sys.argv[2])
    chance = random.Random(5)
    known = len(CorpusIndex.open(path, TINY).documents)
    for kill in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                index = CorpusIndex.open(path, TINY)
                while True:
                    index.add([f"number {len(index.documents)} " * 20])
                    if len(index.documents) % 5 == 0:
                        index.delete(["long"] if "long" in index.documents else [])
                    index.save()
                    os.write(writing, bytes([len(index.documents) % 251]))
            finally:
                os._exit(3)
        os.close(writing)
        os.read(reading, 1)
        time.sleep(chance.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        seen = os.read(reading, 100000)
        os.close(reading)
        found = CorpusIndex.open(path, TINY)
        texts = {document.text for document in found.documents.values()}
        if seen:
            reached = len(found.documents) % 251
            assert reached in (seen[-1], (seen[-1] + 1) % 251, (seen[-1] - 1) % 251), seen[-1]
        assert found.search("number 7", 3)
    print(kills)
"""


def test_a_kill_in_mid_write_leaves_the_old_index_or_the_new_one(saved):
    assert run(KILLS, saved, 12).strip() == "12"


@pytest.mark.slow
def test_two_hundred_kills_corrupt_nothing(saved):
    assert run(KILLS, saved, 200).strip() == "200"


def test_two_processes_read_while_a_third_rewrites(saved):
    run(
        """
        import os, time
        path = sys.argv[1]
        deadline = time.monotonic() + 200
        def read():
            seen = set()
            while len(seen) < 5 and time.monotonic() < deadline:
                index = CorpusIndex.open(path, TINY)
                assert "long" in index.documents
                hits = index.search("red stone", 5)
                assert hits and all(
                    index.documents[h.document_id].text[h.start:h.end] == h.text for h in hits
                )
                seen.add(index.stats().generation)
            return len(seen) == 5
        readers = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    code = 0 if read() else 2
                except BaseException as error:
                    sys.stderr.write(repr(error))
                finally:
                    os._exit(code)
            readers.append(child)
        index = CorpusIndex.open(path, TINY)
        codes = {}
        number = 0
        while len(codes) < 2:
            index.add([Document(f"red number {number} " * 10, id=f"w{number % 7}")])
            index.save()
            number += 1
            ended, code = os.waitpid(-1, os.WNOHANG)
            if ended:
                codes[ended] = code
        assert list(codes.values()) == [0, 0], codes
        """,
        saved,
    )


def test_a_reader_keeps_its_generation_when_it_is_removed(saved):
    reader = CorpusIndex.open(saved, TINY)
    writer = CorpusIndex.open(saved, TINY)
    for n in range(4):
        writer.add([f"another {n}"])
        writer.save()
    assert not (saved / "generation-000001").exists()
    same(reader, CorpusIndex.build(sample(), TINY))


@pytest.mark.parametrize("error", [sqlite3.OperationalError, FileNotFoundError, PermissionError])
@pytest.mark.parametrize("overtaken", [True, False])
def test_a_reader_that_is_overtaken_while_it_opens_files_tries_again(
    saved, monkeypatch, error, overtaken
):
    writer = CorpusIndex.open(saved, TINY)
    load, failed = store._load_generation, []

    def removed(*arguments):
        if not failed:
            failed.append(True)
            if overtaken:
                writer.add(["another"])
                writer.save()
        elif overtaken:
            return load(*arguments)
        raise error("unable to open database file")

    monkeypatch.setattr(store, "_load_generation", removed)
    if overtaken:
        assert len(CorpusIndex.open(saved, TINY).documents) == len(writer.documents)
    else:
        with pytest.raises(CorpusIndexError):
            CorpusIndex.open(saved, TINY)


@pytest.mark.parametrize("kind", ["rows", "empty", "wide"])
def test_documents_in_memory_are_bounded_by_what_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Not by their characters: the places of a table's rows take more than the rows."""
    starts = tuple(range(0, 4000, 2))
    rows = SourceMap("a.csv", starts, places=tuple(f"row {n}" for n in range(len(starts))))
    made = {
        "rows": lambda n: Document("a\n" * 2000, f"d{n}", source_map=rows),
        "empty": lambda n: Document("", f"d{n}"),
        "wide": lambda n: Document("\U0001f642" * 20_000, f"d{n}"),
    }
    write_texts(tmp_path / "texts.db", [made[kind](n) for n in range(60)])
    monkeypatch.setattr(texts, "_CACHED_BYTES", 100_000)
    saved = texts.SavedTexts(tmp_path / "texts.db")
    tracemalloc.start()
    for position in range(60):
        assert saved[position].id == f"d{position}"
        saved[position].lines(0, len(saved[position].text))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 900_000  # the last one alone may be larger than the bound
