"""``recallm serve``: what it starts, and what it refuses to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from recallm_core import cli
from recallm_core.backends.vllm import setup as vllm_setup
from recallm_core.cli import serve as serve_cli
from recallm_core.errors import RecallmError
from recallm_core.models import shipped

KEY = "a-key-of-enough-characters"
GOLDEN = Path(__file__).parent.parent / "golden"
MINI = shipped("recallm-mini")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RECALLM_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What would have been executed, with vLLM seemingly there."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        assert path == command[0]
        found.append((command, environment))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(vllm_setup, "is_installed", lambda: True)
    monkeypatch.setattr(serve_cli, "_is_named_vllm", lambda: True)
    return found


def serve(*argv: str) -> int:
    try:
        return cli.main(["serve", *argv])
    except SystemExit as ended:
        return int(ended.code or 0)


def test_what_is_started(started: Any) -> None:
    assert serve("recallm-mini", "--max-model-len", "4096", "--tensor-parallel-size=2") == 0
    ((command, environment),) = started
    assert command == [
        *(sys.executable, "-P", "-m", "vllm.entrypoints.cli.main", "serve", str(MINI)),
        *("--served-model-name", "recallm-mini", "--host", "127.0.0.1", "--port", "8000"),
        *("--tensor-parallel-size", "2"),
        *("--load-format", "safetensors", "--generation-config", "vllm"),
        *("--logits-processors", "recallm_core.backends.vllm_processor:RecallProcessor"),
        *("--middleware", "recallm_core.serving.app.RecallMiddleware"),
        *("--enable-prefix-caching", "--enable-prompt-tokens-details"),
        *("--max-model-len", "4096"),
    ]
    told = json.loads(environment["RECALLM_SERVED"])
    assert told == {"folder": str(MINI), "model": "recallm-mini", "keys": []}
    assert environment["HF_HUB_OFFLINE"] == environment["PYTHONSAFEPATH"] == "1"


def test_a_server_for_training_takes_adapters_from_one_folder(
    started: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_LORA_RESOLVER_HF_REPO_LIST", "some/repo")
    folder = tmp_path / "run" / "adapters"
    assert serve("recallm-mini", "--adapters", str(folder), "--max-lora-rank", "8") == 0
    ((command, environment),) = started
    assert folder.is_dir()
    assert json.loads(environment["RECALLM_SERVED"])["adapters"] == str(folder)
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "VLLM_LORA_RESOLVER_HF_REPO_LIST" not in environment
    first, last = command.index("--max-lora-rank"), len(command) - 2
    assert command[first + 1 :: last - first] == ["64", "8"]  # the caller's comes last, and counts
    assert command[command.index("--logprobs-mode") + 1] == "processed_logprobs"
    assert serve("recallm-mini", "--enable-lora") == 1


def test_a_repackaged_vllm_is_started_by_its_older_module(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_cli, "_is_named_vllm", lambda: False)
    serve("recallm-mini")
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(MINI)]
    assert started[0][0][2:6] == words


def test_prompts_are_read_whole_where_vllm_needs_that(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = "--no-enable-chunked-prefill"
    serve("recallm-mini")
    monkeypatch.setattr(vllm_setup, "reads_prompts_whole", lambda: True)
    serve("recallm-mini")
    assert [flag in command for command, _ in started] == [False, True]


def test_keys_are_digests_in_the_environment_and_nowhere_else(
    started: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECALLM_API_KEY", KEY)
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    more = tmp_path / "keys"
    more.write_text(f"{KEY}-2\n\n{KEY}\n")
    assert serve("recallm-mini", "--host", "0.0.0.0", "--api-key-file", str(more)) == 0
    ((command, environment),) = started
    digests = [hashlib.sha256(k.encode()).hexdigest() for k in (KEY, KEY + "-2")]
    assert json.loads(environment["RECALLM_SERVED"])["keys"] == digests
    assert not any(KEY in word for word in (*command, *environment.values()))
    assert not {"VLLM_SERVER_DEV_MODE", "VLLM_USE_RUST_FRONTEND"} & environment.keys()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_other_machines_need_a_key(
    host: str, started: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve("recallm-mini", "--host", host) == 1
    assert "RECALLM_API_KEY" in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_this_machine_does_not(host: str) -> None:
    serve_cli.check_host(host, ())


def test_a_short_key_is_refused(
    started: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECALLM_API_KEY", "letmein")
    assert serve("recallm-mini") == 1
    assert "at least 16" in capsys.readouterr().err
    assert "letmein" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--trust-remote-code"], "never runs"),
        (["--trust_remote_code"], "never runs"),
        (["--trust-rem"], "short for --trust-remote-code"),
        (["--config", "x.yaml"], "a file could set"),
        (["--load-format=pt"], "only safetensors"),
        (["--load_format", "dummy"], "only safetensors"),
        (["--tokenizer", "other"], "model's own folder"),
        (["--speculative-config", "{}"], "drafted tokens"),
        (["--speculative-config.method", "ngram"], "drafted tokens"),
        (["-sc", "{}"], "drafted tokens"),
        (["--spec-model", "x"], "drafted tokens"),
        (["--logits-processors", "a:B"], "sets it"),
        (["--enable-lora"], "adapter"),
        (["--api-key", "x" * 20], "don't belong in a command line"),
        (["--grpc"], "without keys"),
        (["--enable-prompt-embeds"], "token ids"),
        (["--hf-config-path", "x"], "configuration"),
        (["--", "--trust-remote-code"], "directly|never runs"),
    ],
)
def test_flags_that_loosen_the_promises_are_refused(
    words: list[str], part: str, started: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert serve("recallm-mini", *words) in (1, 2)
    assert re.search(part, capsys.readouterr().err)
    assert started == []


def test_every_refused_flag_is_refused_in_every_spelling() -> None:
    for flag in serve_cli.REFUSED:
        for spelled in (flag, flag[:-1], flag + "=x", flag + ".a", flag.replace("-", "_")):
            word = "--" + spelled[2:]
            with pytest.raises(RecallmError, match="is refused"):
                serve_cli.check_flags([serve_cli._with_dashes(word)])


@pytest.mark.parametrize(
    "flag",
    ["--dtype", "--max-model-len", "--model-impl", "--config-format", "--quantization", "-O3"],
)
def test_other_flags_pass(flag: str) -> None:
    serve_cli.check_flags([flag, "value"])


def test_wrong_usage(capsys: pytest.CaptureFixture[str], started: Any) -> None:
    assert serve("--port", "80") == 2
    assert serve() == 2
    assert serve("recallm-mini", "--data-parallel-size", "0") == 2
    assert "give the model first" in capsys.readouterr().err


def test_an_unsafe_or_missing_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], started: Any
) -> None:
    assert serve(str(tmp_path / "nowhere")) == 1
    assert MINI is not None
    folder = tmp_path / "pickled"
    shutil.copytree(MINI, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert serve(str(folder)) == 1
    assert "pickles" in capsys.readouterr().err
    assert started == []


def test_an_adapter_is_merged_into_its_base_and_a_whole_model_has_none(
    tmp_path: Path, started: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from recallm_core.models import merging

    assert MINI is not None
    calls: list[tuple[Path, str | None]] = []
    monkeypatch.setattr(merging, "merged", lambda *given: calls.append(given) or MINI)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert serve(str(tmp_path), "--base", "some/base") == 0
    assert calls == [(tmp_path, "some/base")]
    assert started[0][0][5] == str(MINI)
    assert serve("recallm-mini", "--base", "some/base") == 1
    assert "leave --base out" in capsys.readouterr().err


def test_a_checkpoint_of_the_authors_is_served_as_what_it_is(
    tmp_path: Path, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MINI is not None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    shutil.copytree(MINI, folder)
    config = json.loads((folder / "config.json").read_text())
    named = {"model_type": "recallm_llama", "auto_map": {"AutoModel": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config | named))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    for _ in range(2):
        assert serve(str(folder)) == 0
    (command, environment), again = started
    assert again[0] == command
    served = Path(command[5])
    plain = json.loads((served / "config.json").read_text())
    assert (plain["model_type"], plain["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert "auto_map" not in plain
    assert not (served / "evil.py").exists()
    assert (served / "model.safetensors").resolve() == folder / "model.safetensors"
    assert json.loads(environment["RECALLM_SERVED"])["model"] == str(folder)


def test_without_vllm_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_setup, "is_installed", lambda: False)
    assert serve("recallm-mini") == 1
    assert "pip install 'recallm-core[vllm]'" in capsys.readouterr().err


def test_a_dry_run_shows_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_setup, "is_installed", lambda: False)
    assert serve("recallm-mini", "--dry-run") == 0
    assert "--enable-prefix-caching" in capsys.readouterr().out


def test_help_is_what_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert serve("--help") == 0
    found = capsys.readouterr().out
    golden = GOLDEN / "serve_help.txt"
    if os.environ.get("RECALLM_UPDATE_GOLDEN"):
        golden.write_text(found)  # read the difference
    assert found == golden.read_text()
