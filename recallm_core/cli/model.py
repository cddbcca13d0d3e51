"""``recallm model``: create a trainable checkpoint, merge an adapter, show what one is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from recallm_core.inputs.arguments import MOST, whole_option
from recallm_core.inputs.model_config import read_config
from recallm_core.models import SHIPPED, shipped
from recallm_core.models.adapters import CONFIG, is_adapter

_BASE = "base_model_name_or_path"


def add_parser(subparsers: Any) -> None:
    """Adds ``recallm model create``, ``merge`` and ``show``."""
    parser = subparsers.add_parser("model", help="create, merge or inspect checkpoints")
    commands = parser.add_subparsers(dest="model_command", required=True, metavar="COMMAND")
    make = commands.add_parser("create", help="add the four recall tokens to a base model")
    make.add_argument("base", metavar="BASE", help="a Qwen2, Qwen3 or Llama folder or hub id")
    make.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    make.add_argument(
        "--seed", type=whole_option(0, MOST), default=0, help="of the new rows' noise (default: 0)"
    )
    make.add_argument("--dtype", default="auto", help="of the saved weights (default: the base's)")
    make.add_argument(
        "--system", metavar="TEXT", help="the instructions that it is trained with (the paper's)"
    )
    make.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    make.set_defaults(run=_create)
    _add_merge(commands)
    show = commands.add_parser("show", help="what a checkpoint is and how it is driven")
    show.add_argument(
        "model",
        metavar="MODEL",
        help=f"a folder, a GGUF file, ollama:NAME, or one of {', '.join(SHIPPED)}",
    )
    show.add_argument("--gguf", metavar="PATTERN", help="which GGUF file of a folder")
    show.set_defaults(run=_show)


def _add_merge(commands: Any) -> None:
    joined = commands.add_parser("merge", help="put an adapter into its base model")
    joined.add_argument(
        "adapter", metavar="ADAPTER", help="a folder or hub id of an adapter (LoRA)"
    )
    joined.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    joined.add_argument("--base", help="folder or hub id of its base (default: what it names)")
    joined.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    joined.set_defaults(run=_merge)


def _merge(args: argparse.Namespace) -> int:
    from recallm_core.models.merging import merge

    print(f"wrote {merge(args.adapter, args.out, base=args.base, overwrite=args.overwrite)}")
    return 0


def _create(args: argparse.Namespace) -> int:
    from recallm_core.models.create import create

    folder = create(
        args.base,
        args.out,
        seed=args.seed,
        dtype=args.dtype,
        overwrite=args.overwrite,
        system=args.system,
    )
    print(f"wrote {folder}; train it next: recallm train sft --model {folder} --out runs/sft")
    return 0


def _show(args: argparse.Namespace) -> int:
    print(json.dumps(describe(args.model, args.gguf), indent=2, ensure_ascii=False))
    return 0


def describe(model: str, gguf: str | None = None) -> dict[str, Any]:
    """Returns what can be said of a checkpoint without loading its weights.

    Args:
        model: A folder, a GGUF file, ``ollama:NAME``, or the name of a model that ships with this.
        gguf: Which GGUF file of a folder.

    Raises:
        CheckpointError: It isn't a local model folder, or its recipe is broken.
        TokenizerError: Its tokenizer can't be used.
    """
    from dataclasses import asdict

    from recallm_core.errors import CheckpointError
    from recallm_core.models.gguf_files import gguf_file
    from recallm_core.models.recipes import choose_recipe
    from recallm_core.tokenization.tokenizer import HFTokenizer

    file = None if shipped(model) else gguf_file(model, gguf, local_files_only=True)
    if file is not None:
        from recallm_core.models.gguf_facts import facts_of

        return {"model": model, **facts_of(file)}
    folder = shipped(model) or Path(model)
    adapter = is_adapter(folder)
    if not adapter and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"no model folder at {folder} (config.json is missing); download a hub model first"
        )
    config = read_config(folder)
    tokenizer = HFTokenizer.from_folder(folder)
    recipe = choose_recipe(folder, "auto", tokenizer)
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "model": folder.name,
        **({"adapter_of": read_config(folder, CONFIG).get(_BASE)} if adapter else {}),
        "model_type": config.get("model_type"),
        "window": config.get("max_position_embeddings"),
        "weights_bytes": sum(file.stat().st_size for file in weights),
        "vocabulary": tokenizer.vocab_size,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "marks": {
            mark: tokenizer.control_id(mark)
            for mark in (recipe.open, recipe.close, recipe.think_open, recipe.think_close)
            if mark
        },
        "recipe": asdict(recipe),
    }
