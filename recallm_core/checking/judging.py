"""From a quote as written to a verdict on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from recallm_core.answers.answer import Citation
from recallm_core.checking.citing import Citer
from recallm_core.checking.corpus import Corpus
from recallm_core.checking.eliding import Elider
from recallm_core.checking.finding import Finder
from recallm_core.checking.places import ClaimedPlace, Finding
from recallm_core.checking.quotes import SOUND, Quote, Verdict
from recallm_core.checking.repairing import replacement
from recallm_core.checking.sources import Sources, collect_distinct
from recallm_core.checking.words import words
from recallm_core.checking.written import WrittenQuote
from recallm_core.documents.document import Document
from recallm_core.text.lexical import terms


class Judge:
    """Checks quotes against documents that are read once.

    Args:
        documents: What can be quoted, in the order that texts count them in.
        repair: Whether quotes that drifted get a replacement.
        min_words: How many words make a quotation of what stands in quotation marks; fewer are
            taken for one only where the documents hold exactly them, or with a figure or a
            reference.
    """

    def __init__(
        self, documents: Iterable[Document | str], *, repair: bool, min_words: int
    ) -> None:
        self.documents, order = collect_distinct(documents)
        self.corpus = Corpus(self.documents)
        self._elider = Elider(Finder(self.corpus))
        self._citer = Citer(self.corpus)
        self.references = Sources(self.corpus.documents, order)
        self._repair = repair
        self._min_words = min_words

    @property
    def sources(self) -> dict[str, Document]:
        """The documents by id."""
        return {document.id: document for document in self.documents}

    def judge_all(self, quotes: Iterable[WrittenQuote]) -> Iterator[Quote]:
        """Yields the verdicts, in order; words merely set in quotation marks are passed over."""
        for written in quotes:
            quote = self.judge(written)
            if quote is not None:
                yield quote

    def judge(self, written: WrittenQuote) -> Quote | None:
        """Returns the verdict; None for what is no quotation."""
        short = self._is_short(written)
        if short and not terms(written.text):
            return None
        documents = self.references.resolve(written.claim)
        at = written.claim.at if written.claim else None
        claimed = None if documents is None else ClaimedPlace(documents, at[0] if at else None)
        finding = self._elider.find(written.text, claimed)
        if short and finding.verdict != "exact":
            return None
        return self._quote(written, finding, claimed)

    def _is_short(self, written: WrittenQuote) -> bool:
        if written.form != "marks" or (written.claim and written.claim.numbers):
            return False
        raw = words(written.text).raw
        spoken = sum(0.5 if len(word) == 1 and not word.isascii() else 1 for word in raw)
        return not raw or (spoken < self._min_words and not any(map(str.isdecimal, written.text)))

    def _quote(
        self, written: WrittenQuote, finding: Finding, claimed: ClaimedPlace | None
    ) -> Quote:
        verdict: Verdict = finding.verdict
        if verdict in SOUND and claimed is not None and self._is_elsewhere(finding, claimed):
            verdict = "misattributed"
        stretches = finding.stretches
        citation: Citation | None = None
        pieces: tuple[Citation, ...] = ()
        if verdict == "stitched":
            pieces = tuple(self._citer.cite([stretch]) for stretch in stretches)
            citation = max(pieces, key=lambda piece: len(piece.text))
        elif stretches:
            citation = self._citer.cite(stretches)
        mended = None
        if self._repair and verdict == "drift" and citation:
            mended = replacement(written, [part.text for part in citation.parts or (citation,)])
        return Quote(
            text=written.text,
            start=written.start,
            end=written.end,
            verdict=verdict,
            citation=citation,
            pieces=pieces,
            changes=finding.changes,
            claimed=self._ids(claimed),
            form=written.form,
            score=round(finding.score, 4),
            replacement=mended,
        )

    def _is_elsewhere(self, finding: Finding, claimed: ClaimedPlace) -> bool:
        return self.corpus.document_at(finding.stretches[0].first) not in claimed.documents

    def _ids(self, claimed: ClaimedPlace | None) -> tuple[str, ...] | None:
        if claimed is None:
            return None
        return tuple(self.corpus.documents[number].id for number in sorted(claimed.documents))
