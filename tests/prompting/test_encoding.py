"""What is remembered of texts is bounded, and right."""

from __future__ import annotations

import pytest

from recallm_core.prompting.encoding import TokenCache
from recallm_core.testing import ByteTokenizer


def held(cache):
    """The bytes of all arrays that a cache keeps alive, those that they are parts of included."""
    arrays = [a for t in cache._texts.values() for a in (t.ids, t.starts, t.ends, t.copyable)]
    arrays += [a for b in cache._limits.values() for a in (b.can_start, b.can_end, b.can_end_hard)]
    owners = {id(a if a.base is None else a.base): a if a.base is None else a.base for a in arrays}
    return sum(owner.nbytes for owner in owners.values())


@pytest.mark.parametrize("character", ["a", "é", "東", "🙂"])
def test_what_is_remembered_is_bounded_in_bytes(character):
    cache = TokenCache(ByteTokenizer())
    cache._max_bytes = 200_000
    for number in range(40):
        texts = [f"{number} {n} " + character * 1000 for n in range(10)]
        tokens = cache.all_tokens(texts)
        for boundary in ("word", "character"):
            cache.all_limits(tokens, boundary)
        assert cache._bytes <= cache._max_bytes
        assert held(cache) <= cache._max_bytes
        assert {text for _, text in cache._limits} <= set(cache._texts)
    assert cache._bytes == sum(cache._bytes_of(text, t) for text, t in cache._texts.items())
