"""From ranked chunks of an index to a pack: how many candidates, estimates, and neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from recallm_core.documents.document import ScoredChunk
from recallm_core.errors import CheckpointError
from recallm_core.inputs.model_config import context_length
from recallm_core.packing import Order, Overhead, Pack, pack, pack_everything
from recallm_core.packing.filling import memoise
from recallm_core.retrieval.ranking import DocumentView, State, chunk, neighbours, text_of
from recallm_core.retrieval.token_counts import counts_name

if TYPE_CHECKING:
    from recallm_core.tokenization.tokenizer import HFTokenizer

Count = Callable[[str], int]

DEFAULT_BUDGET = 32_768
_RESERVE = 1_536  # tokens of the shipped model's context for wording, question and output
_SHIPPED = Path(__file__).parents[1] / "models" / "recallm-mini"
GAP_TOKENS = 160  # a chunk has about 128
_CANDIDATES = (50, 5000)
_EXPANSION = 4096  # tokens of budget per hit whose neighbours come in; at 2K they'd crowd out hits
_SAMPLE = 24  # stretches of text from which characters per token are estimated
_SAMPLE_CHARACTERS = 600
_TOLD_EVERY = 1024  # chunks counted
_ROOMY = 16  # characters per token that hardly any text has


class Tokens(Protocol):
    """The part of a tokenizer that packing needs."""

    def encode_plain(self, text: str, /) -> object:
        """Returns what has the tokens of a text as ``ids``."""
        ...


def counter(tokenizer: Tokens) -> Count:
    """Returns how many tokens a text has under a tokenizer."""

    def count(text: str) -> int:
        return len(tokenizer.encode_plain(text).ids)  # type: ignore[attr-defined]

    return count


@lru_cache(maxsize=1)
def _shipped_tokenizer() -> HFTokenizer:
    from recallm_core.tokenization.tokenizer import HFTokenizer

    return HFTokenizer.from_folder(_SHIPPED)


def shipped_key() -> str:
    """Returns the fingerprint of the shipped model's tokenizer."""
    return _shipped_tokenizer().fingerprint


@lru_cache(maxsize=1)
def shipped() -> tuple[Count, int]:
    """Returns how many tokens a text has for the shipped model, and what its context leaves.

    Raises:
        CheckpointError: The model isn't there.
    """
    length = context_length(_SHIPPED)
    if length is None:
        raise CheckpointError(
            f"the shipped model isn't in {_SHIPPED}; pass the tokenizer of the model that will "
            "read the pack, or reinstall recallm-core"
        )
    return counter(_shipped_tokenizer()), max(0, min(DEFAULT_BUDGET, length - _RESERVE))


def known_counter(tokenizer: Tokens | None) -> tuple[Count, str | None]:
    """Returns what counts for a tokenizer, None: the shipped model's, and its fingerprint."""
    if tokenizer is None:
        return shipped()[0], shipped_key()
    return counter(tokenizer), getattr(tokenizer, "fingerprint", None)


def count_all(
    state: State, count: Count, key: str, progress: Callable[[int, int], None] | None
) -> int:
    """Counts the chunks that weren't counted yet; returns how many."""
    name = counts_name(key)
    todo = [
        (part.segment, part.tokens.under(name), np.flatnonzero(part.tokens.under(name) < 0))
        for part in state.parts
    ]
    total = sum(len(missing) for *_, missing in todo)
    done = 0
    for segment, counts, missing in todo:
        for inner in map(int, missing):
            counts[inner] = count(text_of(segment, inner))
            done += 1
            if progress is not None and (done % _TOLD_EVERY == 0 or done == total):
                progress(done, total)
    return total


def candidates(token_budget: int) -> int:
    """Returns how many chunks are ranked: about twice as many as fit."""
    low, high = _CANDIDATES
    return min(max(low, token_budget // 50), high)


def expanded(token_budget: int) -> int:
    """Returns how many of the best hits get the chunks beside them."""
    return min(token_budget // _EXPANSION, 20)


def everything(state: State, token_budget: int, count: Count, overhead: Overhead) -> Pack | None:
    """Returns all documents if they fit the budget; costs next to nothing where they clearly don't.

    The documents come sorted by id, so that the pack doesn't depend on the order of changes.
    """
    if state.characters > _ROOMY * token_budget:
        return None
    documents = DocumentView(state)
    names = sorted(documents)
    step = max(1, len(names) // _SAMPLE)
    sample = [documents[name].text[:_SAMPLE_CHARACTERS] for name in names[::step]]
    if state.characters / _ratio(sample, count) > 2 * token_budget:
        return None
    listed = (documents[name] for name in names)
    return pack_everything(listed, token_budget=token_budget, count=count, overhead=overhead)


def _ratio(sample: Sequence[str], count: Count) -> float:
    """Characters per token in some texts."""
    characters = sum(len(text) for text in sample)
    return max(characters, 1) / max(sum(count(text) for text in sample), 1)


class _Candidates:
    """Ranked chunks of a state, each known by its number; those beside a hit join when asked for.

    Args:
        state: What they are chunks of.
        ranked: Their numbers and scores.
    """

    def __init__(self, state: State, ranked: Sequence[tuple[int, float]]) -> None:
        self._state = state
        self._numbers: dict[tuple[str, int, int], int] = {}
        self.chunks = [self._add(number, score) for number, score in ranked]

    def _add(self, number: int, score: float) -> ScoredChunk:
        candidate = chunk(self._state, number, score)
        self._numbers[candidate.document_id, candidate.start, candidate.end] = number
        return candidate

    def neighbours_of(self, hit: ScoredChunk) -> list[ScoredChunk]:
        """Returns the chunks before and after one of the candidates."""
        number = self._numbers[hit.document_id, hit.start, hit.end]
        return [self._add(other, 0.0) for other in neighbours(self._state, number)]

    def tokens(self, candidate: ScoredChunk, name: str, count: Count) -> int:
        """Returns how long a chunk is, remembered under a tokenizer's name; a gap is counted."""
        number = self._numbers.get((candidate.document_id, candidate.start, candidate.end))
        if number is None:
            return count(candidate.text)
        part, inner = self._state.locate(number)
        return part.tokens.of(name, inner, lambda: candidate.text, count)


def _lengths(
    candidates: _Candidates, count: Count, tokens_key: str | None
) -> Callable[[ScoredChunk], int]:
    """How long chunks are: as remembered under a key, or estimated by their characters.

    The texts that end up in a pack are counted; those that don't needn't be.
    """
    if tokens_key is not None:
        name = counts_name(tokens_key)
        return lambda candidate: candidates.tokens(candidate, name, count)
    ratio = _ratio([candidate.text for candidate in candidates.chunks[:_SAMPLE]], count)
    return lambda candidate: round(len(candidate.text) / ratio)


def fill(
    state: State,
    ranked: Sequence[tuple[int, float]],
    *,
    token_budget: int,
    count: Count,
    overhead: Overhead,
    order: Order,
    expand_top: int,
    gap_tokens: int,
    tokens_key: str | None,
) -> Pack:
    """Returns the pack of some ranked chunks; the parts have what was counted before."""
    candidates = _Candidates(state, ranked)
    counted = memoise(count)  # what was counted to be tried isn't counted again to be packed
    return pack(
        candidates.chunks,
        DocumentView(state),
        token_budget=token_budget,
        count=counted,
        overhead=overhead,
        order=order,
        chunk_tokens=_lengths(candidates, counted, tokens_key),
        neighbours=candidates.neighbours_of,
        expand_top=expand_top,
        gap_tokens=gap_tokens,
    )
