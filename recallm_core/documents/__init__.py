"""Texts that are quoted from: values, reading files, cutting into chunks."""
