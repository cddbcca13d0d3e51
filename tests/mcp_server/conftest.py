"""A folder to serve beside one with a secret, and what a client may try to get there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SECRET = "the code of the safe is 4711"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder to serve, beside one with a secret, and links between them."""
    served, outside = tmp_path / "handbook", tmp_path / "private"
    (served / "rules").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.md").write_text(SECRET)
    (served / "leave.md").write_text("The annual leave is 30 days.")
    (served / "rules" / "travel.md").write_text("Trains are preferred to planes.")
    (served / "lines.jsonl").write_text('{"text": "One."}\n{"text": "Two.", "id": "two"}\n')
    (served / ".hidden.md").write_text(SECRET)
    (served / "link.md").symlink_to(outside / "secret.md")
    (served / "relative.md").symlink_to("../private/secret.md")
    (served / "folder").symlink_to(outside)
    (served / "rules" / "up").symlink_to("../..")
    os.mkfifo(served / "pipe.md")
    return served


@pytest.fixture
def secret() -> str:
    """What no client may ever see."""
    return SECRET


HOSTILE = [
    "/etc/passwd", "/etc/hostname", "//etc/passwd", "file:///etc/passwd", "~/.ssh/id_rsa", "~",
    "..", "../", "../private", "../private/secret.md", "./../private/secret.md", "rules/../..",
    "rules/../../private/secret.md", "rules/../leave.md", "handbook/../private/secret.md",
    "link.md", "relative.md", "folder", "folder/secret.md", "./folder/secret.md",
    "rules/up/private/secret.md", "handbook/link.md", ".hidden.md", "pipe.md", "", "/", "//", "./",
    "\0", "leave.md\0", "leave.md/..", "leave.md\n", " leave.md", "LEAVE.MD",
    "leave%2Emd", "%2e%2e/private/secret.md", "..%2fprivate%2fsecret.md", "..\\private\\secret.md",
    "C:\\Windows\\win.ini", "\\\\server\\share", "rules//travel.md", "*", "*.md", "**/*", "leave.*",
    "/proc/self/environ", "/proc/self/root/etc/passwd", "/dev/stdin", "/dev/fd/0", "$HOME", "`id`",
    "．．/private/secret.md", "‥/private/secret.md", "private", "secret.md", "\ud800",
    "a" * 100_000,
]  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that takes a hostile path with each of them."""
    if "hostile" in metafunc.fixturenames:
        metafunc.parametrize("hostile", HOSTILE, ids=[ascii(path)[:40] for path in HOSTILE])


@pytest.fixture
def hostile_paths() -> list[str]:
    """All of them."""
    return HOSTILE
