"""The configurations of hosts in the guide start the command that there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recallm_core import cli

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/agents.md"
BLOCKS = [
    json.loads(block)
    for block in re.findall(r"```json\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_configuration_starts_the_server(block: dict[str, dict[str, dict[str, object]]]) -> None:
    servers = block.get("mcpServers") or block["servers"]
    assert servers.keys() == {"recallm"}
    words = servers["recallm"]["args"]
    assert isinstance(words, list)
    args = cli.parser().parse_args(words)
    assert args.command == "mcp"
    assert all(path.is_absolute() or str(path).startswith("${") for path in args.docs)


def test_there_are_configurations_of_both_forms() -> None:
    assert [[*block] for block in BLOCKS] == [["mcpServers"], ["servers"]]
