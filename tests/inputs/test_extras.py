from __future__ import annotations

import pytest

from recallm_core.errors import MissingExtraError
from recallm_core.inputs.extras import EXTRAS, install, needs


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_module_is_named_with_the_command_that_brings_it(extra: str) -> None:
    for module in EXTRAS[extra]:
        with pytest.raises(MissingExtraError) as caught, needs(extra, "a purpose"):
            raise ModuleNotFoundError(f"No module named '{module}.x'", name=f"{module}.x")
        assert str(caught.value).startswith(f"a purpose needs {module}")
        assert str(caught.value).endswith(install(extra))
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("x", name="recallm_core.no_such_module"),
        ModuleNotFoundError("x", name="a_dependency_of_torch"),
        ModuleNotFoundError("x"),
        ImportError("a library of another version", name="torch"),
        MissingExtraError("it says already what to do"),
    ],
)
def test_what_no_extra_would_bring_stays_as_it_is(error: ImportError) -> None:
    with pytest.raises(type(error)) as caught, needs("local", "a purpose"):
        raise error
    assert caught.value is error
