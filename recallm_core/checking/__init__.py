"""Any model's quotes checked: found in the documents, judged, and repaired where that is safe."""

from __future__ import annotations

from recallm_core.checking.changes import Change
from recallm_core.checking.checker import check_quotes
from recallm_core.checking.claims import Claim
from recallm_core.checking.quotes import Quote
from recallm_core.checking.report import QuoteReport
from recallm_core.checking.requoting import Requote, requote
from recallm_core.checking.streaming import QuoteChecker

__all__ = [
    "Change",
    "Claim",
    "Quote",
    "QuoteChecker",
    "QuoteReport",
    "Requote",
    "check_quotes",
    "requote",
]
