"""What an index finds depends on its documents alone, and equals what naive scans find."""

import math
import threading
import zlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.documents.document import Document
from recallm_core.errors import CheckpointError, DocumentError
from recallm_core.retrieval import (
    CorpusIndex,
    VectorSearch,
    index,
    packs,
    postings,
    segment,
    token_counts,
    words,
)
from recallm_core.retrieval.embedding import FunctionEmbedder
from recallm_core.retrieval.vectors import NearestVectors, train
from recallm_core.text.lexical import terms
from recallm_core.tokenization.tokenizer import HFTokenizer

WORDS = [
    "red",
    "green",
    "blue",
    "stone",
    "river",
    "Paris",
    "1,500",
    "FY2018",
    "café",
    "語学",
    "ship",
    "ships",
    "the",
]
MODES = ("hybrid", "dense", "lexical")


def encode(texts):
    """A tiny embedding: which of 16 bins the words of a text fall into."""
    vectors = np.zeros((len(texts), 16), np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.encode()) % 16] += 1
    return vectors


TINY = FunctionEmbedder(encode, name="bins")


def long_text(draw):
    lines = draw(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), max_size=8))
    return ".\n\n".join(" ".join(line) * draw(st.integers(1, 4)) for line in lines)


@st.composite
def documents(draw, ids="abcdef"):
    return Document(
        long_text(draw),
        id=draw(st.sampled_from(ids)),
        title=draw(st.none() | st.sampled_from(["Red ships", "Paris", ""])),
        metadata={"year": draw(st.integers(2018, 2019))},
    )


corpora = st.lists(documents(), max_size=5, unique_by=lambda document: document.id)
questions = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
changes = st.lists(
    st.tuples(st.just("add"), corpora) | st.tuples(st.just("delete"), st.sampled_from("abcdef")),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(changes, questions)
def test_adding_and_deleting_in_any_order_equals_building_afresh(steps, question):
    changed = CorpusIndex(TINY)
    for kind, what in steps:
        if kind == "add":
            changed.add(what)
        elif what in changed.documents:
            assert changed.delete([what]) == 1
    fresh = CorpusIndex.build(sorted(changed.documents.values(), key=lambda d: d.id), TINY)
    assert dict(changed.documents) == dict(fresh.documents)
    for mode in MODES:
        for k in (1, 4, 1000):
            assert changed.search(question, k, mode=mode) == fresh.search(question, k, mode=mode)
        where = {"year": 2018}
        found = changed.search(question, 50, mode=mode, where=where)
        assert found == fresh.search(question, 50, mode=mode, where=where)
    for budget in (10, 60, 100_000):
        packed = changed.pack_report(question, budget, len, overhead=2)
        assert packed == fresh.pack_report(question, budget, len, overhead=2)


@settings(max_examples=60, deadline=None)
@given(corpora, questions, st.integers(0, 900), st.sampled_from(MODES), st.booleans())
def test_packs_are_slices_within_the_budget(corpus, question, budget, mode, by_words):
    built = CorpusIndex.build(corpus, TINY)

    def count(text):
        return len(text.split()) if by_words else len(text.encode())

    report = built.pack_report(question, budget, count, overhead=3, mode=mode)
    assert report.tokens == sum(count(p.text) + 3 for p in report.passages) <= budget
    texts = [passage.text for passage in report.passages]
    assert len(set(texts)) == len(texts)
    for passage in report.passages:
        source = built.documents[passage.document_id]
        assert source.text[passage.start : passage.end] == passage.text != ""
        assert passage.title == source.title
        for copy in passage.duplicates:
            stretch = passage.text[copy.passage_start :][: copy.end - copy.start]
            assert built.documents[copy.document_id].text[copy.start : copy.end] == stretch


def naive_scores(corpus, question):
    """BM25 at three levels, written out."""
    units = [[], [], []]
    places = {}
    for document in corpus:
        whole = Counter(terms(document.title or ""))
        whole = Counter({word: words.TITLE_WEIGHT * n for word, n in whole.items()})
        sections = {}
        for chunk in index.split(document):
            found = Counter(terms(chunk.text))
            section = sections.setdefault(chunk.parent, (len(units[1]), Counter()))
            if not section[1] and section[0] == len(units[1]):
                units[1].append(section[1])
            section[1].update(found)
            whole.update(found)
            places[document.id, chunk.start] = (len(units[0]), section[0], len(units[2]))
            units[0].append(found)
        units[2].append(whole)

    def score(level, place):
        mean = sum(sum(unit.values()) for unit in units[level]) / len(units[level])
        unit, total = units[level][place], 0.0
        for term in set(terms(question)):
            frequency = sum(term in other for other in units[level])
            rarity = math.log1p((len(units[level]) - frequency + 0.5) / (frequency + 0.5))
            length = sum(unit.values()) / mean if mean else 0.0
            total += rarity * unit[term] * 2.5 / (unit[term] + 1.5 * (0.25 + 0.75 * length))
        return total

    weights = (1.0, 1.0, words.DOCUMENT_WEIGHT)
    return {
        key: sum(weight * score(level, place[level]) for level, weight in enumerate(weights))
        for key, place in places.items()
    }


@settings(max_examples=40, deadline=None)
@given(corpora, questions)
def test_scores_by_words_equal_a_naive_bm25(corpus, question):
    found = CorpusIndex.build(corpus, TINY).search(question, 1000, mode="lexical")
    expected = {key: score for key, score in naive_scores(corpus, question).items() if score > 0}
    assert {(c.document_id, c.start): c.score for c in found} == pytest.approx(expected)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(1, 70), st.integers(0, 2**32 - 1), st.booleans())
def test_faiss_equals_brute_force(count, k, seed, filtered):
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((count, 12)).astype(np.float16)
    query = generator.standard_normal(12).astype(np.float32)
    allowed = generator.random(count) < 0.5 if filtered else None
    rows, products = NearestVectors(vectors).search(query, k, allowed)
    expected = vectors.astype(np.float32) @ query
    candidates = np.arange(count) if allowed is None else np.flatnonzero(allowed)
    best = candidates[np.argsort(-expected[candidates], kind="stable")][:k]
    assert rows.tolist() == best.tolist()
    assert products == pytest.approx(expected[best], rel=1e-5, abs=1e-5)


def test_an_approximate_index_finds_most_of_what_an_exact_one_does():
    generator = np.random.default_rng(3)
    centres = generator.standard_normal((30, 16))
    vectors = centres[generator.integers(30, size=3000)] + generator.normal(0, 0.3, (3000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    exact = NearestVectors(vectors)
    assert train(vectors) is None
    search = VectorSearch(exact_up_to=1000, probes=16)
    approximate = NearestVectors(vectors, train(vectors, search), search)
    again = NearestVectors(vectors, train(vectors, search), search)
    odd = np.arange(3000) % 2 == 1
    hits = 0
    for query in vectors[:50].astype(np.float32):
        wanted, _ = exact.search(query, 20)
        found, products = approximate.search(query, 20)
        hits += len(set(wanted.tolist()) & set(found.tolist()))
        repeated = again.search(query, 20)
        assert (repeated[0].tolist(), repeated[1].tolist()) == (found.tolist(), products.tolist())
        assert (approximate.search(query, 20, odd)[0] % 2 == 1).all()
    assert hits > 0.8 * 50 * 20


def test_chunks_are_slices_and_the_right_one_comes_first():
    filler = "Nothing of interest happens in this paragraph, which is here to be long. " * 12
    text = filler + "\n\nThe lighthouse of Skagen was painted white in 1953.\n\n" + filler
    built = CorpusIndex.build(
        [Document(text, id="skagen", title="Skagen"), Document(filler, id="other")]
    )
    for mode in MODES:
        hits = built.search("When was the lighthouse painted?", 3, mode=mode)
        assert hits[0].document_id == "skagen"
        assert "1953" in hits[0].text
        for hit in hits:
            assert built.documents[hit.document_id].text[hit.start : hit.end] == hit.text
    (passage,) = built.pack_report("When was the lighthouse painted?", 260, words_of).passages
    assert "1953" in passage.text


def words_of(text):
    return len(text.split())


def test_everything_is_given_when_everything_fits():
    corpus = [Document("one two", id="b"), Document("three", id="a")]
    built = CorpusIndex.build(corpus, TINY)
    report = built.pack_report("unrelated", 100, words_of)
    assert [passage.text for passage in report.passages] == ["three", "one two"]
    assert report.passages[0].members == ()
    searched = built.pack_report(
        "three", 100, words_of, where=lambda metadata: True, mode="lexical"
    )
    assert [passage.text for passage in searched.passages] == ["three"]


def test_a_filter_finds_the_one_rare_document_that_matches():
    corpus = [Document(f"red ship number {n}", id=f"d{n:03}") for n in range(300)]
    corpus.append(Document("a red ship", id="rare", metadata={"kind": "log", "year": 1901}))
    built = CorpusIndex.build(corpus, TINY)
    for mode in MODES:
        for where in ({"kind": "log"}, lambda metadata: metadata.get("year", 2000) < 1950):
            hits = built.search("red ship number", 5, mode=mode, where=where)
            assert [hit.document_id for hit in hits] == ["rare"]
        assert built.search("red ship", 5, mode=mode, where={"kind": None}) == []
    (passage,) = built.pack_report("ship", 50, words_of, where={"kind": "log"}).passages
    assert passage.document_id == "rare"


def test_replacing_a_document_leaves_nothing_of_the_old_one():
    built = CorpusIndex.build([Document("the old stone", id="x"), Document("blue", id="y")], TINY)
    assert built.add([Document("the new river", id="x")]) == 1
    assert built.add([Document("the new river", id="x")]) == 0
    assert built.search("stone", 5, mode="lexical") == []
    assert [hit.text for hit in built.search("river", 5, mode="lexical")] == ["the new river"]
    assert built.stats().documents == 2
    with pytest.raises(KeyError, match="no document 'z'"):
        built.delete(["x", "z"])
    assert "x" in built.documents
    assert built.delete("x") == 1
    with pytest.raises(DocumentError, match="two different texts"):
        built.add([Document("1", id="q"), Document("2", id="q")])


def test_syncing_pays_only_for_what_changed():
    embedded = []

    def counted(texts):
        embedded.extend(texts)
        return encode(texts)

    built = CorpusIndex(FunctionEmbedder(counted, name="counted"))
    first = [Document("red stone", id="a"), Document("blue river", id="b")]
    assert built.sync(first) is True
    embedded.clear()
    assert built.sync(first) is False
    assert built.sync([first[0], Document("green ship", id="c")]) is True
    assert embedded == ["green ship"]
    assert list(built.documents) == ["a", "c"]
    assert built.sync([]) is True
    assert built.search("red") == []


def test_many_small_additions_make_few_segments():
    built = CorpusIndex(TINY)
    for n in range(60):
        built.add([Document(f"{WORDS[n % len(WORDS)]} number {n}", id=f"d{n:02}")])
    assert built.stats().segments <= 7
    assert len(built.documents) == 60
    assert (
        built.documents["d07"].text == "ship number 7" or "number 7" in built.documents["d07"].text
    )
    assert built.search("number 33", 1, mode="lexical")[0].document_id == "d33"


@pytest.mark.parametrize(
    "question", ["", " ", "\0", "?", "\x1b[2J", "the", "é" * 5000, "a " * 5000]
)
def test_odd_questions_are_answered(question):
    built = CorpusIndex.build([Document("red stone " * 200, id="a"), Document("", id="b")])
    for mode in MODES:
        assert isinstance(built.search(question, 3, mode=mode), list)
    assert built.pack_report(question, 50, words_of).tokens <= 50
    assert CorpusIndex(TINY).search(question) == []
    assert CorpusIndex(TINY).pack_report(question, 50, words_of).passages == ()


def test_bad_arguments_are_named():
    built = CorpusIndex.build(["red"], TINY)
    with pytest.raises(ValueError, match="'lexical'"):
        built.search("red", mode="fast")
    with pytest.raises(ValueError, match="k must not be negative"):
        built.search("red", -1)
    with pytest.raises(DocumentError, match="lone surrogate"):
        built.search("\udc80")
    with pytest.raises(ValueError, match="token_budget"):
        built.pack_report("red", -1, words_of)
    with pytest.raises(ValueError, match="give save"):
        built.save()
    with pytest.raises(KeyError, match="no document 'nope'"):
        built.documents["nope"]


def count_words(text):
    return len(text.split())


class Words:
    """A tokenizer with one token per word, and a name for it."""

    fingerprint = "words"

    def encode_plain(self, text):
        return type("Plain", (), {"ids": text.split()})


class Spaces:
    """A tokenizer with one token per word."""

    def encode_plain(self, text):
        return type("Plain", (), {"ids": text.split()})


def test_pack_takes_a_tokenizer_and_a_default_budget():
    text = "red stone. " * 40_000
    built = CorpusIndex.build([Document(text, id="a")], TINY)
    passages = built.pack("stone", tokenizer=Spaces())
    total = sum(words_of(passage.text) + 12 for passage in passages)
    assert total <= packs.DEFAULT_BUDGET
    small = built.pack("stone", 100, Spaces())
    assert sum(words_of(passage.text) + 12 for passage in small) <= 100


@pytest.mark.parametrize("name", ["qwen", "llama3", "gemma", "unigram", "wordpiece"])
def test_no_budget_is_exceeded_under_real_tokenizers(family, name):
    tokenizer = HFTokenizer(family(name))
    lines = [f"{a} {b}, {n}% 語学の部 👩\u200d💻 naïve" for n, a in enumerate(WORDS) for b in WORDS]
    built = CorpusIndex.build(
        [Document("\n".join(lines[n:] + lines[:n]), id=f"d{n}", title=lines[n]) for n in range(9)]
    )
    for budget in (0, 20, 90, 500, 2_500):
        for counted in (False, True):
            if counted:
                built.count_tokens(tokenizer)
            passages = built.pack("red ship 語学", budget, tokenizer)
            total = sum(len(tokenizer.encode_plain(p.text).ids) + 12 for p in passages)
            assert total <= budget
            assert passages or budget < 500


def test_without_the_shipped_model_pack_says_what_to_pass(monkeypatch, tmp_path):
    monkeypatch.setattr(packs, "_SHIPPED", tmp_path)
    packs.shipped.cache_clear()
    with pytest.raises(CheckpointError, match="pass the tokenizer"):
        CorpusIndex.build(["red"], TINY).pack("red")
    packs.shipped.cache_clear()


def test_searches_in_threads_while_the_index_changes():
    built = CorpusIndex.build([Document("red stone", id="a")], TINY)
    failures = []

    def search():
        for _ in range(60):
            hits = built.search("red stone", 100)
            if not hits or any(hit.text not in ("red stone", "red ship") for hit in hits):
                failures.append(hits)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(20):
        built.add([Document("red ship", id=f"b{n}")])
        if n % 3 == 0:
            built.delete([f"b{n}"])
    for thread in threads:
        thread.join()
    assert failures == []


def counting():
    """A count of words, and what it was asked."""
    asked = []

    def count(text):
        asked.append(text)
        return len(text.split())

    return count, asked


def far_apart(number):
    return Document(
        "\n\n".join(f"{word} {number} " * 60 for word in ("red", "stone", "river", "ship")),
        id=f"d{number}",
    )


@settings(max_examples=25, deadline=None)
@given(corpora, st.lists(questions, min_size=1, max_size=3), st.integers(0, 200))
def test_remembered_counts_change_neither_budget_nor_pack(found, asked, budget):
    built = CorpusIndex.build(found, TINY)
    fresh = {"overhead": 2, "tokens_key": "letters"}
    for question in asked:
        report = built.pack_report(question, budget, len, **fresh)
        assert report.tokens <= budget
        again = CorpusIndex.build(found, TINY).pack_report(question, budget, len, **fresh)
        assert report == again == built.pack_report(question, budget, len, **fresh)


def counted_chunks(built, key):
    """How many chunks of an index have been counted under a tokenizer."""
    name = token_counts.counts_name(key)
    return sum(int((part.tokens.under(name) >= 0).sum()) for part in built._state.parts)


def test_a_chunk_is_counted_once_per_tokenizer():
    built = CorpusIndex.build([far_apart(number) for number in range(8)], TINY)
    count, asked = counting()
    first = built.pack_report("red river", 300, count, tokens_key="one")
    tried, known = list(asked), counted_chunks(built, "one")
    asked.clear()
    assert built.pack_report("red river", 300, count, tokens_key="one") == first
    assert len(asked) < len(tried)
    assert counted_chunks(built, "one") == known > 0
    assert counted_chunks(built, "two") == 0
    built.pack_report("red river", 300, count, tokens_key="two")
    assert counted_chunks(built, "two") == known


def test_what_was_counted_beforehand_isnt_counted_to_be_packed():
    corpus = [far_apart(number) for number in range(8)]
    built = CorpusIndex.build(corpus, TINY)
    told = []
    chunks = built.stats().chunks
    assert built.count_tokens(Words(), progress=lambda *step: told.append(step)) == chunks
    assert told[-1] == (chunks, chunks)
    assert built.count_tokens(Words()) == 0
    count, asked = counting()
    report = built.pack_report("red river", 300, count, tokens_key="words", gap_tokens=0)
    assert report == CorpusIndex.build(corpus, TINY).pack_report(
        "red river", 300, count_words, tokens_key="words", gap_tokens=0
    )
    sampled = {document.text[: packs._SAMPLE_CHARACTERS] for document in corpus}
    merged = {passage.text for passage in report.passages}
    assert set(asked) - sampled - merged == set()
    with pytest.raises(ValueError, match="fingerprint"):
        built.count_tokens(Spaces())


@settings(max_examples=40, deadline=None)
@given(changes)
def test_counts_stay_with_their_chunks_whatever_is_added_or_deleted(steps):
    changed = CorpusIndex(TINY)
    for kind, what in steps:
        if kind == "add":
            changed.add(what)
        elif what in changed.documents:
            changed.delete([what])
        changed.count_tokens(Words())
    name = token_counts.counts_name("words")
    for part in changed._state.parts:
        texts = [packs.text_of(part.segment, n) for n in range(part.segment.chunk_count)]
        assert part.tokens.under(name).tolist() == [len(text.split()) for text in texts]


def test_wrong_counts_from_before_never_exceed_the_budget():
    built = CorpusIndex.build([far_apart(number) for number in range(8)], TINY)
    count, _ = counting()
    built.pack_report("red river", 300, lambda text: 1, tokens_key="one")
    report = built.pack_report("red river", 300, count, tokens_key="one", overhead=1)
    assert 0 < report.tokens == sum(count(p.text) + 1 for p in report.passages) <= 300


def test_the_tokenizers_that_are_remembered_are_bounded():
    counts = token_counts.TokenCounts(3)
    for number in range(40):
        counts.under(f"{number:016x}")[0] = number
        assert len(counts.all()) <= token_counts._KEPT
    assert counts.all()[f"{39:016x}"].tolist() == [39, -1, -1]


def test_pack_remembers_under_the_tokenizers_fingerprint():
    class Letters:
        fingerprint = "letters"

        def encode_plain(self, text):
            return type("Encoding", (), {"ids": list(text)})

    built = CorpusIndex.build([far_apart(number) for number in range(8)], TINY)
    assert built.pack("red river", 600, Letters())
    assert counted_chunks(built, "letters") > 0


@given(corpora, st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_a_segment_made_in_blocks_equals_one_made_at_once(corpus, block):
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "_BLOCK", block)
        patch.setattr(segment, "_ENCODED_AT_ONCE", 4)
        made = segment.build(corpus, TINY, index.split, lambda *step: told.append(step))
    whole = segment.build(corpus, TINY, index.split)
    pairs = list(zip(segment.arrays(made), segment.arrays(whole), strict=True))
    assert len(pairs) == 15
    for (name, one), (other_name, other) in pairs:
        assert name == other_name
        assert one.dtype == other.dtype
        assert np.array_equal(one, other), name
    assert not made.chunk_count or told[-1] == (made.chunk_count, made.chunk_count)


postings_texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=12)


def entries(table):
    """What a table says, as a dict of dicts."""
    return {
        int(key): dict(zip(*(column.tolist() for column in table.of(int(key))), strict=True))
        for key in table.keys
    }


@given(postings_texts, st.lists(st.integers(0, 12), max_size=3), st.data())
@settings(max_examples=60, deadline=None)
def test_postings_joined_and_filtered_say_what_naive_ones_do(texts, cuts, data):
    bounds = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
    blocks = [postings.collect(texts[first:end], first)[0] for first, end in pairwise(bounds)]
    whole, lengths = postings.collect(texts)
    naive = {}
    for place, text in enumerate(texts):
        for term, times in Counter(terms(text)).items():
            naive.setdefault(postings.term_key(term), {})[place] = times
    assert entries(postings.join(blocks)) == entries(whole) == naive
    assert lengths.tolist() == [len(terms(text)) for text in texts]
    rows = np.array([data.draw(st.booleans()) for _ in texts], bool)
    numbers = {place: n + 5 for n, place in enumerate(np.flatnonzero(rows).tolist())}
    left = {
        key: {numbers[place]: times for place, times in places.items() if rows[place]}
        for key, places in naive.items()
    }
    assert entries(postings.select(whole, rows, 5)) == {k: v for k, v in left.items() if v}


def test_how_vectors_are_searched_is_the_callers_choice():
    texts = [f"{WORDS[n % 13]} {WORDS[n % 7]} number {n}" for n in range(500)]
    loose = VectorSearch(exact_up_to=100, lists=20, probes=1)
    built = CorpusIndex.build(texts, TINY, vector_search=loose)
    (part,) = built._state.parts
    assert part.segment.coarse.centroids.shape == (20, 16)
    exact = CorpusIndex.build(texts, TINY).search("red stone number 7", 50, mode="dense")
    thorough = CorpusIndex.build(
        texts, TINY, vector_search=VectorSearch(exact_up_to=100, lists=20, probes=20)
    )
    assert thorough.search("red stone number 7", 50, mode="dense") == exact
    few = built.search("red stone number 7", 50, mode="dense")
    assert len(few) < len(exact) or few != exact
    for wrong in ({"exact_up_to": -1}, {"lists": 0}, {"probes": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            VectorSearch(**wrong)
