"""The door for adapters: one list, and nothing heavy behind it."""

from __future__ import annotations

import subprocess
import sys

from recallm_core import adapting


def test_every_name_of_the_door_is_there() -> None:
    assert len(set(adapting.__all__)) == len(adapting.__all__)
    assert all(hasattr(adapting, name) for name in adapting.__all__)


def test_importing_it_loads_no_model_library() -> None:
    heavy = "{'torch', 'transformers', 'faiss', 'tokenizers', 'llguidance'}"
    code = f"import recallm_core.adapting, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
