"""Model folders: what loads, what is refused, and that nothing in them runs."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from recallm_core.backends.local.transformers import TransformersBackend, load
from recallm_core.errors import CheckpointError
from recallm_core.models.checkpoint import context_length_of, find_folder, transformers_config
from recallm_core.tokenization.tokenizer import HFTokenizer

RECALL_FIELDS = {
    "force_recall": True,
    "recall_tag_type": "token_id",
    "recall_start_str": "<recall>",
    "recall_end_str": "</recall>",
    "recall_start_token_id": 290,
    "recall_end_token_id": 291,
    "use_fast_recall": True,
    "max_recall_length": 128,
}


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def folder(kit: Any, tmp_path: Path) -> Path:
    kit.model("qwen2").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def loads(path: Path, **settings: Any) -> TransformersBackend:
    backend = load(path, device="cpu", **settings)
    backend.close()
    return backend


@pytest.mark.parametrize(("kind", "name"), [("qwen2", "RecaLLMQwen2"), ("llama", "RecaLLMLlama")])
def test_the_authors_checkpoints_load_as_plain_models(
    kit: Any, tmp_path: Path, kind: str, name: str
) -> None:
    model = kit.model(kind)
    model.save_pretrained(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "modelling_recallm.py").write_text(f"open({str(ran)!r}, 'w')")
    change(
        tmp_path,
        **RECALL_FIELDS,
        model_type=f"recallm_{kind}",
        architectures=[f"{name}ForCausalLM"],
        auto_map={
            "AutoConfig": f"modelling_recallm.{name}Config",
            "AutoModelForCausalLM": f"modelling_recallm.{name}ForCausalLM",
        },
    )
    config = transformers_config(tmp_path)
    assert config.model_type == kind
    assert not any(hasattr(config, field) for field in RECALL_FIELDS)
    backend = load(tmp_path, device="cpu")
    assert type(backend.model) is type(model)
    assert not ran.exists()
    request = kit.request(kit.prompt(40, 1), max_new_tokens=20)
    assert kit.read(backend, request) == kit.reference(model, request)
    backend.close()


def test_yarn_of_the_authors_lengthens_the_context(folder: Path) -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    change(
        folder,
        **RECALL_FIELDS,
        model_type="recallm_qwen2",
        max_position_embeddings=1024,
        rope_scaling=scaling,
        rope_parameters=None,
    )
    backend = loads(folder)
    assert backend.window == 4096
    assert backend.model.config.rope_parameters["rope_type"] == "yarn"


@pytest.mark.parametrize(
    ("rope", "context_length"),
    [
        (None, 2048),
        ({"rope_type": "default"}, 2048),
        ({"rope_type": "linear", "factor": 2.0}, 4096),
        ({"rope_type": "dynamic", "factor": 2.0}, 4096),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048),
        (
            {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 256,
             "low_freq_factor": 1.0, "high_freq_factor": 4.0},
            2048,
        ),
    ],
)  # fmt: skip
def test_context_lengths(rope: dict[str, Any] | None, context_length: int) -> None:
    config = transformers.LlamaConfig(max_position_embeddings=2048, rope_scaling=rope)
    assert context_length_of(config) == context_length


def test_a_model_without_a_context_length_needs_one(kit: Any) -> None:
    with pytest.raises(CheckpointError, match="window="):
        TransformersBackend(kit.model("bloom", n_head=4, n_layer=2, max_position_embeddings=None))


def test_weights_types_are_chosen_or_given(folder: Path) -> None:
    assert loads(folder).model.dtype == torch.float32
    assert loads(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    assert loads(folder, dtype=torch.float16).model.dtype == torch.float16
    with pytest.raises(ValueError, match="one of"):
        loads(folder, dtype="int8")


@pytest.mark.parametrize("name", ["trust_remote_code", "use_safetensors", "config"])
def test_safety_cant_be_switched_off(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        loads(folder, model_kwargs={name: True})


def test_a_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model folder at"):
        loads(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no model folder at"):
        find_folder("just-a-name")
    with pytest.raises(CheckpointError, match="neither a folder here nor a model"):
        find_folder("someone/something", local_files_only=True)


def test_pickles_are_refused_with_the_way_out(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickles.*safe_serialization"):
        loads(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        loads(folder)


def test_adapters_are_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="merge"):
        loads(folder)


@pytest.mark.parametrize("text", [None, "", "[]", "{", "\x00", '{"model_type": "no-such-type"}',
                                  '{"model_type": 3}', '{"model_type": "qwen2", "vocab_size": "x"}',
                                  "{}"])  # fmt: skip
def test_configs_that_make_no_sense(folder: Path, text: str | None) -> None:
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config|model_type|can't be loaded|model folder"):
        loads(folder)


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        loads(folder)


def test_weights_that_dont_fill_the_config_are_refused_before_they_are_allocated(
    folder: Path,
) -> None:
    change(folder, hidden_size=1 << 20)
    with pytest.raises(CheckpointError, match="don't belong together"):
        loads(folder)
    for layers, told in ((10**9, "more than any model has"), (500, "500 layers")):
        change(folder, hidden_size=32, num_hidden_layers=layers, layer_types=None)
        with pytest.raises(CheckpointError, match=told):
            loads(folder)


def test_missing_weights_are_never_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 .*up_proj"):
        loads(folder)


def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    shutil.move(folder / "model.safetensors", outside)
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(CheckpointError, match="links out"):
        loads(folder)


def test_a_hub_cache_snapshot_links_to_its_blobs(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "hub" / "models--a--b"
    (home / "blobs").mkdir(parents=True)
    snapshot = home / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        path.rename(home / "blobs" / path.name)
        (snapshot / path.name).symlink_to(home / "blobs" / path.name)
    assert loads(snapshot).vocab_size == 300
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(tmp_path / "hub" / "elsewhere")
    with pytest.raises(CheckpointError, match="links out"):
        loads(snapshot)


def test_shards_load_and_their_names_stay_inside(kit: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    kit.model("llama").save_pretrained(folder, max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    assert index.is_file()
    assert loads(folder).vocab_size == 300
    data = json.loads(index.read_text())
    first = next(iter(data["weight_map"]))
    for bad in ("../outside.safetensors", "/etc/passwd", "missing.safetensors"):
        index.write_text(json.dumps({"weight_map": data["weight_map"] | {first: bad}}))
        with pytest.raises(CheckpointError, match="isn't a file in that folder"):
            loads(folder)


# sizes of anything else than weights


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.fixture
def gptj(tmp_path: Path) -> Path:
    """A model that makes a table of its positions, which no file holds."""
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 1, "vocab_size": 64, "rotary_dim": 4}
    config = transformers.GPTJConfig(**sizes, n_positions=32, bos_token_id=0, eos_token_id=0)
    transformers.GPTJForCausalLM(config).save_pretrained(tmp_path / "gptj")
    return tmp_path / "gptj"


def test_tables_that_a_model_makes_are_bounded_before_they_are(gptj: Path) -> None:
    loads(gptj)
    for positions in (20_000_000, 10_000_000_000, 2**39):
        change(gptj, n_positions=positions)
        before = peak_bytes()
        with pytest.raises(CheckpointError, match="describes tables of"):
            loads(gptj)
        assert peak_bytes() - before < 100_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", -16),
        ("hidden_size", 0),
        ("hidden_size", 2**40),
        ("hidden_size", 10**400),
        ("hidden_size", 1e300),
        ("hidden_size", float("nan")),
        ("hidden_size", "wide"),
        ("hidden_size", [1]),
        ("vocab_size", -1),
        ("num_attention_heads", 0),
        ("num_attention_heads", float("inf")),
        ("num_hidden_layers", -3),
        ("num_hidden_layers", None),
        ("intermediate_size", {"a": 1}),
        ("hidden_act", "no such function"),
        ("rope_parameters", {"rope_type": "no such type"}),
        ("rope_parameters", [1]),
        ("torch_dtype", "int3"),
        ("architectures", 5),
        ("quantization_config", {"quant_method": "nothing"}),
        ("max_position_embeddings", -5),
        ("max_position_embeddings", True),
    ],
)
def test_a_config_of_nonsense_is_an_error_of_ours_or_harmless(
    folder: Path, name: str, value: Any
) -> None:
    change(folder, **{name: value})
    with contextlib.suppress(CheckpointError):
        loads(folder)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -1, 1e300, "x", None])
@pytest.mark.parametrize("kind", ["yarn", "linear", "dynamic"])
def test_a_context_length_is_a_number_whatever_the_config_says(factor: Any, kind: str) -> None:
    rope = {"rope_type": kind, "factor": factor, "original_max_position_embeddings": factor}
    config = transformers.LlamaConfig(max_position_embeddings=128)
    config.rope_parameters = rope
    assert context_length_of(config) == 128


def test_a_table_that_code_would_make_number_by_number_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "pegasus", "max_position_embeddings": 10**9, "d_model": 1024}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="work out for hours"):
        transformers_config(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "9" * 5000, "\xff", ""]
)
def test_a_config_that_is_no_object_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError):
        transformers_config(folder)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("config.json", 5 << 20),
        ("tokenizer_config.json", 5 << 20),
        ("tokenizer.json", 65 << 20),
        ("generation_config.json", 5 << 20),
        ("model.safetensors.index.json", 65 << 20),
        ("special_tokens_map.json", 33 << 20),
        ("chat_template.jinja", 2 << 20),
        ("vocab.txt", 65 << 20),
    ],
)
def test_files_beside_the_weights_are_bounded(folder: Path, name: str, size: int) -> None:
    with (folder / name).open("wb") as made:
        made.truncate(size)  # no disk is used
    with pytest.raises(CheckpointError, match="more than any model's has"):
        loads(folder)
    with pytest.raises(CheckpointError, match="more than any model's has"):
        HFTokenizer.from_folder(folder)


def test_ids_of_a_generation_config_are_numbers_or_left_out(folder: Path) -> None:
    config = {"eos_token_id": [1, -2, 3]}
    (folder / "generation_config.json").write_text(json.dumps(config))
    assert loads(folder).eos_ids == (1, 3)


def test_a_tokenizer_whose_ids_reach_into_the_billions_is_refused(tmp_path: Path) -> None:
    state = {"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 4_000_000_000}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="ids up to 4,000,000,000"):
        HFTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    config = {"added_tokens_decoder": {"4000000000": {"content": "x"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="ids up to 4,000,000,000"):
        HFTokenizer.from_folder(tmp_path)
