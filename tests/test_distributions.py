"""Which packages an install needs, computed from the sources: the base knows no torch."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from recallm_core import __version__
from recallm_core.inputs.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
CORE = "recallm_core"
ADAPTERS = {
    "langchain_recallm": "langchain-recallm",
    "llama_index_recallm": "llama-index-llms-recallm",
}
FRAMEWORKS = {  # and what those declare themselves
    "langchain_recallm": {"langchain_core", "pydantic"},
    "llama_index_recallm": {
        "llama_index",
        "llama_index_instrumentation",
        "pydantic",
        "pydantic_core",
    },
}

# The base install: what these import when they are imported themselves may need no extra. Modules
# that may are reached by a lazy import behind `needs`, which names the extra where it is missing.
WITH_EXTRAS = {
    f"{CORE}.backends.device_copies": "vllm",
    f"{CORE}.backends.local": "local",
    f"{CORE}.backends.masking": "local",
    f"{CORE}.backends.vllm.in_process": "vllm",
    f"{CORE}.backends.vllm_processor": "vllm",
    f"{CORE}.cli.eval": "eval",
    f"{CORE}.evaluation.harness": "harness",
    f"{CORE}.evaluation": "eval",
    f"{CORE}.mcp_server": "mcp",
    f"{CORE}.models.checkpoint": "local",
    f"{CORE}.models.weight_sizes": "local",
    f"{CORE}.serving.processor": "vllm",
    f"{CORE}.serving.slot_tokens": "vllm",
    f"{CORE}.train.grpo": "grpo",
    f"{CORE}.train": "train",
    f"{CORE}.ui.app": "ui",
}
# Lazy imports that say in another way what is missing, or do without it.
WITHOUT_NEEDS = {
    (f"{CORE}.evidence.reader", "torch"),  # plain arrays where it is missing
    (f"{CORE}.evidence.reader", "transformers"),
    (f"{CORE}.models.adapters", "torch"),  # behind the reading of an adapter
    (f"{CORE}.models.create", "torch"),  # behind the import of transformers
    (f"{CORE}.documents.kinds.office", "openpyxl"),  # a file that is skipped, with the reason
    (f"{CORE}.documents.kinds.plain", "striprtf"),
    (f"{CORE}.backends.vllm.setup", "vllm"),
    (f"{CORE}.serving.grammar_check", "llguidance"),  # inside a server of vLLM
    (f"{CORE}.cli.mcp", "uvicorn"),  # asked for before with find_spec
    (f"{CORE}.cli.ui", "uvicorn"),
    (f"{CORE}.tokenization.gguf_vocabulary", "tokenizers"),  # llama_cpp is asked for before
    (f"{CORE}.tokenization.plain_state", "tokenizers"),  # there is a tokenizer of it
}
# Brought by others: transformers and tokenizers need the hub; the last is the caller's own choice.
ELSEWHERE = {"huggingface_hub", "sentence_transformers"}


class Import(NamedTuple):
    """One imported module, and where: in the module's own code, or when a function runs."""

    module: str
    lazy: bool
    extras: frozenset[str]  # that enclosing `needs` name


@cache
def trees() -> dict[str, ast.Module]:
    """Every module of the three packages, by its dotted name."""
    roots = [(ROOT, CORE), *((ROOT / "integrations", name) for name in ADAPTERS)]
    return {
        dotted(path.relative_to(root)): ast.parse(path.read_text("utf-8"))
        for root, name in roots
        for path in sorted((root / name).rglob("*.py"))
        if path.name != "hatch_build.py" and "namespace" not in path.parts
    }


def dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(module: str) -> tuple[Import, ...]:
    return tuple(_imports(trees()[module], lazy=False, extras=frozenset()))


def _imports(node: ast.AST, *, lazy: bool, extras: frozenset[str]) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, lazy, extras) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(name, lazy, extras) for name in _from(child))
        else:
            within = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _imports(child, lazy=within, extras=extras | _needed(child))


def _from(node: ast.ImportFrom) -> Iterator[str]:
    """The module that it is from, and its names that are modules."""
    assert node.module is not None
    yield node.module
    names = (f"{node.module}.{alias.name}" for alias in node.names)
    yield from (name for name in names if name in trees())


def _needed(node: ast.AST) -> frozenset[str]:
    """The extra that `with needs("...", ...)` names."""
    if not isinstance(node, ast.With):
        return frozenset()
    return frozenset(
        str(ast.literal_eval(item.context_expr.args[0]))
        for item in node.items
        if isinstance(item.context_expr, ast.Call)
        and ast.unparse(item.context_expr.func) == "needs"
        and isinstance(item.context_expr.args[0], ast.Constant)
    )


@cache
def loaded(module: str) -> frozenset[str]:
    """The third-party packages that importing a module imports, through whatever modules."""
    seen: set[str] = set()
    outside: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in trees():
            outside.add(name.partition(".")[0])
            continue
        parent = name.rpartition(".")[0]
        waiting += [parent] if parent else []
        waiting += [found.module for found in imports(name) if not found.lazy]
    return frozenset(outside - sys.stdlib_module_names - {CORE})


# ------------------------------------------------------------------------------ what is declared


def project(folder: str = ".") -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))
    return table["project"]  # type: ignore[no-any-return] # a table of that shape


def modules_of(requirements: list[str]) -> set[str]:
    """The modules that requirements bring; those of our own extras are theirs."""
    names = {
        "faiss-cpu": "faiss",
        "llama-cpp-python": "llama_cpp",
        "markdown-it-py": "markdown_it",
        "pystemmer": "Stemmer",
    }
    modules: set[str] = set()
    for requirement in requirements:
        name, extras = re.fullmatch(r"([\w-]+)(?:\[([\w,-]+)\])?[^\[]*", requirement).groups()  # type: ignore[union-attr]
        if name == "recallm-core":
            for extra in filter(None, (extras or "").split(",")):
                modules |= modules_of(project()["optional-dependencies"][extra])
        else:
            modules.add(names.get(name.lower(), name.lower()).replace("-", "_"))
    return {names.get(module, module) for module in modules}


BASE = modules_of(project()["dependencies"])


def test_the_table_of_extras_is_what_pyproject_declares() -> None:
    declared = project()["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        assert set(modules) <= modules_of(declared[extra]), extra
    for extra in ("local", "server", "index", "files", "ui"):
        assert set(EXTRAS[extra]) == modules_of(declared[extra])


def extra_of(module: str) -> str | None:
    """The extra that a module may need when it is imported."""
    return next((e for at, e in WITH_EXTRAS.items() if f"{module}.".startswith(f"{at}.")), None)


def test_importing_needs_no_extra_but_where_it_is_said() -> None:
    for module in trees():
        top, extra = module.partition(".")[0], extra_of(module)
        allowed = BASE | FRAMEWORKS.get(top, set()) | set(EXTRAS[extra] if extra else ())
        if "middleware" in module:
            allowed |= {"langchain", "langgraph"}
        assert loaded(module) <= allowed, module
    for at, extra in WITH_EXTRAS.items():
        modules = [module for module in trees() if f"{module}.".startswith(f"{at}.")]
        assert any(loaded(module) - BASE for module in modules), f"{at} no longer needs {extra}"


def test_nothing_heavy_is_imported_with_the_package() -> None:
    assert loaded(CORE) == frozenset()


def test_what_is_imported_later_names_its_extra_where_it_is_missing() -> None:
    excused = set()
    for module in trees():
        if not module.startswith(CORE) or extra_of(module):
            continue
        for found in imports(module):
            package = found.module.partition(".")[0]
            outside = package != CORE and package not in sys.stdlib_module_names
            if not found.lazy or not outside or package in BASE | ELSEWHERE:
                continue
            if (module, package) in WITHOUT_NEEDS:
                excused.add((module, package))
            else:
                assert any(package in EXTRAS[extra] for extra in found.extras), (module, package)
    assert excused == WITHOUT_NEEDS


def test_everything_that_is_imported_is_declared() -> None:
    known = BASE | ELSEWHERE | {module for modules in EXTRAS.values() for module in modules}
    for module in trees():
        top = module.partition(".")[0]
        for found in imports(module):
            package = found.module.partition(".")[0]
            if package in sys.stdlib_module_names or package in {CORE, *ADAPTERS}:
                continue
            framework = FRAMEWORKS.get(top, set()) | {"langchain", "langgraph"}
            assert package in (known | framework if top in ADAPTERS else known), module


# ------------------------------------------------------------------------------ one version


@pytest.mark.parametrize("package", ADAPTERS)
def test_an_adapter_wants_the_core_of_its_own_line(package: str) -> None:
    table = project(f"integrations/{package}")
    assert table["name"] == ADAPTERS[package]
    major, minor, _ = __version__.split(".")
    line = f"recallm-core>={major}.{minor}.0,<{major}.{int(minor) + 1}"
    assert line in table["dependencies"]
    assert table["dynamic"] == project()["dynamic"] == ["version"]
    declared = project()["optional-dependencies"]
    for requirements in table["optional-dependencies"].values():
        assert modules_of(requirements)
        for requirement in requirements:
            if requirement.startswith("recallm-core"):
                extras = requirement.partition("[")[2].rstrip("]").split(",")
                assert set(extras) <= set(declared)


@pytest.mark.parametrize("package", ADAPTERS)
def test_an_adapter_has_the_same_licence(package: str) -> None:
    folder = ROOT / "integrations" / package
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (folder / "py.typed").is_file()
    assert (folder / "README.md").is_file()


def test_the_distributions_agree_on_pythons() -> None:
    """And with what hosted CI runs, ruff aims at and the page on installing says was tried."""
    told = [project()] + [project(f"integrations/{package}") for package in ADAPTERS]
    pythons = [[c for c in table["classifiers"] if "Python :: 3" in c] for table in told]
    assert pythons[0] == pythons[1] == pythons[2]
    assert {table["requires-python"] for table in told} == {">=3.11"}
    assert {table["license"] for table in told} == {"Apache-2.0"}
    versions = [classifier.rpartition(" ")[2] for classifier in pythons[0]]
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    assert jobs["run"]["strategy"]["matrix"]["python"] == versions
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert versions[0] == "3.11"
    assert tables["tool"]["ruff"]["target-version"] == "py311"
    page = (ROOT / "docs/installing.md").read_text("utf-8")
    assert re.findall(r"^\| (3\.\d+) \|", page, re.MULTILINE) == versions
    for start in ("README.md", "docs/index.md"):
        assert f"Python {versions[0]} to {versions[-1]}" in (ROOT / start).read_text("utf-8")


def test_the_page_on_installing_has_every_extra_of_a_user() -> None:
    page = (ROOT / "docs/installing.md").read_text("utf-8").split("## Extras")[1]
    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", page.split("\n## ")[0], re.MULTILINE)
    listed = {extra for row in rows for extra in re.findall(r"`([\w-]+)`", row)}
    of_this_repository = {"demo", "docs", "dev"}
    assert listed == set(project()["optional-dependencies"]) - of_this_repository


def test_a_tag_is_all_that_a_release_needs() -> None:
    """No secret: the index trusts the workflow, and each file says who built it."""
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    flow = yaml.safe_load(text)
    assert flow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` so
    assert "secrets." not in text
    assert flow["permissions"] == {}
    build, publish = flow["jobs"]["build"], flow["jobs"]["publish"]
    assert build["permissions"] == {"contents": "read"}
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert publish["steps"][-1]["with"]["attestations"] is True
    names = [project()["name"], *ADAPTERS.values()]
    built = [name.replace("-", "_") for name in names]  # as wheels spell them
    assert publish["strategy"]["matrix"]["distribution"] == built
    guard = next(step["run"] for step in build["steps"] if "tag" in step.get("name", ""))
    checked = subprocess.run(["sh", "-ec", guard], cwd=ROOT, env=tagged(__version__), check=False)
    assert checked.returncode == 0
    other = subprocess.run(["sh", "-ec", guard], cwd=ROOT, env=tagged("9.9.9"), check=False)
    assert other.returncode != 0


def tagged(version: str) -> dict[str, str]:
    return os.environ | {"GITHUB_REF_NAME": f"v{version}"}
