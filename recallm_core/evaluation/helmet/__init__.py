"""HELMET-style tasks (rebuilt): recall, questions over passages, many-shot, ranking, citing."""
