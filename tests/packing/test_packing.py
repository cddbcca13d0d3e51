"""Passages are exact slices, never over budget, and say nothing twice."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.documents.document import Document, ScoredChunk
from recallm_core.errors import DocumentError
from recallm_core.packing import Pack, pack, pack_everything
from recallm_core.packing.intervals import whole_words

ALPHABET = "ab c.\n\r\u0301é\U0001f469\u200d\U0001f4bb語1"


def words(text):
    return len(text.split())


def awkward(text):
    """A tokenizer that is neither additive nor monotone in anything but length."""
    return len(text) + len(text) // 7 + (3 if text[:1].isspace() else 0)


def bytes_of(text):
    return len(text.encode())


def quadratic(text):
    return len(text) ** 2 // 40


COUNTERS = [words, len, bytes_of, awkward, quadratic]


def slices(text, step):
    return [(at, min(at + step, len(text))) for at in range(0, len(text), step)]


@st.composite
def corpora(draw):
    texts = draw(st.lists(st.text(ALPHABET, max_size=60), min_size=1, max_size=4))
    if draw(st.booleans()):
        texts.append(texts[0])
    documents = {f"d{n}": Document(text, id=f"d{n}") for n, text in enumerate(texts)}
    chunks = []
    for key, document in documents.items():
        for _ in range(draw(st.integers(0, 6))):
            start = draw(st.integers(0, len(document.text)))
            end = draw(st.integers(start, min(len(document.text), start + 25)))
            score = draw(st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0]))
            chunks.append(ScoredChunk(key, start, end, document.text[start:end], score))
    return documents, draw(st.permutations(chunks))


def cost(result, count, overhead):
    return sum(count(passage.text) + overhead for passage in result.passages)


@settings(max_examples=300, deadline=None)
@given(
    corpora(),
    st.integers(0, 120),
    st.sampled_from(COUNTERS),
    st.integers(0, 5),
    st.sampled_from(["document", "relevance", "edges"]),
    st.booleans(),
    st.integers(0, 8),
)
def test_passages_are_slices_within_budget_and_nothing_is_said_twice(
    corpus, budget, count, overhead, order, with_source, gap
):
    documents, chunks = corpus
    result = pack(
        chunks,
        documents if with_source else None,
        token_budget=budget,
        count=count,
        overhead=overhead,
        order=order,
        gap_tokens=gap,
    )
    assert result.tokens == cost(result, count, overhead) <= budget
    texts = [passage.text for passage in result.passages]
    for place, passage in enumerate(result.passages):
        source = documents[passage.document_id].text
        assert source[passage.start : passage.end] == passage.text
        assert not any(passage.text in other for other in texts[:place] + texts[place + 1 :])
        for other in result.passages[place + 1 :]:
            apart = passage.end <= other.start or other.end <= passage.start
            assert apart or passage.document_id != other.document_id or not with_source
        for member in passage.members:
            assert passage.start <= member.start < member.end <= passage.end
        for copy in passage.duplicates:
            stretch = passage.text[copy.passage_start :][: copy.end - copy.start]
            assert documents[copy.document_id].text[copy.start : copy.end] == stretch


@settings(max_examples=200, deadline=None)
@given(corpora(), st.integers(0, 120), st.sampled_from(COUNTERS), st.booleans())
def test_every_candidate_is_a_member_or_left_out_with_a_reason_that_holds(
    corpus, budget, count, with_source
):
    documents, chunks = corpus
    result = pack(
        chunks, documents if with_source else None, token_budget=budget, count=count, overhead=2
    )
    members = {(p.document_id, m.start, m.end) for p in result.passages for m in p.members}
    texts = [passage.text for passage in result.passages]
    left = {(c.chunk.document_id, c.chunk.start, c.chunk.end): c.reason for c in result.left_out}
    for chunk in chunks:
        key = (chunk.document_id, chunk.start, chunk.end)
        assert (key in members) != (key in left)
        if left.get(key) == "duplicate":
            assert any(chunk.text in text for text in texts)
        assert (left.get(key) == "empty") == (not chunk.text)
    assert "conflict" not in left.values()


@settings(max_examples=100, deadline=None)
@given(corpora(), st.integers(0, 120), st.booleans())
def test_the_same_candidates_in_another_order_give_the_same_pack(corpus, budget, with_source):
    documents, chunks = corpus
    chunks = list({(c.document_id, c.start, c.end): c for c in chunks}.values())
    distinct = [
        ScoredChunk(c.document_id, c.start, c.end, c.text, float(n)) for n, c in enumerate(chunks)
    ]
    shuffled = random.Random(1).sample(distinct, len(distinct))
    sources = documents if with_source else None
    one, other = (
        pack(given, sources, token_budget=budget, count=words, overhead=1)
        for given in (distinct, shuffled)
    )
    assert one == other


@settings(max_examples=200, deadline=None)
@given(st.text(ALPHABET + "xyz", min_size=1, max_size=200), st.data())
def test_a_cut_grows_to_whole_words_and_characters(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    grown = whole_words(text, start, end)
    assert grown.start <= start < end <= grown.end
    assert grown.text == text[grown.start : grown.end]
    for cut in (grown.start, grown.end):
        if 0 < cut < len(text):
            assert text[cut] not in "\u0301\u200d" or text[cut - 1] in "\r\n"
            beside = text[cut - 1 : cut + 1]
            assert not (beside.isascii() and beside.isalnum())
            assert text[cut - 1 : cut + 1] != "\r\n"


def test_neighbours_of_one_document_are_merged_and_keep_their_own_ranges():
    document = Document("one two three four five six", id="d")
    chunks = [
        ScoredChunk("d", 0, 8, "one two ", 1.0),
        ScoredChunk("d", 8, 19, "three four ", 3.0),
        ScoredChunk("d", 24, 27, "six", 2.0),
    ]
    result = pack(chunks, {"d": document}, token_budget=100, count=words, overhead=3)
    first, second = result.passages
    assert (first.text, second.text) == ("one two three four ", "six")
    assert [(m.start, m.end, m.score) for m in first.members] == [(0, 8, 1.0), (8, 19, 3.0)]
    assert first.score == 3.0
    assert result.tokens == 4 + 1 + 2 * 3


def test_a_gap_is_filled_when_it_is_small_and_fits():
    document = Document("one two three four five six", id="d")
    chunks = [ScoredChunk("d", 0, 7, "one two", 1.0), ScoredChunk("d", 24, 27, "six", 2.0)]
    fill = {"documents": {"d": document}, "count": words, "overhead": 1}
    assert len(pack(chunks, token_budget=50, gap_tokens=2, **fill).passages) == 2
    assert [p.text for p in pack(chunks, token_budget=50, gap_tokens=3, **fill).passages] == [
        document.text
    ]
    assert len(pack(chunks, token_budget=7, gap_tokens=3, **fill).passages) == 1
    assert len(pack(chunks, token_budget=6, gap_tokens=3, **fill).passages) == 2


def test_a_gap_that_holds_a_dropped_duplicate_stays_open():
    source = Document("same text here", id="a")
    other = Document("x1 same text here y1", id="b")
    chunks = [
        ScoredChunk("a", 0, 14, "same text here", 4.0),
        ScoredChunk("b", 3, 17, "same text here", 3.0),
        ScoredChunk("b", 0, 2, "x1", 2.0),
        ScoredChunk("b", 18, 20, "y1", 1.0),
    ]
    result = pack(
        chunks, {"a": source, "b": other}, token_budget=50, count=words, overhead=1, gap_tokens=9
    )
    assert [p.text for p in result.passages] == ["same text here", "x1", "y1"]
    (copy,) = result.passages[0].duplicates
    assert (copy.document_id, copy.start, copy.end, copy.passage_start) == ("b", 3, 17, 0)


def test_copies_that_continue_each_other_become_one_range():
    text = "alpha beta gamma delta "
    documents = {key: Document(text, id=key) for key in "ab"}
    chunks = [
        ScoredChunk(key, start, end, text[start:end], 1.0 - start / 100)
        for key in "ab"
        for start, end in slices(text, 6)
    ]
    result = pack(chunks, documents, token_budget=50, count=words)
    (passage,) = result.passages
    assert passage.text == text
    assert [(c.document_id, c.start, c.end) for c in passage.duplicates] == [("b", 0, len(text))]


def test_the_text_beside_a_strong_hit_comes_in_without_being_a_member():
    document = Document("aa bb cc dd ee ff", id="d")
    leaves = [(0, 3), (3, 6), (6, 9), (9, 12), (12, 17)]

    def beside(chunk):
        place = leaves.index((chunk.start, chunk.end))
        picked = [leaves[n] for n in (place - 1, place + 1) if 0 <= n < len(leaves)]
        return [ScoredChunk("d", s, e, document.text[s:e], 0.0) for s, e in picked]

    hit = ScoredChunk("d", 6, 9, "cc ", 1.0)
    result = pack(
        [hit], {"d": document}, token_budget=9, count=words, overhead=1, neighbours=beside
    )
    assert [p.text for p in result.passages] == ["bb cc dd "]
    assert [(m.start, m.end) for m in result.passages[0].members] == [(6, 9)]
    unexpanded = pack(
        [hit],
        {"d": document},
        token_budget=9,
        count=words,
        overhead=1,
        neighbours=beside,
        expand_top=0,
    )
    assert [p.text for p in unexpanded.passages] == ["cc "]


def test_without_the_source_only_proven_overlaps_are_joined():
    touching = [ScoredChunk("d", 0, 4, "one ", 2.0), ScoredChunk("d", 4, 7, "two", 1.0)]
    assert len(pack(touching, token_budget=50, count=words).passages) == 2
    overlapping = [
        ScoredChunk("d", 0, 7, "one two", 2.0),
        ScoredChunk("d", 4, 13, "two three", 1.0),
    ]
    assert [p.text for p in pack(overlapping, token_budget=50, count=words).passages] == [
        "one two three"
    ]


def test_a_chunk_that_contradicts_a_better_one_is_left_out():
    claims = [ScoredChunk("d", 0, 7, "one two", 2.0), ScoredChunk("d", 4, 9, "TWO 3", 1.0)]
    result = pack(claims, token_budget=50, count=words)
    assert [p.text for p in result.passages] == ["one two"]
    assert [(out.chunk.text, out.reason) for out in result.left_out] == [("TWO 3", "conflict")]


def test_a_chunk_that_is_no_slice_of_its_document_is_refused():
    with pytest.raises(DocumentError, match="index the document again"):
        pack(
            [ScoredChunk("d", 0, 3, "two", 1.0)],
            {"d": Document("one", id="d")},
            token_budget=9,
            count=words,
        )
    with pytest.raises(DocumentError, match="code points, half-open"):
        pack([ScoredChunk("d", -1, 3, "two", 1.0)], token_budget=9, count=words)
    with pytest.raises(ValueError, match="NaN"):
        pack([ScoredChunk("d", 0, 3, "two", float("nan"))], token_budget=9, count=words)
    with pytest.raises(ValueError, match="negative"):
        pack([], token_budget=-1, count=words)
    with pytest.raises(ValueError, match="'edges'"):
        pack([], token_budget=1, count=words, order="best")


def test_orders():
    texts = {"a": "a0 a1 a2 a3", "b": "b0 b1 b2 b3"}
    documents = {key: Document(text, id=key) for key, text in texts.items()}
    scores = {("a", 0): 1.0, ("a", 9): 3.0, ("b", 0): 4.0, ("b", 9): 2.0}
    chunks = [
        ScoredChunk(key, at, at + 2, texts[key][at : at + 2], score)
        for (key, at), score in scores.items()
    ]

    def ordered(order):
        result = pack(chunks, documents, token_budget=99, count=words, overhead=1, order=order)
        return [passage.text for passage in result.passages]

    assert ordered("document") == ["b0", "b3", "a0", "a3"]
    assert ordered("relevance") == ["b0", "a3", "b3", "a0"]
    assert ordered("edges") == ["b0", "b3", "a0", "a3"]


def test_a_header_may_cost_what_its_title_costs():
    documents = {"a": Document("one two", id="a", title="a very long title indeed")}
    chunk = ScoredChunk("a", 0, 7, "one two", 1.0)

    def header(passage):
        return words(passage.title or "") + 1

    assert pack([chunk], documents, token_budget=7, count=words, overhead=header).passages == ()
    result = pack([chunk], documents, token_budget=8, count=words, overhead=header)
    assert result.tokens == 8
    bare = pack([chunk], token_budget=9, count=words, overhead=header, titles={"a": "short title"})
    assert (bare.passages[0].title, bare.tokens) == ("short title", 5)


def test_estimates_that_overshoot_or_undershoot_change_nothing_about_the_budget():
    text = " ".join(f"w{n}" for n in range(600))
    document = Document(text, id="d")
    chunks = [
        ScoredChunk("d", start, end, text[start:end], float(-start))
        for start, end in slices(text, 40)
    ]
    for factor in (0.2, 1.0, 1.6):
        result = pack(
            chunks,
            {"d": document},
            token_budget=300,
            count=words,
            overhead=2,
            chunk_tokens=lambda chunk, factor=factor: int(factor * words(chunk.text)),
        )
        assert 240 <= result.tokens <= 300


def test_everything_is_packed_whole_when_it_fits():
    documents = [
        Document("one two", id="a", title="A"),
        Document("", id="empty"),
        Document("three", id="b"),
        Document("one two", id="c"),
    ]
    result = pack_everything(documents, token_budget=7, count=words, overhead=2)
    assert isinstance(result, Pack)
    assert [(p.document_id, p.text, p.title) for p in result.passages] == [
        ("a", "one two", "A"),
        ("b", "three", None),
    ]
    assert [(c.document_id, c.start, c.end) for c in result.passages[0].duplicates] == [("c", 0, 7)]
    assert result.tokens == 7
    assert pack_everything(documents, token_budget=6, count=words, overhead=2) is None
    assert pack_everything([], token_budget=0, count=words) == Pack((), (), 0)


def test_a_huge_document_isnt_counted_whole_to_find_that_it_doesnt_fit():
    counted = []

    def count(text):
        counted.append(len(text))
        return words(text)

    huge = Document("word " * 1_000_000, id="huge")
    assert pack_everything([huge], token_budget=100, count=count) is None
    assert sum(counted) < 10_000
