"""Nodes as the model reads them, and where their quotes stand in the original documents.

LlamaIndex's offsets are often wrong (chained parsers, repeated sentences, texts replaced by
postprocessors), so none is trusted: each is checked by slicing, or found again, or left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore
from llama_index.core.storage.docstore.types import BaseDocumentStore

import recallm_core as recallm
from recallm_core.adapting import check_text, is_at, nearest, occurrences

MEMBERS = "recallm_members"
"""Metadata key under which a packed node says which retrieved nodes it was merged from."""

_NUMBERED = re.compile(r"\ASource \d+:\n")
_TITLES = ("title", "file_name", "source", "url", "file_path")

Loader = Callable[[str], str | None]


class Originals:
    """The original texts by document id, from wherever the caller has them.

    Args:
        source: LlamaIndex or core documents, a mapping from ids to texts or documents, a docstore,
            an object with such a mapping as ``documents`` (a ``CorpusIndex``), or a function from
            an id to a text (None where it is unknown).
    """

    def __init__(self, source: Any = None) -> None:
        self._load = _loader(source)

    def text(self, document_id: str | None) -> str | None:
        """Returns a document's text; None where it isn't known."""
        if document_id is None or self._load is None:
            return None
        original = self._load(document_id)
        if original is not None and not isinstance(original, str):
            raise TypeError(
                f"the loader of original texts returned {type(original).__name__} for "
                f"{document_id!r}, expected str or None"
            )
        return original


def _loader(source: Any) -> Loader | None:
    if source is None:
        return None
    if isinstance(source, BaseDocumentStore):
        return lambda key: _text_of(source.get_document(key, raise_error=False))
    if isinstance(source, Mapping):
        return lambda key: _text_of(source[key]) if key in source else None
    documents = getattr(source, "documents", None)
    if isinstance(documents, Mapping) or hasattr(source, "pack_report"):
        return lambda key: _text_of(source.documents[key]) if key in source.documents else None
    if isinstance(source, Iterable) and not isinstance(source, str | bytes):
        known = {_id_of(document): document for document in source}
        return lambda key: _text_of(known[key]) if key in known else None
    if callable(source):
        loader: Loader = source
        return loader
    raise TypeError(
        "documents must be documents, a mapping, a docstore or a function from an id to a text, "
        f"got {type(source).__name__}"
    )


def _id_of(document: Any) -> str:
    if isinstance(document, recallm.Document):
        return document.id
    if isinstance(document, BaseNode):
        return document.node_id
    raise TypeError(
        f"documents must hold LlamaIndex or core documents, got {type(document).__name__}"
    )


def _text_of(document: Any) -> str | None:
    if document is None or isinstance(document, str):
        return document
    if isinstance(document, recallm.Document):
        return document.text
    if isinstance(document, BaseNode):
        return document.get_content(metadata_mode=MetadataMode.NONE)
    raise TypeError(f"a document must be a text or a document, got {type(document).__name__}")


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a text begins in its document.

    Attributes:
        start: The offset; None where it isn't known.
        checked: Whether the document's own text was looked at.
        ambiguous: Whether the text stands there more than once.
    """

    start: int | None
    checked: bool = False
    ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A node and the part of its text that may be quoted.

    Attributes:
        given: The node as it came.
        text: What the model reads: ``node_text[shift:shift + len(text)]``.
        shift: Where that begins in the node's text; a label before it is wording, not content.
        node_text: The node's text without any metadata.
    """

    given: NodeWithScore
    text: str
    shift: int
    node_text: str

    @property
    def node(self) -> BaseNode:
        """The node itself."""
        return self.given.node

    @property
    def whole(self) -> bool:
        """Whether it is all of the node's text but for a label."""
        return len(self.text) + self.shift + 1 >= len(self.node_text)

    @property
    def readable(self) -> bool:
        """Whether there is anything to quote."""
        return bool(self.text.strip())

    def label(self, *, metadata: bool) -> str:
        """Returns what the model is told about the node; none of it can be quoted.

        Args:
            metadata: Whether to show all metadata that the node shows to models.
        """
        metadata_of_node = self.node.metadata
        name = next(
            (str(metadata_of_node[key]) for key in _TITLES if metadata_of_node.get(key)), ""
        )
        if not metadata:
            return name
        hidden = {*self.node.excluded_llm_metadata_keys, MEMBERS}
        rest = [
            f"{key}: {value}"
            for key, value in metadata_of_node.items()
            if key not in hidden and str(value) != name
        ]
        return "; ".join([name, *rest] if name else rest)

    def anchor(self, originals: Originals) -> Anchor:
        """Returns where ``text`` begins in the node's document, by the node alone."""
        original = originals.text(self.node.ref_doc_id)
        if original is None:
            return Anchor(self._claimed_start())
        places = list(occurrences(self.text, original, 2))
        if not places:
            return Anchor(None, checked=True)
        claim = self.claim(original)
        start = nearest(self.text, original, self.begins) if claim is None else claim
        return Anchor(start, checked=True, ambiguous=len(places) > 1)

    def claim(self, original: str) -> int | None:
        """The offset that the node claims, where its text does stand in the document."""
        claimed = self._claimed_start()
        return claimed if is_at(self.text, original, claimed) else None

    @property
    def begins(self) -> int | None:
        """The node's own offset, true or not."""
        start = getattr(self.node, "start_char_idx", None)
        return start if isinstance(start, int) else None

    def _claimed_start(self) -> int | None:
        """The offset that the node claims, unless it contradicts itself."""
        start, end = self.begins, getattr(self.node, "end_char_idx", None)
        if start is None or not isinstance(end, int) or end - start != len(self.node_text):
            return None
        return start + self.shift if start >= 0 else None


def read(scored: NodeWithScore) -> Source:
    """Returns a node as it is read: its text, without the labels that engines write into it.

    Raises:
        DocumentError: The text can't be UTF-8.
    """
    node = scored.node
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    check_text(text, f"the text of node {node.node_id!r}")
    shift = 0
    begins, ends = getattr(node, "start_char_idx", None), getattr(node, "end_char_idx", None)
    cut = isinstance(begins, int) and isinstance(ends, int) and ends - begins == len(text)
    rewritten = None if cut else _NUMBERED.match(text)
    end = len(text)
    if rewritten is not None and text.endswith("\n"):  # CitationQueryEngine's "Source 1:\n...\n"
        shift, end = rewritten.end(), end - 1
        for mode in (MetadataMode.ALL, MetadataMode.LLM, MetadataMode.EMBED):
            header = node.get_metadata_str(mode=mode)
            if header and text.startswith(f"{header}\n\n", shift):
                shift += len(header) + 2
                break
    return Source(scored, text[shift:end], shift, text)
