"""The processor's published place, which servers are told by name; it stands in ``serving``."""

from recallm_core.serving.processor import RecallProcessor

__all__ = ["RecallProcessor"]
