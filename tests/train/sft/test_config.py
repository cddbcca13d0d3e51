from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import recallm_core.train as train_package
from recallm_core.cli.train import main
from recallm_core.errors import MissingExtraError, RecallmError
from recallm_core.train.sft.config import Stage, read_sft_config, sft_config
from recallm_core.train.tasks.curriculum import Curriculum

CONFIGS = Path(train_package.__file__).parent / "configs"
TASKS = {"tasks": {"key_value": 1}}


@pytest.mark.parametrize("name", ["sft", "qwen2.5-7b", "llama-3.1-8b"])
def test_shipped_configs_have_the_hyperparameters_of_the_paper(name: str) -> None:
    config = read_sft_config(CONFIGS / f"{name}.toml")
    assert config.embeddings == Stage(5, 5e-5)
    assert config.all_weights == Stage(1, 2e-6)
    assert (config.global_batch, config.max_tokens, config.min_lr_share) == (32, 16_000, 0.1)
    assert abs(sum(config.tasks.values()) - 1) < 1e-9
    assert {"key_value", "multi_needle", "compute_then_retrieve"} < set(config.tasks)


def test_the_shipped_config_for_a_small_model_trains_adapters_on_short_rows() -> None:
    config = read_sft_config(CONFIGS / "smollm2-135m.toml")
    assert config.adapter_rank == 8
    assert config.max_tokens <= 1024
    assert abs(sum(config.tasks.values()) - 1) < 1e-9
    assert sft_config(config.to_dict()) == config
    with pytest.raises(ValueError, match="adapter_rank must be a whole number"):
        sft_config(config.to_dict() | {"adapter_rank": -1})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("accelerate-*.yaml")), ids=lambda p: p.name)
def test_accelerate_takes_the_shipped_settings(path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    read = ClusterConfig.from_yaml_file(str(path))
    assert read.num_processes == 4
    if "fsdp" in path.name:
        import transformers

        layer = read.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]
        family = path.stem.rpartition("-")[2]
        assert hasattr(getattr(transformers.models, family), f"modeling_{family}")
        assert layer.lower() == f"{family}decoderlayer"


def test_the_path_of_shipped_settings_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    shown = capsys.readouterr().out.split()
    assert str(CONFIGS / "accelerate-ddp.yaml") in shown
    assert str(CONFIGS / "qwen2.5-7b.toml") in shown


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learning_rate": 1}, r"unknown names \['learning_rate'\].*known are.*'embeddings'"),
        ({"embeddings": {"rate": 1}}, r"\['rate'\] in \[embeddings\]; known are \['epochs', 'lr'"),
        ({"tasks": {"magic": 1}}, r"\['magic'\] in \[tasks\]; known are.*'two_hop'"),
        ({"tasks": {}}, "at least one of"),
        ({"tasks": {"key_value": 0}}, "at least one of"),
        ({"tasks": {"key_value": -1}}, "at least 0"),
        ({"tasks": 3}, "table of shares"),
        ({"examples": 0}, "examples must be a whole number of at least 1"),
        ({"examples": True}, "whole number"),
        ({"examples": "many"}, "whole number"),
        ({"min_lr_share": 2}, r"min_lr_share must be a number in \[0, 1\]"),
        ({"working": 1.5}, r"working must be a number in \[0, 1\]"),
        ({"warmup": float("nan")}, "warmup must be a number"),
        ({"context_tokens": [100]}, "shortest, longest"),
        ({"context_tokens": [100, 20_000]}, "at most max_tokens"),
        ({"context_tokens": [900, 100]}, "shortest, longest"),
        ({"precision": "int4"}, "precision must be one of"),
        ({"global_batch": 10, "device_batch": 4}, "multiple of device_batch"),
        ({"data": "yes"}, "true or false"),
        ({"model": 7}, "a string"),
        ({"lessons": "a.jsonl"}, "list of paths"),
        ({"embeddings": {"lr": -1}}, "embeddings.lr must be a number at least 0"),
    ],
)
def test_wrong_values_say_what_is_wanted(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sft_config(TASKS | values)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    for text, said in (("x =", "broken.toml"), ("speed = 1", "unknown names")):
        path.write_text(text)
        with pytest.raises(RecallmError, match=said):
            read_sft_config(path)
    with pytest.raises(RecallmError, match=r"none\.toml"):
        read_sft_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("task", "said"), [("fact", "RECALLM_DATA"), ("cloze", "texts = "), ("own", "lessons = ")]
)
def test_a_task_without_its_source_says_what_it_needs(task: str, said: str) -> None:
    with pytest.raises(RecallmError, match=said):
        Curriculum({task: 1.0})


def test_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["sft"]) == 1
    assert "--out FOLDER" in capsys.readouterr().err
    assert main(["sft", "--out", str(tmp_path)]) == 1
    assert "recallm model create" in capsys.readouterr().err
    assert main(["sft", "--out", str(tmp_path), "--model", str(tmp_path / "no")]) == 1
    assert "no model folder at" in capsys.readouterr().err
    monkeypatch.setattr("recallm_core.cli.train.find_spec", lambda name: None)
    assert main(["sft", "--out", str(tmp_path)]) == 1
    assert "pip install 'recallm-core[train]'" in capsys.readouterr().err
    assert issubclass(MissingExtraError, RecallmError)
    monkeypatch.setattr("recallm_core.cli.train.find_spec", lambda name: name != "peft" or None)
    assert main(["sft", "--out", str(tmp_path), "--config", "smollm2-135m"]) == 1
    assert "needs peft: pip install 'recallm-core[grpo]'" in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom recallm_core.cli.train import main\n"
        "try:\n    main(['sft', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout
