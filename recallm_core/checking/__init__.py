"""Any model's quotes checked: found in the documents, judged, and repaired where that is safe."""

from __future__ import annotations

from recallm_core.checking.changes import Change
from recallm_core.checking.checker import check_quotes
from recallm_core.checking.quotes import Quote
from recallm_core.checking.report import QuoteReport

__all__ = ["Change", "Quote", "QuoteReport", "check_quotes"]
