"""What a model folder says in its configuration, whatever stands in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import ServerError
from recallm_core.inputs.model_config import eos_ids, read_config, vocab_size


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))


def test_a_folder_without_a_configuration_says_nothing(tmp_path: Path) -> None:
    assert (read_config(tmp_path), eos_ids(tmp_path), vocab_size(tmp_path)) == ({}, (), None)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"a": NaN'])
def test_what_is_no_json_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ServerError, match=r"config\.json can't be read as JSON"):
        read_config(tmp_path)


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
    write(tmp_path, "config.json", {"vocab_size": "5", "text_config": []})
    assert vocab_size(tmp_path) is None
