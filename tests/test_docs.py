"""The pages for people: every path in them exists, and every block of code in them runs.

A block of Python is a session (`>>>`), a script, or an excerpt (a line "From `path`:" before it).
A script that can't run here has a comment `<!-- not run: why -->` before it; it compiles all the
same.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
OWN = "recallm_core"
RUN = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/**/*.md",
    "integrations/*/README.md",
]
READ = [*RUN, "*/README.md", f"{OWN}/**/README.md"]

_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"\.?[\w-][\w.-]*(?:/[\w.-]+)*/?")


@cache
def pages(*patterns: str) -> list[str]:
    """The pages that stand at the patterns, by their paths from the root."""
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    inside = (path.relative_to(ROOT) for path in paths)
    return sorted(str(path) for path in inside if not str(path).startswith((".", "build")))


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", (ROOT / page).read_text("utf-8"))


# -------------------------------------------------------------------------------------- paths


def named_paths(text: str) -> Iterator[str]:
    """What a text names in backquotes that is meant as a path of the repository."""
    tops = {path.name for path in ROOT.iterdir()}
    for span in _CODE_SPAN.findall(text):
        if not _PATH.fullmatch(span):
            continue
        is_file = re.search(r"\.(py|toml|md|ipynb|txt|yaml)$", span) is not None
        is_below = "/" in span.rstrip("/") and (span.split("/")[0] in tops or span.endswith(".py"))
        if is_below or (span.rstrip("/") in tops and (is_file or span.endswith("/"))):
            yield span


def named_modules(text: str) -> Iterator[str]:
    for span in _CODE_SPAN.findall(text):
        if re.fullmatch(rf"{OWN}(\.\w+)+", span):
            yield span


def is_named_rightly(dotted: str) -> bool:
    """Whether a dotted name leads to a module, or to a name that its module's source has."""
    path = ROOT
    parts = dotted.split(".")
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    path = path / f"{parts[0]}.py" if parts else path
    if parts and path.is_file():
        parts.pop(0)
    source = path if path.is_file() else (path.parent if parts else path) / "__init__.py"
    return not parts or re.search(rf"\b{parts[0]}\b", source.read_text("utf-8")) is not None


@pytest.mark.parametrize("page", pages(*READ))
def test_paths_that_are_named_exist(page: str) -> None:
    text, folder = prose(page), (ROOT / page).parent
    links = (link.split("#")[0] for link in _LINK.findall(text) if ":" not in link)
    missing = [link for link in links if not (folder / link).exists()]
    for path in named_paths(text):
        if not (ROOT / path).exists() and not (folder / path).exists():
            missing.append(path)
    assert not missing


@pytest.mark.parametrize("page", pages(*READ))
def test_modules_that_are_named_exist(page: str) -> None:
    assert [name for name in named_modules(prose(page)) if not is_named_rightly(name)] == []


def test_what_is_taken_for_a_path() -> None:
    text = "`recallm_core/x.py` `docs/` `notes/` `a/b.py` `n/a` `README.md` `model.md` `--flag`"
    assert list(named_paths(text)) == ["recallm_core/x.py", "docs/", "a/b.py", "README.md"]
    assert is_named_rightly(f"{OWN}.testing.scripted_llm")
    assert is_named_rightly(f"{OWN}.packing.pack")
    assert not is_named_rightly(f"{OWN}.testing.no_such_name")
    assert not is_named_rightly(f"{OWN}.no_such_module")


# ------------------------------------------------------------------------- what the page answers


@cache
def architecture() -> str:
    return (ROOT / "docs/architecture.md").read_text("utf-8")


def section(title: str) -> str:
    return architecture().split(f"## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a page's table rows, without their heads."""
    table = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_ten_questions_of_a_newcomer_have_one_answer_each() -> None:
    answers = rows(section("Where does a change go?"))
    assert len(answers) >= 10
    for question, answer in answers:
        (path,) = _CODE_SPAN.findall(answer)
        assert (ROOT / path).is_file(), question


def test_each_guarantee_names_the_tests_that_hold_it() -> None:
    listed = rows(section("Guarantees, and the tests that hold them"))
    assert [row[0] for row in listed] == [f"G{number}" for number in range(1, 9)]
    for row in listed:
        held_by = [path for path in _CODE_SPAN.findall(row[-1]) if path.startswith("tests/")]
        assert held_by, row[0]


def test_every_package_has_its_line() -> None:
    named = set(named_paths(section("The packages, top to bottom")))
    for package in (ROOT / OWN).iterdir():
        if (package / "__init__.py").is_file():
            assert f"{OWN}/{package.name}/" in named


# -------------------------------------------------------------------------------------- code


@dataclass(frozen=True, slots=True)
class Block:
    """A block of Python on a page.

    Attributes:
        code: Its text.
        before: The line before it that isn't blank.
        line: Where it begins.
    """

    code: str
    before: str
    line: int

    @property
    def excerpt_of(self) -> str | None:
        """The file that it is said to stand in."""
        said = re.fullmatch(r"From `([^`]+)`:", self.before)
        return said[1] if said else None

    @property
    def runs(self) -> bool:
        return not self.before.startswith("<!-- not run: ") and self.excerpt_of is None


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text("utf-8")
    for fence in _FENCE.finditer(text):
        if fence[1] in ("python", "py", "pycon"):
            above = text[: fence.start()].rstrip().rsplit("\n", 1)[-1]
            yield Block(fence[2], above, text[: fence.start()].count("\n") + 2)


@pytest.mark.parametrize("page", pages(*RUN))
def test_code_on_a_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, with the names of the blocks before it."""
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {"__name__": "__page__"}
    for block in blocks(page):
        if block.code.lstrip().startswith(">>>"):
            run_session(block, page, names)
        else:
            run_script(block, page, names)


def run_session(block: Block, page: str, names: dict[str, Any]) -> None:
    session = doctest.DocTestParser().get_doctest(block.code, names, page, page, block.line)
    assert block.runs, f"{page}:{block.line}: a session shows what came out, so it runs"
    told: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(session, out=told.append, clear_globs=False)
    names.update(session.globs)
    assert runner.summarize(verbose=False).failed == 0, "".join(told)


def run_script(block: Block, page: str, names: dict[str, Any]) -> None:
    code = compile(
        "\n" * (block.line - 1) + block.code,
        page,
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    if block.excerpt_of is not None:
        assert block.code in (ROOT / block.excerpt_of).read_text("utf-8")
    elif block.runs:
        made = eval(code, names)
        if inspect.iscoroutine(made):
            asyncio.run(made)
