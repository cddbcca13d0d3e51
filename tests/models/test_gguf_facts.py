"""``recallm model show`` of GGUF files: what stands in the header, without llama.cpp."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from recallm_core.cli import main
from recallm_core.cli.model import describe
from recallm_core.errors import CheckpointError


def test_a_files_facts_are_those_of_its_header(tmp_path: Path, tiny_gguf: Any) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "qwen2")
    facts = describe(str(path))
    assert (facts["architecture"], facts["model_type"], facts["window"]) == ("qwen2", "qwen2", 4096)
    assert (facts["files"], facts["vocabulary"], facts["chat_template"]) == (1, 300, True)
    assert facts["quantisation"] == {"F32": 1.0}
    assert 0 < facts["weights_bytes"] < path.stat().st_size
    assert facts["named_ids"] == {"<|im_start|>": 294, "<|im_end|>": 295, "<|endoftext|>": 299}
    assert facts["end_ids"] == [299, 295]
    assert facts["marks"] == {
        "<|start_recall|>": 290, "<|end_recall|>": 291, "<think>": 293, "</think>": 292,
    }  # fmt: skip
    assert facts["recipe"]["mode"] == "trained"


def test_a_split_file_is_told_as_one_and_ollamas_by_name(
    tmp_path: Path, tiny_gguf: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    tiny_gguf.write(tmp_path / "m.gguf", "gemma3", vocabulary=tiny_gguf.of_pieces())
    tiny_gguf.write(
        tmp_path / "s.gguf", "gemma3", vocabulary=tiny_gguf.of_pieces(), tensors_a_file=9
    )
    whole, split = describe(str(tmp_path / "m.gguf")), describe(str(tmp_path), "s-*")
    assert split["files"] == 4
    for key in whole.keys() - {"model", "file", "files"}:
        assert split[key] == whole[key]
    digest = hashlib.sha256(data := (tmp_path / "m.gguf").read_bytes()).hexdigest()
    store = tmp_path / "store"
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "latest"
    for folder in (manifest.parent, store / "blobs"):
        folder.mkdir(parents=True)
    (store / "blobs" / f"sha256-{digest}").write_bytes(data)
    layer = {
        "mediaType": "application/vnd.ollama.image.model",
        "digest": f"sha256:{digest}",
        "size": len(data),
    }
    manifest.write_text(json.dumps({"layers": [layer]}))
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    assert main(["model", "show", "ollama:tiny"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["weights_bytes"] == whole["weights_bytes"]
    assert told["marks"] == whole["marks"]


def test_an_unknown_tokenizer_is_said_and_damage_is_an_error(
    tmp_path: Path, tiny_gguf: Any
) -> None:
    path = tiny_gguf.write(tmp_path / "odd.gguf", tokenizer__ggml__pre="tomorrow")
    facts = describe(str(path))
    assert "tokenizer=FOLDER" in facts["tokenizer"]
    assert "recipe" not in facts
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="no whole GGUF file"):
        describe(str(path))
