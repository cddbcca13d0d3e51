"""Cited answers whose every quote is copied verbatim from a named document."""
