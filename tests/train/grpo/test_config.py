"""Configs are checked by name and value, and settings that break exactness are refused."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from recallm_core.errors import RecallmError
from recallm_core.train.grpo.config import GrpoConfig, grpo_config, read_grpo_config
from recallm_core.train.grpo.exactness import refuse_inexact

FAMILIES = {"recall": 1.0}
CONFIGS = Path(str(files("recallm_core") / "train" / "configs"))


@pytest.mark.parametrize(
    "name", ["grpo", "grpo-qwen2.5-7b", "grpo-llama-3.1-8b", "grpo-smollm2-135m"]
)
def test_shipped_configs_are_read(name: str) -> None:
    config = read_grpo_config(CONFIGS / f"{name}.toml")
    assert config.attempts % config.device_batch == 0
    assert config.reward.response_tokens == config.response_tokens
    plain = config.to_dict() | {"reward": {"overlong_tokens": config.reward.overlong_tokens}}
    assert grpo_config(plain).families == config.families


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 1}, "unknown names"),
        ({"families": {"recal": 1}}, "unknown families"),
        ({"families": {}}, "at least one"),
        ({"rollouts": 1}, "at least 2"),
        ({"temperature": 0}, "above 0"),
        ({"temperature": "hot"}, "a number"),
        ({"steps": True}, "a whole number"),
        ({"min_lr_share": 2}, "from 0 to 1"),
        ({"evidence": "auto"}, "one of"),
        ({"prompt_tokens": [9, 3]}, "shortest, longest"),
        ({"prompts": 3, "rollouts": 3, "device_batch": 2}, "multiple"),
        ({"reward": {"overlap": 1}}, "true or false"),
        ({"reward": {"over": 1}}, "unknown names"),
        ({"trl": 3}, "a table"),
        ({"response_tokens": 100}, "every attempt counts as too long"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_right(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grpo_config({"families": FAMILIES} | values)


def test_a_config_that_is_no_toml_says_which_file(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("steps = ")
    with pytest.raises(RecallmError, match=r"x\.toml"):
        read_grpo_config(tmp_path / "x.toml")


@pytest.mark.parametrize(
    "setting",
    [
        {"top_p": 0.9},
        {"top_k": 40},
        {"min_p": 0.1},
        {"repetition_penalty": 1.1},
        {"use_vllm": True},
        {"use_liger_kernel": True},
        {"num_iterations": 2},
        {"fsdp": "full_shard"},
        {"trust_remote_code": True},
        {"mask_truncated_completions": True},
    ],
)
def test_what_would_break_exactness_is_refused_with_a_reason(setting: dict[str, Any]) -> None:
    with pytest.raises(RecallmError, match="would break exactness: "):
        refuse_inexact(setting)


def test_harmless_settings_pass() -> None:
    refuse_inexact({"loss_type": "grpo", "top_p": 1.0, "top_k": 0, "epsilon": 0.1})


def test_what_the_config_decides_and_trl_does_not_know_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="needs the extra grpo")
    from recallm_core.train.grpo.train import trl_settings

    for trl, message in (({"beta": 1.0}, "itself decides"), ({"betta": 1.0}, "can't use")):
        config = grpo_config({"families": FAMILIES, "precision": "fp32", "trl": trl})
        with pytest.raises(RecallmError, match=message):
            trl_settings(config, tmp_path)
    assert GrpoConfig().trl == {}
