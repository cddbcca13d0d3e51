"""Where the nodes of one call begin in their documents, in the order that they have there.

A text that stands in a document once is found. One that stands there several times is placed by
its neighbours: chained parsers and repeated sentences leave LlamaIndex's offsets wrong, but keep
the order in ``PREVIOUS`` and ``NEXT``. Such a place is still told to be ambiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from llama_index.core.schema import BaseNode, NodeRelationship, NodeWithScore, RelatedNodeInfo
from llama_index.core.storage.docstore.types import BaseDocumentStore

from llama_index_recallm import sources
from llama_index_recallm.sources import Anchor, Originals, Source
from recallm_core.adapting import nearest, occurrences

_STEPS = 200  # nodes looked up on each side of one that can't be placed by itself
_GENERATIONS = 4  # parents of parents
_COPIES = 1000  # occurrences of one text that are told apart


class Nodes:
    """Nodes by id, so that those beside a node can be found.

    Args:
        held: Docstores, vector stores that keep texts, and indexes; what holds no nodes is ignored.
    """

    def __init__(self, *holders: Any) -> None:
        self._stores = [store for holder in holders for store in _stores(holder)]

    def __bool__(self) -> bool:
        return bool(self._stores)

    def get(self, node_id: str) -> BaseNode | None:
        """Returns a node; None where nobody has it."""
        nodes = (_fetch(store, node_id) for store in self._stores)
        return next((node for node in nodes if node is not None), None)

    def neighbour(self, node: BaseNode, kind: NodeRelationship) -> BaseNode | None:
        """Returns the node before or after a node of the same document."""
        name = related_id(node, kind)
        node_beside = None if name is None else self.get(name)
        return (
            node_beside
            if node_beside is not None and node_beside.ref_doc_id == node.ref_doc_id
            else None
        )


def _stores(holder: Any) -> Iterator[Any]:
    if isinstance(holder, Nodes):
        yield from holder._stores
    elif isinstance(holder, BaseDocumentStore) or getattr(holder, "stores_text", False):
        yield holder
    elif isinstance(getattr(holder, "docstore", None), BaseDocumentStore):
        yield holder.docstore
        yield from _stores(getattr(holder, "vector_store", None))


def _fetch(store: Any, node_id: str) -> BaseNode | None:
    if isinstance(store, BaseDocumentStore):
        return store.get_document(node_id, raise_error=False)
    try:
        node: BaseNode | None = next(iter(store.get_nodes([node_id])), None)
    except NotImplementedError:  # not every vector store hands out its nodes
        return None
    return node


def nodes_of(docstore: Any, documents: Any = None) -> Nodes:
    """Returns the nodes that a caller's arguments give access to.

    Raises:
        TypeError: ``docstore`` is something that holds no nodes.
    """
    if docstore is not None and not isinstance(docstore, Nodes) and not list(_stores(docstore)):
        raise TypeError(
            "docstore must be a docstore, an index or a vector store that keeps texts, got "
            f"{type(docstore).__name__}"
        )
    return Nodes(docstore, documents)


def related_id(node: BaseNode, kind: NodeRelationship) -> str | None:
    """Returns the id of the node that stands in some relation to a node."""
    relation = node.relationships.get(kind)
    return relation.node_id if isinstance(relation, RelatedNodeInfo) else None


def anchors(sources: Sequence[Source], originals: Originals, nodes: Nodes) -> list[Anchor]:
    """Returns where each source begins in its document."""
    out = [source.anchor(originals) for source in sources]
    unsure: dict[str, list[int]] = {}
    for number, (source, anchor) in enumerate(zip(sources, out, strict=True)):
        if anchor.ambiguous and source.whole and source.node.ref_doc_id is not None:
            unsure.setdefault(source.node.ref_doc_id, []).append(number)
    for document_id, numbers in unsure.items():
        text = originals.text(document_id)
        assert text is not None  # an anchor is only ambiguous in a text
        same = [other for other in sources if other.whole and other.node.ref_doc_id == document_id]
        places = _Order(text, same, nodes).places()
        for number in numbers:
            start = places.get(sources[number].node.node_id, out[number].start)
            out[number] = replace(out[number], start=start)
    return out


class _Order:
    """The nodes of one document, those beside them, and where each of them begins.

    Args:
        text: The document's.
        found: Its nodes that are read.
        nodes: Where the others are.
    """

    def __init__(self, text: str, placed_sources: Sequence[Source], nodes: Nodes) -> None:
        self._text, self._nodes = text, nodes
        self._known = {source.node.node_id: source for source in placed_sources}
        self._fixed: dict[str, int | None] = {}
        for source in placed_sources:
            if self._place(source) is None:
                self._look(source, NodeRelationship.PREVIOUS)
                self._look(source, NodeRelationship.NEXT)

    def places(self) -> dict[str, int]:
        """Returns where each known node begins, as far as it stands in the document."""
        out: dict[str, int] = {}
        for chain in self._chains():
            if len(chain) > 1:
                out |= self._settle(chain)
        taken = {(self._known[key].text, start) for key, start in out.items()}
        for key, source in self._known.items():
            if key not in out:
                start = self._alone(source, taken)
                if start is not None:
                    out[key] = start
                    taken.add((source.text, start))
        return out

    def _look(self, source: Source, side: NodeRelationship) -> None:
        """Gets to know the nodes on one side of a node, up to one whose place is certain."""
        node = source.node
        for _ in range(_STEPS):
            neighbour = self._nodes.neighbour(node, side)
            if neighbour is None or neighbour.node_id in self._known:
                return
            read = sources.read(NodeWithScore(node=neighbour))
            self._known[neighbour.node_id] = read
            if self._place(read) is not None:
                return
            node = neighbour

    # what is certain

    def _place(self, source: Source) -> int | None:
        """The only place that a node can have; None where there are several, or none."""
        key = source.node.node_id
        if key not in self._fixed:
            self._fixed[key] = self._certain(source, _GENERATIONS)
        return self._fixed[key]

    def _certain(self, source: Source, generations: int) -> int | None:
        places = list(occurrences(source.text, self._text, 2))
        if len(places) == 1:
            return places[0]
        if not places or generations == 0:
            return None
        name = related_id(source.node, NodeRelationship.PARENT)
        node = None if name is None else self._nodes.get(name)
        if node is None or node.ref_doc_id != source.node.ref_doc_id:
            return None
        parent = sources.read(NodeWithScore(node=node))
        within = list(occurrences(source.text, parent.text, 2))
        start = self._certain(parent, generations - 1) if len(within) == 1 else None
        return None if start is None else start + within[0]

    # what follows from the order

    def _chains(self) -> list[list[Source]]:
        """The known nodes in runs of direct neighbours."""
        after: dict[str, str] = {}
        for key, source in self._known.items():
            before = related_id(source.node, NodeRelationship.PREVIOUS)
            follows = related_id(source.node, NodeRelationship.NEXT)
            if before in self._known:
                after.setdefault(before, key)
            if follows in self._known:
                after.setdefault(key, follows)
        heads = self._known.keys() - set(after.values())
        chains = []
        for key in self._known:
            if key in heads:
                chain = [key]
                while chain[-1] in after and len(chain) <= len(self._known):
                    chain.append(after[chain[-1]])
                chains.append([self._known[node_id] for node_id in chain])
        return chains

    def _settle(self, chain: Sequence[Source]) -> dict[str, int]:
        """Places the nodes of a run one after the other, from those that are certain on."""
        places = [self._place(source) for source in chain]
        sure = [number for number, place in enumerate(places) if place is not None]
        first = sure[0] if sure else 0
        if not sure:
            places[0] = self._alone(chain[0], set())
        for number in range(first + 1, len(chain)):
            if places[number] is None:
                before = next((n for n in reversed(range(number)) if places[n] is not None), None)
                limit = next((places[n] for n in sure if n > number), None)
                if before is not None:
                    predecessor = (places[before] or 0, chain[before])
                    places[number] = self._after(chain[number], *predecessor, limit)
        for number in reversed(range(first)):
            right = next(places[n] for n in range(number + 1, len(chain)) if places[n] is not None)
            places[number] = self._before(chain[number], right or 0)
        pairs = zip(chain, places, strict=True)
        return {source.node.node_id: place for source, place in pairs if place is not None}

    def _after(self, source: Source, start: int, previous: Source, limit: int | None) -> int | None:
        """The place of a node behind another: what it claims if that fits, else the next one."""
        end = start + len(previous.text)
        high = len(self._text) + 1 if limit is None else limit
        claim = source.claim(self._text)
        inside = claim is not None and start < claim < high
        if claim is not None and inside and 2 * (end - claim) <= len(source.text):
            if not self._text[end:claim].strip():
                return claim
            close = nearest(source.text, self._text, end, low=end, high=claim)
            skipped = close is None or self._text[end:close].strip()
            return claim if skipped else close
        return nearest(source.text, self._text, end, low=start + 1, high=high)

    def _before(self, source: Source, right: int) -> int | None:
        """The place of a node before another one."""
        expected = max(0, right - len(source.text))
        claim = source.claim(self._text)
        if claim is not None and claim < right:
            end = claim + len(source.text)
            if 2 * (end - right) <= len(source.text) and not self._text[end:right].strip():
                return claim
        return nearest(source.text, self._text, expected, high=right)

    def _alone(self, source: Source, taken: set[tuple[str, int]]) -> int | None:
        """The place of a node without neighbours: certain, claimed, or one that no other has."""
        place = self._place(source)
        place = source.claim(self._text) if place is None else place
        if place is not None:
            return place
        every = list(islice(occurrences(source.text, self._text), _COPIES))
        free = [at for at in every if (source.text, at) not in taken] or every
        begins = source.begins
        if begins is None:
            return next(iter(free), None)
        return min(free, key=lambda at: (abs(at - begins), at), default=None)
