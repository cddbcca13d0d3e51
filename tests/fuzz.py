"""Random damage to whatever strangers may give; ``python -m tests.fuzz --minutes 60`` runs it long.

Each target draws an input and uses it as a caller would. Whatever it is, there is an error of ours
that says where, or no harm: no other exception, no slice that isn't the document's, no hang.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from recallm_core import CorpusIndex, Document, check_quotes, load_documents
from recallm_core.backends.vllm.manifest import Manifest
from recallm_core.backends.vllm.wire import read_event
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.documents.chunking import chunk
from recallm_core.documents.html_page import extract_html
from recallm_core.errors import (
    CheckpointError,
    ConstraintError,
    CorpusIndexError,
    RecallmError,
    ServerError,
    TokenizerError,
)
from recallm_core.evidence.reader_windows import cut
from recallm_core.inputs.gguf_header import read_header
from recallm_core.inputs.model_files import whole_tokenizer
from recallm_core.prompting.recipe import Recipe
from recallm_core.rendering import to_html, to_html_fragment, to_json, to_markdown
from recallm_core.testing import scripted_llm
from recallm_core.text.lexical import units
from recallm_core.tokenization.gguf_vocabulary import tokenizer_of
from tests.tiny_gguf import byte_level, of_pieces
from tests.tiny_gguf import write as write_gguf

SECONDS = 20.0  # of processor time that one small input may take, on a busy machine

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, -(2**63), 10**400, float("nan"), float("inf")]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["\ud800", "\x00", "9" * 100, "<|eos|>", "{", "[["]),
)
JSON = st.recursive(
    ODD,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
TEXTS = ["The library opens at nine. " * 20, "<h1>T</h1>é 東京 🙂 12:30", ""]
DOCUMENTS = [Document(text, f"d{n}", f"T{n}", {"n": n}) for n, text in enumerate(TEXTS)]

Target = Callable[[st.DataObject], None]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value[:20]) if isinstance(value, list) else items
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A JSON value with one part replaced."""
    if not path:
        return new
    out: Any = dict(value) if isinstance(value, dict) else list(value)
    out[path[0]] = changed(value[path[0]], path[1:], new)
    return out


def damaged(data: st.DataObject, value: Any) -> str:
    """JSON text of a value of which some parts are something else."""
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(value))))
        value = changed(value, path, data.draw(JSON))
    return json.dumps(value)


def scrambled(data: st.DataObject, content: bytes, tokens: Sequence[bytes]) -> bytes:
    """Some bytes replaced, put in, taken out or doubled."""
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        end = min(len(content), at + data.draw(st.sampled_from([0, 0, 1, 2, 8, 40, 400])))
        times = data.draw(st.sampled_from([1, 1, 1, 2, 50, 3000]))
        new = data.draw(st.sampled_from(tokens) | st.binary(max_size=8) | st.just(content[at:end]))
        content = content[:at] + new * times + content[end:]
    return content


# what a server, a client, a recipe say


@cache
def spec_text() -> str:
    return scripted_llm().prepare([{"role": "user", "content": "q"}], DOCUMENTS)[0].spec.to_json()


def spec_of(data: st.DataObject) -> None:
    if data.draw(st.integers(0, 3)):
        text = damaged(data, json.loads(spec_text()))
    else:
        text = scrambled(data, spec_text().encode(), JSON_TOKENS).decode("latin-1")
    with contextlib.suppress(ConstraintError):
        spec = ConstraintSpec.from_json(text)
        ConstraintSpec.from_json(spec.to_json())


def event_of(data: st.DataObject) -> None:
    event = {
        "choices": [{"token_ids": [1, 2], "finish_reason": None, "prompt_token_ids": [3]}],
        "usage": {"prompt_tokens_details": {"cached_tokens": 1}},
        "error": {"code": 400, "message": "x"},
    }
    some = {k: v for k, v in event.items() if k != "error" or data.draw(st.booleans())}
    if data.draw(st.integers(0, 3)):
        content = damaged(data, some).encode()
    else:
        content = scrambled(data, json.dumps(some).encode(), JSON_TOKENS)
    with contextlib.suppress(ServerError):
        read_event(content, vocab_size=10)


def offer_of(data: st.DataObject) -> None:
    offer = {
        "version": 1,
        "spec_version": 1,
        "model": "m",
        "model_type": "qwen2",
        "engine": "e",
        "runner": "r",
        "release": "1",
        "window": 5,
        "vocab_size": 5,
        "eos_ids": [1],
        "files": {"tokenizer.json": {"size": 1, "sha256": "0" * 64}},
        "fingerprint": "x",
    }
    with contextlib.suppress(ServerError):
        Manifest.from_json(damaged(data, offer).encode())


def recipe_of(data: st.DataObject) -> None:
    recipe = {"version": 1, "mode": "trained", "open": "<a>", "sampling": {"top_p": 0.5}}
    with contextlib.suppress(CheckpointError):
        Recipe.from_dict(json.loads(damaged(data, {**recipe, "abstain": ["no"]})))


# a saved index, whose checksums the attacker makes anew


GGUF_TOKENS = [
    n.to_bytes(size, "little") for n in (0, 1, 8, 9, 2**31, 2**32 - 1) for size in (4, 8)
]


@cache
def gguf_files() -> tuple[tuple[bytes, int], ...]:
    """Small GGUF files of both kinds of vocabulary, and how long their headers are."""
    files_written = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, vocabulary in (("qwen2", byte_level()), ("gemma3", of_pieces())):
            path = write_gguf(Path(folder, f"{kind}.gguf"), kind, vocabulary=vocabulary)
            weights = sum(tensor.size for tensor in read_header(path).tensors.values())
            files_written.append((path.read_bytes(), path.stat().st_size - weights))
    return tuple(files_written)


def gguf_of(data: st.DataObject) -> None:
    content, header_size = data.draw(st.sampled_from(gguf_files()))
    rng = data.draw(st.randoms())
    for _ in range(rng.randint(0, 3)):  # in place, so that what stands behind is read as well
        at, new = rng.randrange(header_size), rng.choice(GGUF_TOKENS)[: rng.choice((1, 4, 8))]
        content = content[:at] + new + content[at + len(new) :]
    if not rng.randrange(4):
        damage = scrambled(data, content[:header_size], GGUF_TOKENS)
        content = damage + content[header_size:]
    content = content if rng.randrange(8) else content[: rng.randrange(len(content))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError, TokenizerError):
            header = read_header(path)
            assert sum(tensor.size for tensor in header.tensors.values()) < header.size
            tokenizer = tokenizer_of(header, controls=(), ends=(), begins=True)
            for text in ("the 189, <|im_end|> é日", data.draw(st.text(max_size=20))):
                encoded = tokenizer.encode_plain(text)
                assert tokenizer.control_ids.isdisjoint(encoded.ids.tolist())


@cache
def saved_index() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="recallm-fuzz-"))
    CorpusIndex.build(DOCUMENTS, path=folder / "index")
    return folder / "index"


def sealed(generation: Path) -> None:
    """Makes the checksums fit what the files hold."""
    path = generation / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for name in manifest["files"]:
        content = (generation / name).read_bytes()
        digest = hashlib.blake2b(content, digest_size=32).hexdigest()
        manifest["files"][name] = [len(content), digest]
    content = json.dumps(manifest).encode()
    path.write_bytes(content)
    seal = hashlib.blake2b(content, digest_size=32).hexdigest()
    (generation / "manifest.sum").write_text(seal)


def used(folder: Path) -> None:
    """Opens an index and does everything with it; only errors of ours may come."""
    try:
        index = CorpusIndex.open(folder)
        texts = {document_id: index.documents[document_id].text for document_id in index.documents}
        hits = [*index.search("library opens", 5), *index.search("東京", 5, mode="dense")]
        for hit in hits:
            assert texts[hit.document_id][hit.start : hit.end] == hit.text
        for passage in index.pack("library", token_budget=200):
            assert texts[passage.document_id][passage.start : passage.end] == passage.text
            document = index.documents[passage.document_id]
            document.lines(passage.start, passage.end)
            document.page_at(passage.start)
    except CorpusIndexError as error:
        assert str(folder) in str(error)  # noqa: PT017  (or nothing is raised)


COLUMNS = ["id", "automatic", "title", "metadata", "source", "characters", "text"]
CELLS = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=9),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    st.sampled_from(['["f",[0,"x"],null,null]', "[[[", '{"a":NaN}', "[" * 5000, "5"]),
    st.sampled_from(['["f",[0],["x"],null]', '["f",[0],[1],[1,2]]', "[5,[0.5],[],{}]"]),
)


def tampered(data: st.DataObject, folder: Path) -> None:
    """One file of an index gets other bytes, or a row other values."""
    generation = next(folder.glob("generation-*"))
    path = data.draw(st.sampled_from(sorted(generation.iterdir())))
    if path.suffix == ".db" and data.draw(st.booleans()):
        column, value = data.draw(st.sampled_from(COLUMNS)), data.draw(CELLS)
        with contextlib.suppress(sqlite3.IntegrityError), sqlite3.connect(path) as store:
            store.execute(f"UPDATE document SET {column} = ? WHERE position = 0", (value,))
        store.close()
    else:
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            if content:
                at = data.draw(st.integers(0, len(content) - 1))
                content[at] = data.draw(st.integers(0, 255))
        cut_at = data.draw(st.integers(0, len(content)) | st.none())
        path.write_bytes(content if cut_at is None else content[:cut_at])
    if data.draw(st.booleans()) and path.name not in ("manifest.json", "manifest.sum"):
        sealed(generation)


def index_of(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        shutil.copytree(saved_index(), folder)
        tampered(data, folder)
        used(folder)


# files of any kind

JSON_TOKENS = [
    b"{",
    b"[",
    b'"',
    b"\\ud800",
    b"9" * 40,
    b"1e999",
    b"NaN",
    b":",
    b",",
    b"null",
    b'"":',
]
XML_TOKENS = [
    b"<", b">", b"/>", b"</", b'="', b"&#0;", b"&amp;", b"&#55296;", b"<!DOCTYPE a>", b"<w:p>",
    b"<w:tbl>", b"<w:sdt><w:sdtContent>", b"<w:t>x</w:t>", b"<a:p>", b"<row r='99999999'>",
    b"</w:p>",
    b"<c r='ZZZ9'/>", b"<dimension ref='A1:XFD1048576'/>", b"<?x ?>", b"-1", b"1e5", b"\xff", b"..",
]  # fmt: skip
TOKENS = {
    ".txt": [b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\xff", "é".encode(), b"\xed\xa0\x80"],
    ".html": [
        b"<p>", b"<div hidden>", b"<!--", b"-->", b"<script>", b"&#", b"9" * 50 + b";", b"<pre>",
        b"<details>", b"<summary>", b"</details>", b"<dialog>", b"<template>", b"</", b"<b a='",
        b"<meta charset=utf-7>", b"<meta charset=undefined>", b"<meta charset=unicode_escape>",
        b"\xff", b"\\ud800", b"<title>", b"<table><tr><td>", b"<style>", b"style='display:none'",
    ],
    ".pdf": [b"%PDF-1.7\n", b"stream\n", b"endstream", b"xref\n", b"obj", b"<<", b">>", b"/Kids"],
    ".eml": [
        b"\n\n", b"MIME-Version: 1.0\n", b"Content-Type: multipart/mixed; boundary=b\n", b"--b\n",
        b"Content-Transfer-Encoding: base64\n", b"Content-Type: text/plain; charset=undefined\n",
        b"From: ", b"(", b'"', b",", b"<", b"=?utf-8?q?=FF?=", b"=?x?b?a?=", b"Subject: ", b";",
        b"*0=",
        b"Content-Type: message/rfc822\n", b"filename*=utf-8''%FF", b"\xff",
    ],
    ".rtf": [b"{", b"}", b"\\u55296 ", b"\\'ff", b"\\bin999", b"\\ansicpg0", b"\\par", b"\\ud",
             b"{\\*\\", b"\\fonttbl", b"-"],
    ".csv": [b'"', b",", b"\n", b"\r", b"\x00", b";", b"\t"],
    ".json": JSON_TOKENS,
    ".jsonl": [*JSON_TOKENS, b'{"text": "x", "id": ', b"\n", b'"metadata": '],
    ".ipynb": [*JSON_TOKENS, b'"cells"', b'"outputs"', b'"source"'],
}  # fmt: skip
PACKED = (".docx", ".pptx", ".xlsx", ".epub")
PAGE = (
    b"<!DOCTYPE html><title>T</title><h1>Fees</h1><p>The fee is <b>two</b> euros.<details>"
    b"<summary>More</summary>Closed</details><ul><li>a<li hidden>b</ul><pre>x\n y</pre>"
)


@cache
def files() -> dict[str, bytes]:
    """A good file of each kind."""
    kinds = importlib.import_module("tests.documents.kinds.test_kinds").FILES
    made = {f".{name.rpartition('.')[2]}": content for name, content in kinds.items()}
    plain = b"# Title\n\nThe fee is two hundred euros.\n\n> quoted\n> lines\n"
    lines = b'{"text": "a b", "id": "x", "metadata": {"n": 1}}\n{"text": "c"}\n'
    pdf = importlib.import_module("tests.pdf_files").pdf_file(["The fee is due."])
    return made | {".html": PAGE, ".txt": plain, ".md": plain, ".jsonl": lines, ".pdf": pdf}


def repacked(data: st.DataObject, content: bytes) -> bytes:
    """A zip file of which one member is damaged."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(out, "w") as archive:
        names = [n for n in whole.namelist() if n.endswith(("ml", ".rels", ".opf"))]
        one = data.draw(st.sampled_from(names))
        for name in whole.namelist():
            member = whole.read(name)
            archive.writestr(name, scrambled(data, member, XML_TOKENS) if name == one else member)
    return out.getvalue()


def file_of(data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(sorted(files())))
    content = files()[suffix]
    if suffix in PACKED and data.draw(st.integers(0, 4)):
        content = repacked(data, content)
    else:
        content = scrambled(data, content, TOKENS.get(suffix, TOKENS[".txt"]))
    read_file(f"a{data.draw(st.sampled_from([suffix, suffix, suffix, '.txt', '.html']))}", content)


def read_file(name: str, content: bytes) -> None:
    """Loads a file and uses what comes of it."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / name).write_bytes(content)
        loaded = load_documents(place, max_bytes=5_000_000)
    for document in loaded:
        document.text.encode()
        text = document.text[:20_000]
        for at in (0, len(text) // 2, len(document.text)):
            document.line_at(at)
            document.page_at(at)
            (document.place_at(at) or "").encode()
        document.lines(0, len(document.text))
        check_text(Document(text, document.id, document.title))
    for report in (*loaded.skipped, *loaded.notes):
        repr(report).encode()


CONTENT = st.lists(
    st.sampled_from([token for tokens in TOKENS.values() for token in tokens])
    | st.binary(max_size=30),
    max_size=12,
).map(b"".join)


def bytes_of(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(files())))
    content = data.draw(CONTENT)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / f"a{name}").write_bytes(content)
        loaded = load_documents(place)
        for document in loaded:
            document.lines(0, len(document.text))
            document.page_at(len(document.text))
        with contextlib.suppress(RecallmError):
            index = CorpusIndex.build(loaded)
            assert index.stats().documents == len({d.id for d in loaded})


# texts

LINES = st.sampled_from(
    [
        "", "> ", "> quoted words go on", "# Head", "// note", " * star", "1", "- item", "a,b,c",
        "00:00:01,000 --> 00:00:04,000", "The fee is due in March.", "東京。大阪", "% of it",
        "x = 1;",
        "/**", " */", "| a | b |", "    indented", "\t", "Dr. Who et al. (see Fig. 3. so) left.",
        "well-\nknown", "ﬁne\xad", "\u200b", "e\u0301", "👨‍👩‍👧", "1,5 \u202e", "12. Mai",
        "“He said.”",
        "--", "; ", "(" * 30, "." * 30, "a.b." * 10, "\x85", "\u2028", "\x0b", "\r", "\x00",
        "ﷺ", "ß",
    ]
)  # fmt: skip
TEXT = st.lists(LINES | st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=14)
JOINTS = st.sampled_from(["\n", "\n", "\r\n", " ", "\n> ", "\n\n"])


@cache
def reader_tokenizer() -> Any:
    from recallm_core.evidence.reader import BUILT_IN

    return whole_tokenizer(BUILT_IN / "tokenizer.json")


def check_text(document: Document) -> None:
    """Sentences, chunks and windows hold all of a text, and are slices of it."""
    text = document.text
    last = 0
    found = units(text)
    for (start, end), begin in zip(found.spans, found.begins, strict=True):
        assert last <= start <= begin < end <= len(text)
        assert text[last:start].isspace() or last == start
        last = end
    assert not text[last:].strip()
    for piece in chunk(document, max_tokens=30):
        assert text[piece.start : piece.end] == piece.text
    for window in cut(text, 0, reader_tokenizer(), limit=20):
        assert (window.starts <= window.ends).all()
        assert window.starts[0] >= 0
        assert window.ends[-1] <= len(text)


def text_of(data: st.DataObject) -> None:
    check_text(Document(data.draw(JOINTS).join(data.draw(TEXT)), "d"))


def quotes_of(data: st.DataObject) -> None:
    documents = [Document(data.draw(JOINTS).join(data.draw(TEXT)), f"d{n}") for n in range(2)]
    lines = [line for document in documents for line in document.text.split("\n")] or [""]
    wrapped = st.sampled_from(
        ['"{}"', "“{}” [1]", "> {}", "{}", '"{} ... {}"', "<quote>{}</quote>"]
    )
    said = [data.draw(wrapped).replace("{}", data.draw(st.sampled_from(lines))) for _ in range(3)]
    report = check_quotes(" ".join(said), documents, repair=data.draw(st.booleans()))
    texts = {document.id: document.text for document in documents}
    for quote in report.quotes:
        if quote.citation is not None:
            part = quote.citation
            assert texts[part.document_id][part.start : part.end] == part.text
    to_markdown(report.answer)


def html_of(data: st.DataObject) -> None:
    soup = b"".join(data.draw(st.lists(st.sampled_from(TOKENS[".html"]), max_size=30)))
    source = soup.decode("latin-1") + data.draw(st.text(max_size=20))
    for keep_hidden in (False, True):
        page = extract_html(source, "a.html", keep_hidden=keep_hidden)
        starts = list(page.source_map.starts)
        assert starts == sorted(set(starts))
        assert all(0 <= start <= len(page.text) for start in starts)
        lines = source.count("\n") + source.count("\r") + 1
        assert page.source_map.lines is None or max(page.source_map.lines) <= lines


def rendering_of(data: st.DataObject) -> None:
    answer = data.draw(importlib.import_module("tests.rendering.conftest").answers())
    page = importlib.import_module("tests.rendering.test_html")
    page.read(to_html(answer).removeprefix("<!doctype html>\n"))
    page.read(to_html_fragment(answer))
    importlib.import_module("tests.rendering.test_markdown").check_answer(answer)
    json.loads(to_json(answer.to_dict()))


TARGETS: dict[str, Target] = {
    "constraint specs": spec_of,
    "events of a server": event_of,
    "offers of a server": offer_of,
    "recipes": recipe_of,
    "headers of GGUF files": gguf_of,
    "index files": index_of,
    "files of every kind, damaged": file_of,
    "bytes under any name": bytes_of,
    "HTML pages": html_of,
    "texts": text_of,
    "quotes": quotes_of,
    "rendering": rendering_of,
}


def within_time(target: Target) -> Target:
    """The target, which fails where an input takes too long."""

    def run(data: st.DataObject) -> None:
        began = time.process_time()
        target(data)
        taken = time.process_time() - began
        assert taken < SECONDS, f"one small input took {taken:.0f} s"

    return run


def fuzz(name: str, examples: int, *, number: int | None = None) -> None:
    """Runs a target; other inputs for each number, ever new ones without."""
    once = given(st.data())(within_time(TARGETS[name]))
    long = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    (long(once) if number is None else seed(number)(long(once)))()


def main() -> int:
    """Runs all targets in turn for some minutes; prints the faults, then what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--only", choices=sorted(TARGETS))
    parser.add_argument("--examples", type=int, default=200, help="of a target before the next")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(TARGETS)
    began, runs, faults = time.monotonic(), Counter[str](), Counter[str]()
    numbers = random.Random()
    while time.monotonic() - began < 60 * arguments.minutes:
        for name in names:
            try:
                fuzz(name, arguments.examples, number=numbers.getrandbits(64))
            except Exception:  # whatever it is, it is what was looked for
                faults[name] += 1
                sys.stdout.write(f"--- {name}\n{traceback.format_exc(limit=-6)}\n")
            runs[name] += arguments.examples
            sys.stdout.flush()
        minutes = (time.monotonic() - began) / 60
        sys.stdout.write(f"{minutes:.1f} min, {runs.total():,} runs, {faults.total()} faults\n")
    for name in names:
        sys.stdout.write(f"{name}: {runs[name]:,} runs, {faults[name]} faults\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
