"""recallm ui: what the page loads its models with."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from recallm_core import RecaLLM
from recallm_core.cli import ui


@pytest.mark.parametrize("base", [[], ["--base", "some/base"]])
def test_the_base_is_that_of_the_model_the_page_begins_with(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(RecaLLM, "load", lambda name, **options: calls.append((name, options)))
    parser = argparse.ArgumentParser()
    ui.add_parser(parser.add_subparsers())
    load = ui.loading(parser.parse_args(["ui", "--model", "adapter", *base]))
    load("adapter")
    load("another")  # chosen on the page: goes on what it names
    expected = {"base": "some/base"} if base else {}
    assert calls == [("adapter", expected), ("another", {})]
