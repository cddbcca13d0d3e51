"""What frameworks say of a model becomes arguments of the core, or an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recallm_core import CheckpointError, GenerationParams
from recallm_core.adapting import (
    PARAMS,
    core_names,
    load_arguments,
    refuse_unknown,
    settings_of,
    unloaded_context_length,
    unloaded_shows_tools,
    without_secrets,
)

SERVER = "http://localhost:8000"


@pytest.mark.parametrize(
    ("model", "base_url", "loaded", "options"),
    [
        ("recallm-mini", None, "recallm-mini", {}),
        (None, None, None, {}),
        (SERVER, None, SERVER, {"api_key": "k", "timeout": 3.0}),
        ("mini", SERVER, SERVER, {"api_key": "k", "timeout": 3.0, "served_model": "mini"}),
    ],
)
def test_a_model_in_process_or_on_a_server(
    model: str | None, base_url: str | None, loaded: str | None, options: dict[str, Any]
) -> None:
    assert load_arguments(model, base_url=base_url, api_key="k", timeout=3.0) == (loaded, options)


def test_two_addresses_are_refused_without_their_password() -> None:
    with pytest.raises(ValueError, match="leave base_url out") as caught:
        load_arguments("http://me:secret@host", base_url=SERVER)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["http://me:secret@host", {"api_key": "secret"}])
def test_secrets_don_t_get_into_fields_that_show(value: Any) -> None:
    with pytest.raises(ValueError, match="give api_key= instead") as caught:
        without_secrets(value)
    assert "secret" not in str(caught.value)
    assert without_secrets({"device": "cpu"}) == {"device": "cpu"}


def test_unknown_settings_are_named_with_those_that_there_are() -> None:
    refuse_unknown(["model"], ["model", "seed"])
    with pytest.raises(
        ValueError, match=r"unknown settings \['sede'\]; known: \['model', 'seed'\]"
    ):
        refuse_unknown(["sede", "model"], ["seed", "model"])


def test_settings_of_a_call_stand_over_those_of_the_model() -> None:
    @dataclass
    class Fields:
        max_tokens: int | None = 100

        def __getattr__(self, name: str) -> Any:
            return 7 if name == "seed" else None

    options = core_names({"max_tokens": 5, "stop_sequences": ["."], "model": "m"})
    settings = settings_of(Fields(), options)
    assert set(settings) == PARAMS
    params = GenerationParams(**settings)
    assert (params.max_new_tokens, params.seed, params.stop) == (5, 7, (".",))
    assert settings_of(Fields(), {})["max_new_tokens"] == 100


def test_what_a_folder_says_without_its_weights(tmp_path: Path) -> None:
    assert unloaded_context_length(str(tmp_path)) is None
    assert unloaded_shows_tools(str(tmp_path))  # elsewhere: who knows
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 2048}')
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert unloaded_context_length(str(tmp_path)) == 2048
    assert not unloaded_shows_tools(str(tmp_path))
    (tmp_path / "chat_template.jinja").write_text("{{ tools }}")
    assert unloaded_shows_tools(str(tmp_path))
    assert unloaded_context_length("recallm-mini")
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"config\.json can't be read as JSON"):
        unloaded_context_length(str(tmp_path))
