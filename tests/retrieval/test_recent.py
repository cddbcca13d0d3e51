from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from recallm_core import Document
from recallm_core.retrieval.recent import RecentDocuments, bytes_of

BATCHES = st.lists(st.dictionaries(st.integers(0, 8), st.integers(1, 9_000), max_size=4))


@given(batches=BATCHES, most=st.none() | st.integers(1, 6))
def test_it_keeps_what_a_naive_bound_keeps(batches: list[dict[int, int]], most: int | None) -> None:
    recent: RecentDocuments[int] = RecentDocuments(20_000, most)
    naive: OrderedDict[int, Document] = OrderedDict()
    for batch in batches:
        documents = {key: Document("x" * size, f"d{key}") for key, size in batch.items()}
        recent.add(documents)
        for key, document in documents.items():
            naive[key] = document
            naive.move_to_end(key)
        while naive and (
            (most is not None and len(naive) > most)
            or (sum(map(bytes_of, naive.values())) > 20_000 and len(naive) > len(documents))
        ):
            naive.popitem(last=False)
        assert list(recent) == list(naive)
        assert {key: recent.get(key) for key in range(9)} == {k: naive.get(k) for k in range(9)}
    recent.clear()
    assert list(recent) == []
    recent.add({0: Document("x" * 15_000, "d0")})
    recent.add({1: Document("x" * 100, "d1")})
    assert list(recent) == [1] if most == 1 else [0, 1]  # nothing of before counts any more
