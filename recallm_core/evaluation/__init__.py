"""Evaluation: suites of questions, conditions, metrics, and the report of a run."""
