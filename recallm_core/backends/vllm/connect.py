"""From a server's address to what drives it: its tokenizer and recipe, checked before use."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recallm_core.backends.vllm.connection import Connection
from recallm_core.backends.vllm.handshake import check_processor, check_tokenizer
from recallm_core.backends.vllm.http import START, ServerBackend
from recallm_core.backends.vllm.manifest import FILES_PATH, MANIFEST_PATH, MAX_MANIFEST, Manifest
from recallm_core.errors import CheckpointError, RecallmError, ServerError
from recallm_core.inputs.model_config import eos_ids, vocab_size
from recallm_core.models.recipes import choose_recipe, fit_tokenizer
from recallm_core.prompting.recipe import Recipe
from recallm_core.tokenization.tokenizer import HFTokenizer

OPTIONS = ("api_key", "max_connections", "max_retries", "timeout")
_MAX_REPLY = 1_000_000
# What a tokenizer_config.json may not do: name other files, or code.
_DROPPED = ("auto_map", "name_or_path", "vocab_file", "merges_file", "tokenizer_file")


def is_address(model: str) -> bool:
    """Whether a model's name is the address of a server."""
    return model.startswith(("http://", "https://"))


def connect(
    url: str,
    *,
    mode: str = "auto",
    recipe: Recipe | None = None,
    tokenizer: str | Path | None = None,
    served_model: str | None = None,
    cache_salt: str | None = None,
    **options: Any,
) -> tuple[HFTokenizer, ServerBackend, Recipe]:
    """Connects to a server and checks it.

    Args:
        url: Such as ``http://127.0.0.1:8000``.
        mode: As in ``RecaLLM.load``.
        recipe: Overrides the one that the server, or the folder, has.
        tokenizer: The served model's folder; None: the server offers what is needed.
        served_model: Which model, where a server has several.
        cache_salt: Only requests with the same salt share the server's prefix cache; it takes the
            place of the one that a server with keys makes from the caller's, so keep it secret.
        options: ``api_key``, ``timeout``, ``max_retries`` and ``max_connections`` of the
            connection.

    Raises:
        ServerError: The server can't be reached, refuses, ignores the constraint, or doesn't fit
            what was given here.
        CheckpointError: The tokenizer's folder or recipe can't be used.
        MissingExtraError: ``httpx2`` isn't installed.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        known = sorted((*OPTIONS, "cache_salt", "mode", "recipe", "served_model", "tokenizer"))
        raise TypeError(f"unknown options {unknown} of a served model; known: {known}")
    connection = Connection(url, **options)
    try:
        return _open(connection, mode, recipe, tokenizer, served_model, cache_salt)
    except BaseException:
        connection.close()
        raise


def _open(
    connection: Connection,
    mode: str,
    recipe: Recipe | None,
    folder: str | Path | None,
    served_model: str | None,
    salt: str | None,
) -> tuple[HFTokenizer, ServerBackend, Recipe]:
    name, context_length = _model(connection, served_model)
    reply = connection.get(MANIFEST_PATH, limit=MAX_MANIFEST)
    manifest = None if reply is None else Manifest.from_json(reply)
    if manifest is not None:
        _check_manifest(manifest, name, context_length)
        tokenizer, own_recipe = _from_manifest(connection, manifest, mode, folder)
        width = manifest.vocab_size
    elif folder is not None:
        tokenizer, own_recipe, width = _from_folder(Path(folder), mode)
    else:
        raise ServerError(
            f"{connection.url} offers no tokenizer and recipe; {START}; with the second, say where "
            "the served model's folder is: tokenizer=..."
        )
    if tokenizer.vocab_size > width:
        raise ServerError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids but the served model {width:,} logits"
        )
    backend = ServerBackend(
        connection, model=name, window=context_length, vocab_size=width, cache_salt=salt
    )
    backend.about = _about(connection, manifest, name)
    if manifest is None:
        check_tokenizer(backend, tokenizer)
    check_processor(backend, tokenizer)
    return tokenizer, backend, recipe or own_recipe


def _model(connection: Connection, served_model: str | None) -> tuple[str, int]:
    """The served model's name and context length, as the server lists them."""
    reply = connection.get("/v1/models", limit=_MAX_REPLY)
    try:
        listed = [
            (entry["id"], entry["max_model_len"]) for entry in json.loads(reply or b"")["data"]
        ]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ServerError(
            f"{connection.url} isn't a vLLM server: its list of models (/v1/models) has another "
            f"form; {START}"
        ) from error
    fine = [m for m in listed if isinstance(m[0], str) and type(m[1]) is int and m[1] > 0]
    matching = [m for m in fine if served_model is None or m[0] == served_model]
    if len(matching) != 1:
        names = [name[:100] for name, _ in fine[:20]]
        raise ServerError(
            f"{connection.url} serves {names}; "
            + ("say which with served_model=" if served_model is None else f"not {served_model!r}")
        )
    return matching[0]


def _check_manifest(manifest: Manifest, name: str, context_length: int) -> None:
    if (manifest.model, manifest.window) != (name, context_length):
        raise ServerError(
            f"the server describes {manifest.model!r} with a context length of "
            f"{manifest.window:,} but serves {name!r} with {context_length:,}; something between "
            "here and there mixes two servers"
        )


def _from_manifest(
    connection: Connection, manifest: Manifest, mode: str, folder: str | Path | None
) -> tuple[HFTokenizer, Recipe]:
    """Tokenizer and recipe as offered; a folder that was given has to be equal."""
    with tempfile.TemporaryDirectory(prefix="recallm-") as directory:
        place = Path(directory)
        _write(place, _fetch(connection, manifest), manifest.model_type)
        tokenizer = HFTokenizer.from_folder(place, eos_ids=manifest.eos_ids)
        offered_recipe = choose_recipe(place, mode, tokenizer)
        tokenizer = fit_tokenizer(place, offered_recipe, tokenizer)
    if folder is not None:
        local, local_recipe, _ = _from_folder(Path(folder), mode)
        if local.fingerprint != tokenizer.fingerprint or set(local.eos_ids) != set(
            tokenizer.eos_ids
        ):
            raise ServerError(
                f"the tokenizer of {folder} isn't the one of {connection.url} (or their chat "
                "templates differ); leave tokenizer= out to use the server's"
            )
        if local_recipe != offered_recipe:
            raise ServerError(
                f"the recipe of {folder} isn't the one of {connection.url}; to use it all the "
                f"same, give recipe=Recipe.load({str(folder)!r})"
            )
    return tokenizer, offered_recipe


def _fetch(connection: Connection, manifest: Manifest) -> dict[str, bytes]:
    """The offered files, each as long and with the digest that the manifest says."""
    files: dict[str, bytes] = {}
    for name, entry in manifest.files.items():
        data = connection.get(FILES_PATH + name, limit=entry.size)
        if data is None or len(data) != entry.size or _sha256(data) != entry.sha256:
            raise ServerError(f"{connection.url} sent another {name} than it describes")
        files[name] = data
    if "tokenizer.json" not in files:
        raise ServerError(f"{connection.url} offers no tokenizer.json")
    return files


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(place: Path, files: Mapping[str, bytes], model_type: str) -> None:
    """Writes the files of an untrusted tokenizer, less what could lead elsewhere."""
    for name, data in files.items():
        (place / name).write_bytes(data)
    config: dict[str, Any] = {}
    if "tokenizer_config.json" in files:
        try:
            config = dict(json.loads(files["tokenizer_config.json"]))
        except (TypeError, ValueError, RecursionError) as error:
            raise ServerError(
                f"the server's tokenizer_config.json can't be read: {error}"
            ) from error  # fmt: skip
    settings = {k: v for k, v in config.items() if k not in _DROPPED and not k.endswith("_file")}
    (place / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    if model_type:  # transformers chooses a tokenizer's class by it, as it does in process
        (place / "config.json").write_text(json.dumps({"model_type": model_type}), "utf-8")


def _from_folder(folder: Path, mode: str) -> tuple[HFTokenizer, Recipe, int]:
    """Tokenizer, recipe and width of the logits of a local model folder."""
    if not folder.is_dir():
        raise CheckpointError(f"tokenizer={str(folder)!r} is no folder")
    tokenizer = HFTokenizer.from_folder(folder, eos_ids=eos_ids(folder))
    width = vocab_size(folder)
    if width is None:
        raise CheckpointError(
            f"{folder} has no config.json that names vocab_size; give the whole model's folder "
            "(its weights aren't read)"
        )
    recipe = choose_recipe(folder, mode, tokenizer)
    return fit_tokenizer(folder, recipe, tokenizer), recipe, width


def _about(connection: Connection, manifest: Manifest | None, name: str) -> dict[str, str]:
    """What a person wants to know of a server, for messages and logs."""
    if manifest is not None:
        return {
            "engine": manifest.engine,
            "runner": manifest.runner,
            "model": name,
            "release": manifest.release,
        }
    try:
        reply = connection.get("/version", limit=_MAX_REPLY)
        version = str(json.loads(reply or b"{}").get("version", "unknown"))[:60]
    except (RecallmError, ValueError, AttributeError, RecursionError):
        version = "unknown"
    return {"engine": f"vLLM {version}", "runner": "unknown", "model": name, "release": "unknown"}
