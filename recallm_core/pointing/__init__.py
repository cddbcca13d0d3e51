"""Answers of models that take no constraint, only a schema: they point at numbered sentences."""

from __future__ import annotations

from recallm_core.pointing.prompt import PointedPrompt
from recallm_core.pointing.reader import PointedReader
from recallm_core.pointing.schema import SchemaLimits

__all__ = ["PointedPrompt", "PointedReader", "SchemaLimits"]
