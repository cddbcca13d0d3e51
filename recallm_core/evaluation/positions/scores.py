"""How an answer over many passages is judged: its words, and its quotes apart."""

from __future__ import annotations

from recallm_core.evaluation.cited.words import contains, exact, words_of
from recallm_core.evaluation.frame.records import AnswerRecord, CitationRecord
from recallm_core.evaluation.items import Item


def answer_scores(item: Item, answer: AnswerRecord) -> dict[str, float]:
    """Returns the figures of an answer.

    ``score``: the first line of the model's own words holds a gold answer (the published
    measure, by whole words); ``text``: the text that a user reads does, quotes included; ``em``:
    its words are a gold answer and no more. ``cites_gold``: a citation lies in the passage that
    answers; ``hit``: and holds a gold answer.
    """
    first = answer.words.strip().partition("\n")[0]
    gold = item.gold_id if item.documents else ""
    cited = [citation for citation in answer.citations if citation.document == gold]
    return {
        "score": float(contains(first, item.answers)),
        "text": float(contains(answer.text, item.answers)),
        "em": float(exact(first, item.answers)),
        "cites_gold": float(bool(cited)),
        "hit": float(any(_holds(item, citation) for citation in cited)),
        "wrong_slices": float(sum(not _is_slice(item, citation) for citation in answer.citations)),
        "words": float(len(words_of(answer.words))),
        "abstained": float(bool(answer.abstained)),
        "truncated": float(answer.finish_reason == "length"),
    }


def _is_slice(item: Item, citation: CitationRecord) -> bool:
    texts = {document.id: document.text for document in item.documents}
    text = texts.get(citation.document, "")
    return bool(citation.text) and text[citation.start : citation.end] == citation.text


def _holds(item: Item, citation: CitationRecord) -> bool:
    return _is_slice(item, citation) and contains(citation.text, item.answers)
