from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def bed() -> Any:
    """Quotes made from documents, with the verdicts they should get (see bed.py)."""
    spec = importlib.util.spec_from_file_location("bed", Path(__file__).parent / "bed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bed"] = module
    spec.loader.exec_module(module)
    return module
