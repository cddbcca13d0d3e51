"""Packing for adapters: who counts tokens, how many fit, and what merged passages share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from recallm_core.documents.document import Passage
from recallm_core.retrieval import packs

Count = Callable[[str], int]


def token_counter(source: Any) -> Count:
    """Returns a function that counts tokens: of a model, or a plain function as it is.

    Args:
        source: What has ``count_tokens`` (``RecaLLM``) or ``get_num_tokens``, or a function; None:
            the tokenizer of the model that ships with the library.

    Raises:
        TypeError: It counts nothing.
    """
    if source is None:
        return packs.shipped()[0]
    for name in ("count_tokens", "get_num_tokens"):
        method = getattr(source, name, None)
        if method is not None:
            counted: Count = method
            return counted
    if not callable(source):
        raise TypeError(
            "count must be a ChatRecaLLM, a RecaLLM, another model with get_num_tokens, or a "
            f"function from a text to its tokens; got {type(source).__name__}"
        )
    plain: Count = source
    return plain


def budget_within(room: int) -> int:
    """Returns how many tokens to pack where so many fit: what the room leaves, up to 32,768."""
    return max(0, min(packs.DEFAULT_BUDGET, room))


def best_passages(passages: Sequence[Passage], k: int | None) -> list[Passage]:
    """Returns the ``k`` best passages, in the order in which all stand; None: all."""
    if k is None or k >= len(passages):
        return list(passages)
    ranked = sorted(range(len(passages)), key=lambda n: -passages[n].score)
    return [passages[n] for n in sorted(ranked[:k])]


def common_metadata(
    metadatas: Sequence[Mapping[str, Any]], without: Collection[str] = ()
) -> dict[str, Any]:
    """Returns the metadata that all agree on.

    Args:
        metadatas: Of what was merged.
        without: Keys that are left out.
    """
    seen: dict[str, list[Any]] = defaultdict(list)
    for metadata in metadatas:
        for key, value in metadata.items():
            if key not in without:
                seen[key].append(value)
    return {
        key: values[0]
        for key, values in seen.items()
        if len(values) == len(metadatas) and all(value == values[0] for value in values)
    }
