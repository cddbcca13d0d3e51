"""Words of documents, found in whole rows and in the longest pieces, however they repeat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.checking import check_quotes, corpus
from recallm_core.checking.corpus import UNKNOWN, Corpus
from recallm_core.documents.document import collect

FEW = st.lists(st.sampled_from("ab"), max_size=40).map(" ".join)
ROWS = st.lists(st.sampled_from("abx"), min_size=1, max_size=12)


@pytest.fixture(params=["as it is", "as for long rows"])
def _ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of looking; the second is meant for texts that repeat themselves."""
    if request.param != "as it is":
        monkeypatch.setattr(corpus, "_BUDGET", 0)
        monkeypatch.setattr(corpus, "_MANY", 0)


def places_of(row: list[int], ids: list[int]) -> list[int]:
    """The plain way."""
    if UNKNOWN in row:
        return []
    return [at for at in range(len(ids)) if ids[at : at + len(row)] == row]


@pytest.mark.usefixtures("_ways")
@given(texts=st.lists(FEW, min_size=1, max_size=3), row=ROWS)
def test_every_place_of_a_row_is_found(texts: list[str], row: list[str]) -> None:
    documents = Corpus(collect(texts))
    wanted = documents.ids_of(row)
    assert documents.occurrences(wanted).tolist() == places_of(wanted, documents.ids.tolist())


@pytest.mark.usefixtures("_ways")
@given(texts=st.lists(FEW, min_size=1, max_size=3), row=ROWS)
def test_pieces_are_the_longest_from_the_left(texts: list[str], row: list[str]) -> None:
    documents = Corpus(collect(texts))
    wanted, ids = documents.ids_of(row), documents.ids.tolist()
    past = 0
    for run in documents.runs(wanted):
        assert all(not places_of([word], ids) for word in wanted[past : run.first])
        piece = wanted[run.first : run.past]
        assert run.places.tolist() == places_of(piece, ids) != []
        assert run.past == len(wanted) or not places_of(wanted[run.first : run.past + 1], ids)
        past = run.past


@pytest.mark.parametrize(
    ("quote", "verdict"),
    [("la " * 3_000, "exact"), ("LA  " * 3_000, "drift"), ("la " * 3_000 + "di", "altered")],
)
def test_a_long_quote_of_a_text_that_repeats_itself(quote: str, verdict: str) -> None:
    """Each took seconds, or was absent, where places were filtered word by word."""
    message = {"content": [{"type": "text", "text": "x", "citations": [{"cited_text": quote}]}]}
    found = check_quotes(message, ["la " * 20_000]).quotes[0]
    assert found.verdict == verdict
    assert found.citation is not None
    assert found.citation.text.startswith("la la la")
