"""The house style in figures, computed from the sources: what holds now may only get better.

`make check` shows the figures. After a change that lowers one, lower its ceiling.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = "recallm_core"

# What the sources have now, or less; none is raised to let a change through.
CEILINGS = {
    "modules at the root": 5,
    "lines of the largest file": 400,
    "lines of the largest class": 300,
    "lines of the median function": 7,
    "lines of a function at the ninetieth percentile": 19,
    "lines of the longest function": 50,
    "vague locals in 1,000 lines": 1,
    "vague locals of the adapters in 1,000 lines": 1,
    "functions and classes with a vague name": 1,
    "modules of the core that adapters reach into": 0,
}

# What a package above the core may import beside the core itself.
DOORS = {f"{NAME}.{door}" for door in ("adapting", "errors", "testing")}

# They say that there is something, and not what it is.
VAGUE = frozenset(
    {"around", "asked", "beside", "chosen", "each", "found", "given", "held", "kept", "least"}
    | {"left", "made", "most", "own", "said", "told", "wanted"}
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def sources() -> dict[str, tuple[str, ast.Module]]:
    """Text and tree of every module of the core, by its dotted name."""
    paths = sorted((ROOT / NAME).rglob("*.py"))
    texts = {dotted(path): path.read_text("utf-8") for path in paths}
    return {module: (text, ast.parse(text)) for module, text in texts.items()}


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions() -> Iterator[Function]:
    for _, tree in sources().values():
        yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def length(node: Function | ast.ClassDef) -> int:
    """Lines of a definition, without those of a function's docstring."""
    lines = (node.end_lineno or 0) - node.lineno + 1
    if isinstance(node, ast.ClassDef) or ast.get_docstring(node) is None:
        return lines
    return lines - ((node.body[0].end_lineno or 0) - node.body[0].lineno + 1)


def local_names(function: Function) -> set[str]:
    """Names that a function binds itself: parameters, and what it assigns or goes through."""
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return {argument.arg for argument in listed} | assigned(function)


def assigned(node: ast.AST) -> set[str]:
    names: set[str] = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            names.add(child.id)
        if not isinstance(child, Function | ast.ClassDef):
            names |= assigned(child)
    return names


def reached_into(paths: Iterable[Path]) -> set[str]:
    """Modules of the core that some files import, but for the core itself and its public doors."""
    trees = (ast.parse(path.read_text("utf-8")) for path in paths)
    named = {name for tree in trees for node in ast.walk(tree) for name in imported_modules(node)}
    return named - {NAME, *DOORS}


def vagueness(texts: Sequence[str]) -> float:
    """Locals in 1,000 lines that are named by one of the vague words."""
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    vague = sum(len(local_names(node) & VAGUE) for node in nodes if isinstance(node, Function))
    return vague / sum(text.count("\n") for text in texts) * 1000


def vague_names(tree: ast.Module) -> list[str]:
    """Functions and classes that are named by one of the vague words."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, Function | ast.ClassDef)]
    return [node.name for node in nodes if node.name.strip("_").lower() in VAGUE]


@cache
def figures() -> dict[str, float]:
    """The figures of the core that have a ceiling."""
    texts = [text for text, _ in sources().values()]
    lengths = [length(function) for function in functions()]
    trees = [tree for _, tree in sources().values()]
    classes = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    adapters = list((ROOT / "integrations").rglob("*.py"))
    texts_of_adapters = [path.read_text("utf-8") for path in adapters]
    return {
        "modules at the root": len(list((ROOT / NAME).glob("*.py"))),
        "lines of the largest file": max(text.count("\n") for text in texts),
        "lines of the largest class": max(length(node) for node in classes),
        "lines of the median function": median(lengths),
        "lines of a function at the ninetieth percentile": quantiles(lengths, n=10)[-1],
        "lines of the longest function": max(lengths),
        "vague locals in 1,000 lines": vagueness(texts),
        "vague locals of the adapters in 1,000 lines": vagueness(texts_of_adapters),
        "functions and classes with a vague name": sum(len(vague_names(tree)) for tree in trees),
        "modules of the core that adapters reach into": len(reached_into(adapters)),
    }


@pytest.mark.parametrize("figure", CEILINGS)
def test_no_figure_is_above_its_ceiling(figure: str) -> None:
    assert figures()[figure] <= CEILINGS[figure], WAYS_DOWN[figure]


WAYS_DOWN = {
    "modules at the root": "give the new module a home in a package (docs/architecture.md)",
    "lines of the largest file": "a module has one job: give the second one a module of its own",
    "lines of the largest class": "split the class by what changes together",
    "lines of the median function": "give a step of a long function a name of its own",
    "lines of a function at the ninetieth percentile": "give the steps of it names of their own",
    "lines of the longest function": "give the steps of it names of their own",
    "modules of the core that adapters reach into": "make the name public, or do without it",
    "vague locals in 1,000 lines": "name the value by its noun: candidates, messages, params ...",
    "vague locals of the adapters in 1,000 lines": "name the value by its noun: nodes, message ...",
    "functions and classes with a vague name": "what acts is a verb, what returns is a noun",
}


def test_what_counts_as_a_vague_local() -> None:
    tree = ast.parse(
        "def outer(given, *, of):\n"
        "    for kept, (token, found) in of: token.found = kept\n"
        "    def inner(): said = 1\n"
        "    return [each for each in of if (made := each)]\n"
    )
    outer, inner = (node for node in ast.walk(tree) if isinstance(node, Function))
    assert local_names(outer) & VAGUE == {"given", "kept", "found", "each", "made"}
    assert local_names(inner) & VAGUE == {"said"}


def test_what_counts_as_a_vague_name() -> None:
    tree = ast.parse("class _Told:\n    def found(self): ...\n    async def find(self): ...\n")
    assert vague_names(tree) == ["_Told", "found"]


# ---------------------------------------------------------------------------- the import graph


def imports() -> Iterator[tuple[str, str]]:
    """Pairs of modules of the core, importer first; lazy imports too, not those for types alone."""
    for module, (_, tree) in sources().items():
        for node in at_run_time(tree):
            for imported in imported_modules(node):
                yield module, imported


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one but for what stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from at_run_time(child)


def imported_modules(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in sources())
    if isinstance(node, ast.ImportFrom) and node.module in sources():
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in sources() else node.module


def package_of(module: str) -> str:
    """The part of the core that a module stands in: a package, or a module at the root."""
    return ".".join(module.split(".")[:2])


@cache
def contract() -> dict[str, list[str]]:
    """The layers of pyproject.toml, what they leave out, and what adapters may not import."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (contract for contract in contracts if contract["type"] == "layers")
    (doors,) = (contract for contract in contracts if "adapters" in contract["name"])
    return {
        "layers": layers["layers"],
        "ignored": layers["ignore_imports"],
        "forbidden": doors["forbidden_modules"],
    }


def between_packages() -> dict[str, set[str]]:
    """Which packages each package imports, but for the declared exceptions."""
    exceptions = {tuple(line.split(" -> ")) for line in contract()["ignored"]}
    graph: dict[str, set[str]] = {}
    for pair in imports():
        importer, imported = map(package_of, pair)
        if pair not in exceptions and importer != imported and NAME not in (importer, imported):
            graph.setdefault(importer, set()).add(imported)
    return graph


def test_packages_import_each_other_without_a_cycle() -> None:
    try:
        order = list(TopologicalSorter(between_packages()).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))
    assert len(order) > 10


def test_packages_import_only_what_stands_below_them() -> None:
    """The contract that import-linter checks, read from the sources once more."""
    ranks: dict[str, int] = {}
    for rank, layer in enumerate(contract()["layers"]):
        for part in layer.replace("|", ":").split(":"):
            ranks[f"{NAME}.{part.strip(' ()')}"] = rank
    for importer, several in between_packages().items():
        for imported in several:
            assert ranks[importer] < ranks[imported], f"{importer} -> {imported}"


def test_exceptions_are_imports_that_are_there() -> None:
    """An exception outlives its import unless somebody looks."""
    written = {f"{importer} -> {imported}" for importer, imported in imports()}
    assert set(contract()["ignored"]) <= written


def test_adapters_are_held_to_the_doors_in_every_package() -> None:
    """A package that is added stands behind the doors too."""
    parts = {package_of(module) for module in sources()} - {NAME, *DOORS}
    assert set(contract()["forbidden"]) == parts


# ---------------------------------------------------------------------- tests mirror the tree


def covering_tests() -> dict[str, str]:
    """Modules without a test file of their name, with the tests that hold them."""
    lines = (ROOT / "tests" / "tested_elsewhere.txt").read_text("utf-8").splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return {row[0]: row[1] for row in rows}


def test_every_module_has_tests_of_its_name_or_says_which_hold_it() -> None:
    paths = (path.relative_to(ROOT / NAME) for path in (ROOT / NAME).rglob("*.py"))
    without = {
        f"{NAME}/{path.as_posix()}"
        for path in paths
        if not path.stem.startswith("_")
        and not (ROOT / "tests" / path.parent / f"test_{path.stem}.py").is_file()
    }
    table = covering_tests()
    assert without == set(table), "write tests of its name, or a line in tests/tested_elsewhere.txt"
    assert [tests for tests in table.values() if not (ROOT / tests).is_file()] == []


def report() -> int:
    """Writes the figures; 1 where one is above its ceiling."""
    for title, value in figures().items():
        sys.stdout.write(f"{title:48} {value:6.1f}   at most {CEILINGS[title]:g}\n")
    return int(any(value > CEILINGS[title] for title, value in figures().items()))


if __name__ == "__main__":
    sys.exit(report())
