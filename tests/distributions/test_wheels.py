"""The three wheels as a user gets them: built, installed each in an environment of its own, used.

The core is installed with what it declares and nothing else. An adapter's environment sees, below
its own wheels, the packages of the environment that runs these tests: what is tried there is the
wheels, and torch isn't installed once more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CORE = "recallm_core"
PARTS = {
    CORE: ".",
    "langchain_recallm": "integrations/langchain_recallm",
    "llama_index_llms_recallm": "integrations/llama_index_recallm",
}
SUITES = {
    "langchain_recallm": ["langchain/test_standard_unit.py", "langchain/test_standard_retrieval.py",
                          "langchain/test_standard_integration.py"],
    "llama_index_llms_recallm": ["llama_index/test_consumers.py"],
}  # fmt: skip


def ran(command: list[str | Path], folder: Path) -> str:
    """What a command printed; nothing of this environment's paths or test workers reaches it."""
    ours = ("PYTHON", "PYTEST", "VIRTUAL")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=inherited | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Environment:
    """A fresh environment.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    @classmethod
    def fresh(cls, folder: Path) -> Environment:
        ran([sys.executable, "-m", "venv", "--without-pip", folder], folder.parent)
        return cls(folder)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self, *what: str, options: tuple[str, ...] = ()) -> None:
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
        constrained = ["--constraint", ROOT / "constraints.txt"]
        ran([*pip, *constrained, *options, *what], self.folder)

    def uninstall(self, name: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", self.python, "uninstall", "--quiet"]
        ran([*pip, "--yes", name], self.folder)

    def sees(self, folder: str) -> None:
        """Shows it the packages of another environment, below its own."""
        (place,) = self.folder.glob("lib/python*/site-packages")
        (place / "below.pth").write_text(folder + "\n", "utf-8")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheels and sources of all three."""
    out = tmp_path_factory.mktemp("dist")
    for part in PARTS.values():
        ran([sys.executable, "-m", "hatchling", "build", "--directory", out], ROOT / part)
    return out


def wheel(built: Path, name: str, extras: str = "") -> str:
    (path,) = built.glob(f"{name}-*.whl")
    return f"{path}{extras}"


@cache
def held(path: str) -> frozenset[str]:
    with zipfile.ZipFile(path) as archive:
        return frozenset(archive.namelist())


@pytest.mark.parametrize("name", PARTS)
def test_a_wheel_holds_its_package_and_its_licences(built: Path, name: str) -> None:
    package = {CORE: CORE, "langchain_recallm": "langchain_recallm"}.get(
        name, "llama_index_recallm"
    )
    root = ROOT if name == CORE else ROOT / "integrations"
    sources = {
        str(path.relative_to(root))
        for path in (root / package).rglob("*")
        if path.suffix in (".py", ".typed", ".safetensors", ".json", ".toml", ".txt")
        if not {"namespace", "__pycache__"} & set(path.parts) and path.name != "hatch_build.py"
        if path.name != "pyproject.toml"
    }
    names = held(wheel(built, name))
    assert sources <= names
    tops = {path.partition("/")[0] for path in names if ".dist-info/" not in path}
    assert tops == ({package, "llama_index"} if name.startswith("llama") else {package})
    assert any(path.endswith("licenses/LICENSE") for path in names)
    assert "llama_index/__init__.py" not in names
    assert "llama_index/llms/__init__.py" not in names
    notices = [path for path in names if "/licenses/" in path and path.endswith("/NOTICE")]
    weights = {path.rpartition("/")[0] for path in names if path.endswith(".safetensors")}
    own = {folder for folder in weights if folder.endswith("recallm-mini")}  # trained from nothing
    assert len(notices) == len(weights - own)


@pytest.mark.parametrize("name", PARTS)
def test_the_sources_make_the_same_wheel(built: Path, tmp_path: Path, name: str) -> None:
    (archive,) = built.glob(f"{name}-*.tar.gz")
    shutil.unpack_archive(archive, tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    ran([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], folder)
    assert held(wheel(tmp_path, name)) == held(wheel(built, name))


def test_the_core_alone_checks_and_reads_and_names_what_is_missing(
    built: Path, tmp_path: Path
) -> None:
    environment = Environment.fresh(tmp_path / "base")
    environment.install(wheel(built, CORE))
    assert "all well" in ran([environment.python, HERE / "uses/base.py"], tmp_path)
    environment.install(wheel(built, CORE, "[server]"))
    client = [environment.python, HERE / "uses/client.py", ROOT / "tests"]
    assert "all well" in ran(client, tmp_path)
    environment.uninstall("recallm-core")
    assert not list(environment.folder.glob(f"lib/python*/site-packages/{CORE}/*.py"))


@pytest.mark.parametrize("name", SUITES)
def test_an_adapter_from_its_wheel(built: Path, tmp_path: Path, name: str) -> None:
    """Its README's code, and the frameworks' own tests."""
    environment = Environment.fresh(tmp_path / "env")
    environment.sees(sysconfig.get_path("purelib"))
    options = ("--no-deps", "--no-index", "--force-reinstall")
    environment.install(wheel(built, CORE), wheel(built, name), options=options)
    place = tmp_path / "place"
    shutil.copytree(ROOT / "tests", place / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    folder = PARTS[name]
    (place / folder).mkdir(parents=True)
    shutil.copy(ROOT / folder / "README.md", place / folder)
    for file in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        shutil.copy(ROOT / file, place)
    package = folder.rpartition("/")[2]
    where = f"import {package}, {CORE}; print({package}.__file__, {CORE}.__file__)"
    for path in ran([environment.python, "-c", where], place).split():
        assert Path(path).is_relative_to(environment.folder)
    if name.startswith("llama"):
        ran([environment.python, "-c", "from llama_index.llms.recallm import RecaLLM"], place)
    pytest_ = [environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran([*pytest_, *(f"tests/{suite}" for suite in SUITES[name])], place)
    ran([*pytest_, "tests/test_docs.py", "-k", f"code_on_a_page and {package}"], place)
