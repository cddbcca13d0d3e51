"""Who counts, how much fits, and what merged passages have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import Passage
from recallm_core.adapting import best_passages, budget_within, common_metadata, token_counter
from recallm_core.testing import scripted_llm

metadatas = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.none()), min_size=1, max_size=4
)


class Other:
    """A model of another library."""

    def get_num_tokens(self, text: str) -> int:
        return len(text) + 1


def test_counters_of_models_and_functions() -> None:
    llm = scripted_llm()
    assert token_counter(llm)("abc") == llm.count_tokens("abc")
    assert token_counter(Other())("abc") == 4
    assert token_counter(len)("abc") == 3
    with pytest.raises(TypeError, match="a function from a text to its tokens; got int"):
        token_counter(3)


def test_a_budget_is_what_a_window_leaves() -> None:
    assert [budget_within(room) for room in (-5, 0, 900, 1_000_000)] == [0, 0, 900, 32_768]


@given(st.lists(st.floats(0, 1), max_size=8), st.none() | st.integers(0, 9))
def test_the_best_passages_keep_their_order(scores: list[float], k: int | None) -> None:
    passages = [Passage("d", n, n + 1, "x", score) for n, score in enumerate(scores)]
    best = best_passages(passages, k)
    assert best == sorted(best, key=lambda passage: passage.start)
    assert len(best) == (len(passages) if k is None else min(k, len(passages)))
    best_of_rest = max((p.score for p in passages if p not in best), default=0.0)
    assert all(passage.score >= best_of_rest for passage in best)


@given(metadatas)
def test_common_metadata_is_what_all_say(several: list[dict[str, int | None]]) -> None:
    common = common_metadata(several, without=("c",))
    assert "c" not in common
    for key in "ab":
        agreed = all(key in each and each[key] == several[0][key] for each in several)
        assert (key in common) is agreed
        if agreed:
            assert common[key] == several[0][key]
