"""``recallm serve``: a vLLM server that holds its output to the documents, started safely."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from recallm_core.backends.vllm import setup as vllm_setup
from recallm_core.backends.vllm.connection import KEY_VARIABLE
from recallm_core.backends.vllm.manifest import PROCESSOR
from recallm_core.errors import CheckpointError, RecallmError
from recallm_core.inputs.arguments import MOST_THREADS, whole_option
from recallm_core.serving.app import SETTINGS, is_loopback

MIDDLEWARE = "recallm_core.serving.app.RecallMiddleware"
_LEAST_KEY = 16  # characters: keys are also what cache salts are made of
_MAX_KEYS = 1_000_000  # bytes of a file of keys

_EPILOG = """\
Everything else is handed to vLLM, such as --max-model-len, --gpu-memory-utilization, --dtype or
--quantization (vllm serve --help=all lists them). What would run a checkpoint's code, or loosen
what the server promises, is refused.

examples:
  recallm serve recallm-mini
  recallm serve Qwen/Qwen3-8B --tensor-parallel-size 2 --max-model-len 131072
  RECALLM_API_KEY=... recallm serve ./model --host 0.0.0.0 --data-parallel-size 4

Then, anywhere: RecaLLM.load("http://127.0.0.1:8000")
"""

REFUSED: Mapping[str, str] = {
    **{f"--{name.replace('_', '-')}": why for name, why in vllm_setup.REFUSED.items()},
    "--api-key": f"keys don't belong in a command line; set {KEY_VARIABLE} or give --api-key-file",
    "--config": "a file could set what is refused here; give its flags themselves",
    "--tokenizer": "clients build prompts with the tokenizer of the model's own folder",
    "--trust-request-chat-template": "a client's template would run on the server",
    "--grpc": "it would answer without keys and without the manifest for clients",
    "--grpc-port": "it would answer without keys and without the manifest for clients",
    "--omni": "only text models are served",
}
_SHORT = {"-sc": "--speculative-config"}
# Each would open a way around what is refused above, or around the keys.
_UNSET = (
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "VLLM_LORA_RESOLVER_CACHE_DIR",
    "VLLM_LORA_RESOLVER_HF_REPO_LIST",
    "VLLM_RUST_FRONTEND_PATH",
    "VLLM_SERVER_DEV_MODE",
    "VLLM_USE_MODELSCOPE",
    "VLLM_USE_RUST_FRONTEND",
)
_TRAINING = ("--enable-lora", "--max-lora-rank", "64", "--logprobs-mode", "processed_logprobs")
_SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of what this command itself understands."""
    arguments = argparse.ArgumentParser(
        prog="recallm serve",
        usage="recallm serve MODEL [options] [flags of vllm serve]",
        description="Starts a vLLM server for RecaLLM.load('http://...').",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    arguments.add_argument("model", metavar="MODEL", help="recallm-mini, a folder or a hub id")
    arguments.add_argument(
        "--base", metavar="MODEL", help="folder or hub id of what an adapter goes on; it is merged"
    )
    what = ("GPUs that share each layer", "stages of layers", "copies of the model")
    for name, text in zip(_SIZES, what, strict=True):
        arguments.add_argument(
            f"--{name}", type=whole_option(1, MOST_THREADS), metavar="N", default=1, help=text
        )
    arguments.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    arguments.add_argument(
        "--port", type=whole_option(1, 65_535), default=8000, help="port to listen on (%(default)s)"
    )
    arguments.add_argument(
        "--api-key-file",
        metavar="FILE",
        type=Path,
        help=f"keys that clients may use, one a line; or one key in {KEY_VARIABLE}",
    )
    arguments.add_argument("--served-model-name", metavar="NAME", help="what clients see (MODEL)")
    arguments.add_argument("--revision", help="branch, tag or commit of a hub id")
    arguments.add_argument(
        "--adapters",
        metavar="FOLDER",
        type=Path,
        help="for recallm train grpo: load adapters of MODEL from here while it serves",
    )
    arguments.add_argument(
        "--dry-run", action="store_true", help="check, show the command, and stop"
    )
    return arguments


def main(argv: Sequence[str]) -> int:
    """Checks everything, then becomes the server: signals reach it directly.

    Raises:
        MissingExtraError: vLLM isn't installed.
        RecallmError: The model can't be served safely, or a flag is refused.
    """
    args, extra = _read(argv)
    check_flags(extra)
    keys = keys_of(args)
    check_host(args.host, keys)
    if not args.dry_run:
        vllm_setup.check_installed()
    folder = _checked_folder(args.model, args.revision, args.base)
    name = args.served_model_name or str(args.model)
    command = _command(args, folder, name, extra)
    if args.dry_run:
        print(shlex.join(command))
        return 0
    environment = settings(os.environ, folder=folder, name=name, keys=keys, adapters=args.adapters)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)


def _read(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    arguments = parser()
    words = [_with_dashes(word) for word in argv]
    if words and words[0].startswith("-") and not {"-h", "--help"} & set(words):
        arguments.error("give the model first: recallm serve MODEL [options]")
    args, extra = arguments.parse_known_args(words)
    return args, extra


def _with_dashes(word: str) -> str:
    """A flag as vLLM reads it: underscores in its name are dashes."""
    flag, mark, rest = re.match(r"([^=.]*)([=.]?)(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr] # matches any text
    return (flag.replace("_", "-") if flag.startswith("--") else flag) + mark + rest


def check_flags(extra: Sequence[str]) -> None:
    """Checks the flags that are handed to vLLM.

    Raises:
        RecallmError: One is refused; also where it is shortened, as vLLM would complete it.
    """
    for word in extra:
        flag = re.split(r"[=.]", word, maxsplit=1)[0] if word.startswith("-") else ""
        flag = _SHORT.get(flag, flag)
        if flag == "--":
            raise RecallmError("give the flags of vLLM directly, without '--' before them")
        if vllm_setup.plain_name(flag[2:].replace("-", "_")) == vllm_setup.SPECULATIVE:
            flag = "--speculative-config"
        refused = [name for name in REFUSED if len(flag) > 2 and name.startswith(flag)]
        if refused:
            meant = "" if flag == refused[0] else f" (short for {refused[0]})"
            raise RecallmError(f"{flag}{meant} is refused: {REFUSED[refused[0]]}")


def check_host(host: str, keys: Sequence[str]) -> None:
    """Checks that whoever can reach the server needs a key, unless it is only this machine.

    Raises:
        RecallmError: The address is reachable from elsewhere and there is no key, or a short one.
    """
    short = [key for key in keys if len(key) < _LEAST_KEY]
    if short:
        raise RecallmError(
            f"a key has only {len(short[0])} characters; use at least {_LEAST_KEY} random ones, "
            "for instance from: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    if not keys and not is_loopback(host.strip("[]")):
        raise RecallmError(
            f"a server on {host} can be reached from other machines, so it wants a key: set "
            f"{KEY_VARIABLE} or give --api-key-file, or listen on 127.0.0.1 only"
        )


def keys_of(args: argparse.Namespace) -> tuple[str, ...]:
    """Returns the keys that clients may use; they never stand in the command line.

    Raises:
        RecallmError: The file of keys is very large, or holds none.
    """
    lines = [os.environ.get(KEY_VARIABLE, ""), os.environ.get("VLLM_API_KEY", "")]
    if args.api_key_file is not None:
        if args.api_key_file.stat().st_size > _MAX_KEYS:
            raise RecallmError(f"{args.api_key_file} is too large for a file of keys")
        lines += args.api_key_file.read_text("utf-8").splitlines()
        if not any(line.strip() for line in lines):
            raise RecallmError(f"{args.api_key_file} holds no key")
    return tuple(dict.fromkeys(key.strip() for key in lines if key.strip()))


def _checked_folder(model: str, revision: str | None, base: str | None) -> Path:
    """The model's local folder, checked as for loading in process; nothing of it runs.

    Raises:
        CheckpointError: It is missing, unsafe, damaged, or of a kind that needs code, or there is
            a base and no adapter.
        TokenizerError: Its tokenizer gives no exact offsets.
    """
    from recallm_core.models import shipped
    from recallm_core.models.adapters import is_adapter
    from recallm_core.models.checkpoint import find_folder
    from recallm_core.models.merging import merged
    from recallm_core.tokenization.tokenizer import HFTokenizer

    folder = find_folder(shipped(model) or model, revision=revision).resolve()
    if is_adapter(folder):
        folder = merged(folder, base)
    elif base is not None:
        raise CheckpointError(f"{folder} holds a whole model, not an adapter; leave --base out")
    HFTokenizer.from_folder(folder)
    return vllm_setup.checked_folder(folder)[0]


def _command(
    args: argparse.Namespace, folder: Path, name: str, extra: Sequence[str]
) -> list[str]:  # fmt: skip
    sizes = {size: getattr(args, size.replace("-", "_")) for size in _SIZES}
    return [
        sys.executable,
        "-P",  # no module of the folder that this was started in
        *_entry(folder),
        *("--served-model-name", name),
        *("--host", args.host),
        *("--port", str(args.port)),
        *(word for size, n in sizes.items() if n > 1 for word in (f"--{size}", str(n))),
        *("--load-format", "safetensors"),
        *("--generation-config", "vllm"),
        *("--logits-processors", PROCESSOR),
        *("--middleware", MIDDLEWARE),
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        *(["--no-enable-chunked-prefill"] if vllm_setup.reads_prompts_whole() else []),
        *(_TRAINING if args.adapters is not None else ()),
        *extra,
    ]


def _entry(folder: Path) -> list[str]:
    """How vLLM is started: its command looks itself up as the distribution ``vllm``.

    Repackaged builds, such as those for CPUs, have another name and only the older module.
    """
    if vllm_setup.is_installed() and not _is_named_vllm():
        return ["-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    return ["-m", "vllm.entrypoints.cli.main", "serve", str(folder)]


def _is_named_vllm() -> bool:
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return False
    return True


def settings(
    environment: Mapping[str, str],
    *,
    folder: Path,
    name: str,
    keys: Sequence[str],
    adapters: Path | None = None,
) -> dict[str, str]:
    """Returns the server's environment: what its middleware needs, and nothing that loosens it."""
    variables: MutableMapping[str, str] = {k: v for k, v in environment.items() if k not in _UNSET}
    for variable in (KEY_VARIABLE, "VLLM_API_KEY"):  # its middleware checks keys by their digests
        variables.pop(variable, None)
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    served: dict[str, Any] = {"folder": str(folder), "model": name, "keys": digests}
    if adapters is not None:
        adapters.mkdir(parents=True, exist_ok=True)
        served["adapters"] = str(adapters.resolve())
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # the middleware closes its paths
    variables[SETTINGS] = json.dumps(served)
    variables["HF_HUB_OFFLINE"] = "1"  # everything is in the folder
    variables["PYTHONSAFEPATH"] = "1"
    variables.setdefault("VLLM_NO_USAGE_STATS", "1")
    return dict(variables)
