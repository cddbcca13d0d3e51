"""Puts the modules beside it under the package's name, and the alias under LlamaIndex's."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_ALIAS = "llama_index/llms/recallm"  # a namespace that others share: no __init__.py above


class Layout(BuildHookInterface):  # type: ignore[type-arg]
    """Tells hatchling, file by file, where each comes to stand in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See ``BuildHookInterface``."""
        here = Path(self.root)
        modules = [path for path in here.glob("*.py") if path != Path(__file__).resolve()]
        places = {path: f"llama_index_recallm/{path.name}" for path in modules}
        places[here / "py.typed"] = "llama_index_recallm/py.typed"
        places[here / "namespace" / _ALIAS] = _ALIAS
        build_data["force_include"].update({str(path): to for path, to in places.items()})
