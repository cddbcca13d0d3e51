"""Texts to unit vectors: the embedder that ships with the library, others, and a cache."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recallm_core.documents.document import check_text
from recallm_core.errors import CheckpointError, MissingExtraError
from recallm_core.inputs.arguments import shown, whole_number
from recallm_core.inputs.extras import needs

Floats = npt.NDArray[np.float32]

_BUILT_IN = Path(__file__).parent.parent / "models" / "static-embedder"
_MAX_FILE = 1 << 28  # bytes of any file of a static embedder
_MAX_CHARACTERS = 1 << 16  # of a text that count for its vector
_BATCH_CHARACTERS = 1 << 17  # tokenized and summed at a time: about 35 MB of rows


class Embedder(Protocol):
    """What an index needs to compare texts by meaning."""

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors do; an index refuses another embedder than its own."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Returns one unit vector per text, ``[len(texts), dim]``; zeros for a text without any."""
        ...

    def encode_query(self, text: str) -> Floats:
        """Returns the unit vector of a question, ``[dim]``."""
        ...


class StaticEmbedder:
    """A vector per word piece, summed: no network, no download, a hundred texts a millisecond.

    Args:
        folder: A folder written by ``recallm_core.train.static_embedder``; None: the one shipped.

    Raises:
        CheckpointError: The folder is incomplete or its arrays have other shapes or types.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        from recallm_core.inputs.model_files import whole_tokenizer

        self._folder = _BUILT_IN if folder is None else Path(folder)
        weights, tokenizer = (self._file(name) for name in ("model.safetensors", "tokenizer.json"))
        self._tokenizer = whole_tokenizer(tokenizer)
        self._rows = _rows(weights, self._tokenizer.get_vocab_size())

    def _file(self, name: str) -> Path:
        from recallm_core.inputs.model_files import usable_file

        remedy = "train a table with python -m recallm_core.train.static_embedder"
        return usable_file(self._folder, name, limit=_MAX_FILE, owner="the embedder", remedy=remedy)

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return int(self._rows.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the table and of its tokenizer."""
        digest = hashlib.blake2b(digest_size=8)
        for name in ("model.safetensors", "tokenizer.json"):
            digest.update(hashlib.blake2b((self._folder / name).read_bytes()).digest())
        return f"static-{self.dim}-{digest.hexdigest()}"

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Returns one unit vector per text; zeros for a text without any known piece."""
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for first, batch in _batches(texts):
            vectors[first : first + len(batch)] = self._sums(batch)
        return unit(vectors)

    def encode_query(self, text: str) -> Floats:
        """Returns the unit vector of a question."""
        check_text(text, "a question")
        vector: Floats = self.encode_documents([text])[0]
        return vector

    def _sums(self, texts: Sequence[str]) -> Floats:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        sums = np.zeros((len(texts), self.dim), np.float32)
        for n, encoding in enumerate(encoded):
            # One sum per text is ten times as fast as np.add.reduceat over all rows.
            sums[n] = self._rows.take(encoding.ids, axis=0).sum(axis=0)
        return sums


@lru_cache(maxsize=1)
def default_embedder() -> StaticEmbedder:
    """Returns the embedder that ships with the library, loaded once."""
    return StaticEmbedder()


def _rows(path: Path, pieces: int) -> Floats:
    """Reads an int8 table with one scale per row; shapes are checked before anything is read."""
    with needs("index", "the embedder that ships"):
        from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as tensors:
            shapes = {
                key: (tensors.get_slice(key).get_dtype(), tensors.get_slice(key).get_shape())
                for key in tensors.keys()  # noqa: SIM118  (not a mapping)
            }
            table, scale = shapes.get("rows", ("", [])), shapes.get("scales", ("", []))
            fits = table[0] == "I8" and len(table[1]) == 2 and scale == ("F32", [pieces])
            if not fits or table[1][0] != pieces:
                raise CheckpointError(
                    f"{path} should hold int8 rows [{pieces}, dim] and float32 scales [{pieces}], "
                    f"but has {shapes}"
                )
            rows: Floats = tensors.get_tensor("rows").astype(np.float32)
            rows *= tensors.get_tensor("scales")[:, None]
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from error
    return rows


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    batch: list[str] = []
    first = size = 0
    for n, text in enumerate(texts):
        part = text[:_MAX_CHARACTERS]
        if batch and size + len(part) > _BATCH_CHARACTERS:
            yield first, batch
            first, batch, size = n, [], 0
        batch.append(part)
        size += len(part)
    if batch:
        yield first, batch


def unit(vectors: Floats) -> Floats:
    """Scales each row to length 1, in place, however long it is; rows of zeros stay."""
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    extreme = np.flatnonzero(~((lengths > 1e-15) & (lengths < 1e15)))
    if len(extreme):  # the squares leave the range of float32
        rows = vectors[extreme].astype(np.float64)
        exact = np.linalg.norm(rows, axis=1, keepdims=True)
        vectors[extreme] = rows / np.where(exact > 0, exact, 1.0)
        lengths[extreme] = 1.0
    vectors /= lengths
    return vectors


class FunctionEmbedder:
    """Any function from texts to vectors, for instance a LangChain or LlamaIndex embedding.

    Args:
        encode: Texts to vectors.
        name: Says which model this is; part of the fingerprint, so name its version too.
        query: A question to its vector; None: as a text.
        batch_size: Texts per call.
    """

    def __init__(
        self,
        encode: Callable[[list[str]], Sequence[Sequence[float]] | Floats],
        *,
        name: str,
        query: Callable[[str], Sequence[float] | Floats] | None = None,
        batch_size: int = 64,
    ) -> None:
        batch_size = whole_number("batch_size", batch_size, 1)
        if not callable(encode) or not (query is None or callable(query)):
            raise ValueError("encode and query must be functions from texts to vectors")
        self._encode, self._query, self._name = encode, query, name
        self._batch_size = batch_size

    @cached_property
    def dim(self) -> int:
        """Numbers in a vector, found by encoding a word."""
        return int(self._vectors(["dimension"]).shape[1])

    @property
    def fingerprint(self) -> str:
        """The name that was given, and the dimension."""
        return f"function-{self.dim}-{self._name}"

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Returns one unit vector per text."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        steps = range(0, len(texts), self._batch_size)
        parts = [self._vectors(list(texts[at : at + self._batch_size])) for at in steps]
        return unit(np.concatenate(parts))

    def encode_query(self, text: str) -> Floats:
        """Returns the unit vector of a question."""
        check_text(text, "a question")
        if self._query is None:
            vector: Floats = self.encode_documents([text])[0]
            return vector
        answer = self._array(self._query(text))
        checked: Floats = self._check(answer.reshape(1, -1), 1)[0]
        return checked

    def _vectors(self, texts: list[str]) -> Floats:
        return self._check(self._array(self._encode(texts)), len(texts))

    def _array(self, vectors: Any) -> Floats:
        try:
            return np.array(vectors, np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"the embedding function {self._name!r} should return vectors of finite numbers, "
                f"but returned {shown(vectors)}"
            ) from error

    def _check(self, vectors: Floats, expected: int) -> Floats:
        if vectors.ndim != 2 or len(vectors) != expected or not np.isfinite(vectors).all():
            raise ValueError(
                f"the embedding function {self._name!r} should return {expected} vectors of finite "
                f"numbers, but returned an array of shape {vectors.shape}"
            )
        return unit(vectors)


class GivenVectors:
    """Takes an embedder's place in an index whose vectors are made elsewhere.

    Args:
        dim: Numbers in a vector.
    """

    fingerprint = "given"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Always raises: nothing here makes vectors."""
        raise ValueError(
            "this index is told its vectors: use add_vectors and search_vector, or search with "
            "mode='lexical'"
        )

    def encode_query(self, text: str) -> Floats:
        """Always raises: nothing here makes vectors."""
        return self.encode_documents([text])


def sentence_transformer(name: str, *, device: str = "cpu", batch_size: int = 32) -> Embedder:
    """Returns a ``sentence-transformers`` model as an embedder; safetensors only, no remote code.

    Args:
        name: A name on the hub or a local folder.
        device: As in torch.
        batch_size: Texts per call.

    Raises:
        MissingExtraError: ``sentence-transformers`` isn't installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        if error.name != "sentence_transformers":
            raise
        raise MissingExtraError(
            f"the embedder {name!r} needs: pip install sentence-transformers"
        ) from error
    model: Any = SentenceTransformer(
        name,
        device=device,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True},
    )
    documents = getattr(model, "encode_document", model.encode)
    query = getattr(model, "encode_query", model.encode)
    return FunctionEmbedder(
        lambda texts: documents(texts, show_progress_bar=False),
        query=lambda text: query(text, show_progress_bar=False),
        name=f"sentence-transformers:{name}",
        batch_size=batch_size,
    )


def as_embedder(embedder: Embedder | str | None) -> Embedder:
    """Returns the embedder that is meant: None or ``static`` is the one that ships, others names.

    Raises:
        MissingExtraError: The name needs ``sentence-transformers``, which isn't installed.
        ValueError: It is no embedder.
    """
    if embedder is None or embedder == "static":
        return default_embedder()
    if isinstance(embedder, str):
        return sentence_transformer(embedder)
    lacks = [name for name in _EMBEDS if not hasattr(type(embedder), name)]
    if lacks and not all(hasattr(embedder, name) for name in _EMBEDS):
        raise ValueError(
            f"an embedder must have {', '.join(_EMBEDS)}, or be the name of a model of "
            f"sentence-transformers, got {shown(embedder)}; wrap a function in FunctionEmbedder"
        )
    return embedder


_EMBEDS = ("dim", "fingerprint", "encode_documents", "encode_query")


class CachedEmbedder:
    """An embedder that pays for each text once: vectors are kept in a file, by content.

    Args:
        embedder: Who makes the vectors that aren't known yet.
        path: An SQLite file, made if it isn't there; several processes may share it.
    """

    def __init__(self, embedder: Embedder, path: str | Path) -> None:
        self._embedder = embedder
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as store:
            store.execute("CREATE TABLE IF NOT EXISTS vector (key BLOB PRIMARY KEY, value BLOB)")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=60.0)) as store, store:
            yield store

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._embedder.dim

    @property
    def fingerprint(self) -> str:
        """The one of the embedder behind the cache."""
        return self._embedder.fingerprint

    def encode_query(self, text: str) -> Floats:
        """Returns the unit vector of a question; questions aren't cached."""
        return self._embedder.encode_query(text)

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Returns one unit vector per text; only texts never seen before are encoded."""
        keys = [self._key(text) for text in texts]
        known = self._cached_vectors(set(keys))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            vectors = self._embedder.encode_documents(list(missing.values()))
            fresh = dict(zip(missing, vectors, strict=True))
            with self._open() as store:
                rows = [(key, vector.tobytes()) for key, vector in fresh.items()]
                store.executemany("INSERT OR REPLACE INTO vector VALUES (?, ?)", rows)
            known.update(fresh)
        if not keys:
            return np.zeros((0, self.dim), np.float32)
        return np.stack([known[key] for key in keys])

    def _key(self, text: str) -> bytes:
        salted = f"{self.fingerprint}\0{text}".encode()
        return hashlib.blake2b(salted, digest_size=20).digest()

    def _cached_vectors(self, keys: Iterable[bytes]) -> dict[bytes, Floats]:
        vectors: dict[bytes, Floats] = {}
        ordered = sorted(keys)
        with self._open() as store:
            for at in range(0, len(ordered), 500):
                part = ordered[at : at + 500]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value FROM vector WHERE key IN ({marks})"
                for key, value in store.execute(query, part):
                    vector = np.frombuffer(value, np.float32)
                    if vector.shape == (self.dim,):
                        vectors[key] = vector
        return vectors
