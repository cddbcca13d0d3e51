from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The shared evaluation data; tests that need it skip where it is absent."""
    root = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("RECALLM_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; set RECALLM_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def family() -> Callable[[str], Any]:
    """Returns the tokenizer of a family by name (see tokenizer_families.py), trained once."""
    module = _beside("tokenizer_families")
    return functools.cache(lambda name: module.FAMILIES[name]())


@pytest.fixture(scope="session")
def tiny_gguf() -> Any:
    """Writes small GGUF files (see tiny_gguf.py); tests that need it skip without the package."""
    pytest.importorskip("gguf", reason="needs the package gguf: pip install gguf")
    return _beside("tiny_gguf")


@pytest.fixture(scope="session")
def llama_cpp() -> Any:
    """llama.cpp's bindings; tests that need them skip where they aren't installed."""
    reason = "needs llama.cpp: pip install 'recallm-core[llama-cpp]' (builds it, some 13 minutes)"
    return pytest.importorskip("llama_cpp", reason=reason)


@pytest.fixture(scope="session")
def pdf() -> Callable[..., bytes]:
    """Makes a PDF file with lines of Helvetica on each page (see pdf_files.py)."""
    make: Callable[..., bytes] = _beside("pdf_files").pdf_file
    return make


@pytest.fixture
def fake_server(socket_enabled: None) -> Iterator[Callable[..., Any]]:
    """Starts stand-ins for a vLLM server (see fake_server.py) on loopback; ended with the test."""
    module = _beside("fake_server")
    started: list[Any] = []

    def start(*args: Any, keep: bool = False, **options: Any) -> Any:
        server = module.FakeServer(*args, **options)
        if not keep:
            started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def wordy_folder() -> Path:
    """The shipped model's tokenizer and recipe, but for answers in words."""
    folder: Path = _beside("fake_server").wordy_folder()
    return folder


@pytest.fixture(scope="session")
def guarantees() -> Any:
    """The documents and checks of test_guarantees.py, for backends that it can't run."""
    return _beside("test_guarantees")


@functools.cache
def _beside(name: str) -> Any:
    """A module of this folder: what several folders of tests use."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
