"""What a model folder says in its configuration, whatever stands in it."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.errors import CheckpointError
from recallm_core.inputs.model_config import (
    context_length,
    dtype_name,
    eos_ids,
    read_config,
    vocab_size,
)

_PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
)
_NAMES = st.sampled_from(
    ["vocab_size", "max_position_embeddings", "eos_token_id", "text_config", "other"]
)


def _nested(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=3) | st.dictionaries(_NAMES, values, max_size=4)


_JSON = st.recursive(_PLAIN, _nested).map(lambda value: json.dumps(value).encode())


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))


def test_a_folder_without_a_configuration_says_nothing(tmp_path: Path) -> None:
    assert (read_config(tmp_path), eos_ids(tmp_path)) == ({}, ())
    assert vocab_size(tmp_path) is context_length(tmp_path) is None


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"a": NaN'])
def test_what_is_no_json_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json can't be read as JSON"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_file_larger_than_any_models_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}" + " " * (4 << 20))
    with pytest.raises(CheckpointError, match=rf"{name} has more than 4,194,304 bytes"):
        eos_ids(tmp_path)


def test_what_is_no_object_is_an_error_that_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold a JSON object, got list"):
        context_length(tmp_path)


@given(
    st.binary(max_size=200) | st.recursive(_PLAIN, _nested).map(lambda v: json.dumps(v).encode())
)
def test_a_configuration_is_read_or_refused_and_nothing_else(content: bytes) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "config.json").write_bytes(content)
        try:
            config = read_config(folder)
        except CheckpointError:
            return
        assert config == json.loads(content)
        assert all(type(i) is int and i >= 0 for i in eos_ids(folder))
        for count in (vocab_size(folder), context_length(folder)):
            assert count is None or count > 0


def test_the_generation_config_says_which_ids_end_an_output(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"eos_token_id": 3})
    assert eos_ids(tmp_path) == (3,)
    write(tmp_path, "generation_config.json", {"eos_token_id": [1, True, "2", -1, 7]})
    assert eos_ids(tmp_path) == (1, 7)


def test_the_width_of_the_logits_may_stand_in_the_text_model(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"text_config": {"vocab_size": 11}})
    assert vocab_size(tmp_path) == 11
    write(tmp_path, "config.json", {"vocab_size": 5, "text_config": {"vocab_size": 11}})
    assert vocab_size(tmp_path) == 5
    for value in ("5", True, 0, -5):
        write(tmp_path, "config.json", {"vocab_size": value, "text_config": []})
        assert vocab_size(tmp_path) is None


def test_the_context_length_is_what_the_model_or_its_text_model_attends_to(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"max_position_embeddings": 4096})
    assert context_length(tmp_path) == 4096
    write(tmp_path, "config.json", {"text_config": {"max_position_embeddings": 8192}})
    assert context_length(tmp_path) == 8192
    write(tmp_path, "config.json", {"max_position_embeddings": None})
    assert context_length(tmp_path) is None


def test_the_precision_of_weights_is_one_of_torchs_and_nothing_else_of_it(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"torch_dtype": "bfloat16"})
    assert dtype_name(tmp_path) == "bfloat16"
    write(tmp_path, "config.json", {})
    assert dtype_name(tmp_path) == "float32"
    for name in ("load", "int8", "__dict__", ["float32"], {"a": 1}, 16):
        write(tmp_path, "config.json", {"dtype": name})
        with pytest.raises(CheckpointError, match="expected one of float32"):
            dtype_name(tmp_path)
