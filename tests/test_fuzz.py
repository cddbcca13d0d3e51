"""Random damage to whatever strangers may give: an error of ours that says where, or no harm."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recallm_core import CorpusIndex, Document, load_documents
from recallm_core.backends.vllm.manifest import Manifest
from recallm_core.backends.vllm.wire import read_event
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.errors import (
    CheckpointError,
    ConstraintError,
    CorpusIndexError,
    RecallmError,
    ServerError,
)
from recallm_core.prompting.recipe import Recipe
from recallm_core.testing import scripted_llm

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


def deep(size: int) -> Callable[..., Any]:
    """Quick by default; as long as it takes where it is asked for."""
    return settings(max_examples=size, deadline=None, suppress_health_check=list(HealthCheck))


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


SPEC = scripted_llm().prepare([{"role": "user", "content": "q"}], DOCUMENTS)[0].spec.to_json()


def spec_of(data: st.DataObject) -> None:
    text = damaged(data, json.loads(SPEC))
    with contextlib.suppress(ConstraintError):
        ConstraintSpec.from_json(text)


def event_of(data: st.DataObject) -> None:
    event = {
        "choices": [{"token_ids": [1, 2], "finish_reason": None, "prompt_token_ids": [3]}],
        "usage": {"prompt_tokens_details": {"cached_tokens": 1}},
        "error": {"code": 400, "message": "x"},
    }
    given_event = {k: v for k, v in event.items() if k != "error" or data.draw(st.booleans())}
    with contextlib.suppress(ServerError):
        read_event(damaged(data, given_event).encode(), vocab_size=10)


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


PARTS = {"spec": spec_of, "event": event_of, "offer": offer_of, "recipe": recipe_of}


@pytest.mark.parametrize("part", PARTS)
def test_damaged_json_is_an_error_of_ours(part: str) -> None:
    deep(60)(given(st.data())(PARTS[part]))()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", PARTS)
def test_damaged_json_is_an_error_of_ours_for_long(part: str) -> None:
    deep(20_000)(given(st.data())(PARTS[part]))()


# a saved index, whose checksums the attacker makes anew


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    CorpusIndex.build(DOCUMENTS, path=folder)
    return folder


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
        for found in [*index.search("library opens", 5), *index.search("東京", 5, mode="dense")]:
            assert texts[found.document_id][found.start : found.end] == found.text
        for passage in index.pack("library", token_budget=200):
            assert texts[passage.document_id][passage.start : passage.end] == passage.text
            document = index.documents[passage.document_id]
            document.lines(passage.start, passage.end)
            document.page_at(passage.start)
    except CorpusIndexError as error:
        assert str(folder) in str(error)  # noqa: PT017  (or nothing is raised)


COLUMNS = ("id", "automatic", "title", "metadata", "source", "characters", "text")


def tampered(data: st.DataObject, folder: Path) -> None:
    """One file of an index gets other bytes, or a row other values."""
    generation = next(folder.glob("generation-*"))
    path = data.draw(st.sampled_from(sorted(generation.iterdir())))
    if path.suffix == ".db" and data.draw(st.booleans()):
        column = data.draw(
            st.sampled_from(
                ["id", "automatic", "title", "metadata", "source", "characters", "text"]
            )
        )
        value = data.draw(
            st.one_of(
                st.none(),
                st.integers(-(2**63), 2**63 - 1),
                st.binary(max_size=9),
                st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
                st.sampled_from(['["f",[0,"x"],null,null]', "[[[", '{"a":NaN}', "[" * 5000, "5"]),
                st.sampled_from(['["f",[0],["x"],null]', '["f",[0],[1],[1,2]]', "[5,[0.5],[],{}]"]),
            )
        )
        with contextlib.suppress(sqlite3.IntegrityError), sqlite3.connect(path) as store:
            store.execute(f"UPDATE document SET {column} = ? WHERE position = 0", (value,))
        store.close()
    else:
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            if content:
                at = data.draw(st.integers(0, len(content) - 1))
                content[at] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(content)) | st.none())
        path.write_bytes(content if cut is None else content[:cut])
    if data.draw(st.booleans()) and path.name not in ("manifest.json", "manifest.sum"):
        sealed(generation)


def tamper_and_use(saved: Path) -> Callable[[st.DataObject], None]:
    def run(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "index"
            shutil.copytree(saved, folder)
            tampered(data, folder)
            used(folder)

    return run


def test_a_tampered_index_is_an_error_that_names_it_or_harmless(saved: Path) -> None:
    deep(40)(given(st.data())(tamper_and_use(saved)))()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_tampered_index_is_an_error_that_names_it_for_long(saved: Path) -> None:
    deep(5_000)(given(st.data())(tamper_and_use(saved)))()


@pytest.mark.parametrize("place", range(6, 128, 3))
def test_a_header_of_an_array_may_hold_anything(saved: Path, tmp_path: Path, place: int) -> None:
    shutil.copytree(saved, tmp_path / "index")
    generation = next((tmp_path / "index").glob("generation-*"))
    path = next(generation.glob("*-chunk_start.npy"))
    whole = path.read_bytes()
    for byte in b"(\x01'{\n\\\xff9":
        path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        sealed(generation)
        used(tmp_path / "index")


# files of any kind

NAMES = ["a.txt", "a.md", "a.rst", "a.html", "a.pdf", "a.jsonl"]
PIECES = st.sampled_from(
    [b"%PDF-1.7\n", b"<p>", b"<!--", b"&#" + b"9" * 50 + b";", b'{"text": "x"}\n', b"\xff\xfe",
     b"\x00", b"stream\n", b"xref\n", b"{[", b"\xef\xbb\xbf", b"<meta charset=utf-7>", b"\r"]
)  # fmt: skip


def load_anything(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / name).write_bytes(content)
        loaded = load_documents(place)
        for document in loaded:
            document.lines(0, len(document.text))
            document.page_at(len(document.text))
        try:
            index = CorpusIndex.build(loaded)
            assert index.stats().documents == len({d.id for d in loaded})
        except RecallmError:
            pass


CONTENT = st.lists(PIECES | st.binary(max_size=30), max_size=12).map(b"".join)


@given(name=st.sampled_from(NAMES), content=CONTENT)
@deep(60)
def test_any_file_is_read_or_reported(name: str, content: bytes) -> None:
    load_anything(name, content)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(name=st.sampled_from(NAMES), content=CONTENT)
@deep(10_000)
def test_any_file_is_read_or_reported_for_long(name: str, content: bytes) -> None:
    load_anything(name, content)
