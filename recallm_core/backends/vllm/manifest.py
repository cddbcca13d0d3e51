"""What a model server offers to its clients: tokenizer, recipe and sizes, with their digests.

``recallm serve`` fills a ``Manifest`` and the client reads it, both with this module. To the client
everything in it is untrusted until it is checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recallm_core.decoding.spec import MAX_IDS, SPEC_VERSION
from recallm_core.errors import ServerError

VERSION = 1
MANIFEST_PATH = "/recallm/v1/offer"
FILES_PATH = "/recallm/v1/files/"
ADAPTERS_PATH = "/recallm/v1/adapters/"
MAX_MANIFEST = 100_000  # bytes
# Nothing else is offered or fetched; sizes in bytes. The largest vocabularies take 35 MB.
FILES: Mapping[str, int] = {
    "tokenizer.json": 128 * 2**20,
    "tokenizer_config.json": 8 * 2**20,
    "chat_template.jinja": 2**20,
    "recallm.json": 1_000_000,
}
PROCESSOR = "recallm_core.backends.vllm_processor:RecallProcessor"
INSTALL_VLLM = (
    "run: pip install 'recallm-core[vllm]' in an environment of its own, for it pins other "
    "packages (deploy/Dockerfile is a ready one)"
)
_NAME = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,511}")
_TYPE = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: its bytes are known by size and SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A server's description of itself.

    Attributes:
        model: The name under which the model is served.
        window: The context length: tokens of input and output together.
        vocab_size: Width of the logits.
        eos_ids: Ids that end an output, as the checkpoint's configuration names them.
        model_type: The architecture's name; transformers chooses tokenizer classes by it.
        files: What can be fetched, by name.
        engine: The engine and its version.
        runner: Which of the engine's model runners is active.
        release: Version of this library on the server.
        spec_version: Version of the constraint specs that the server reads.
    """

    model: str
    window: int
    vocab_size: int
    eos_ids: tuple[int, ...]
    model_type: str
    files: Mapping[str, ManifestFile] = field(default_factory=dict)
    engine: str = "unknown"
    runner: str = "unknown"
    release: str = "unknown"
    spec_version: int = SPEC_VERSION

    @property
    def fingerprint(self) -> str:
        """Equal for equal tokenizers, recipes and sizes, whoever serves them."""
        named = sorted((name, entry.sha256) for name, entry in self.files.items())
        content = [named, self.vocab_size, sorted(self.eos_ids), self.model_type]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def to_json(self) -> str:
        """Returns the manifest as the server sends it."""
        files = {name: {"size": f.size, "sha256": f.sha256} for name, f in self.files.items()}
        plain = {name: getattr(self, name) for name in (*_TEXTS, *_NUMBERS)}
        eos = list(self.eos_ids)
        more = {"eos_ids": eos, "files": files, "fingerprint": self.fingerprint}
        return json.dumps({"version": VERSION, **plain, **more})

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Reads what a server sent, trusting none of it.

        Raises:
            ServerError: It isn't a manifest of this version, or contradicts itself.
        """
        try:
            plain = json.loads(data)
            manifest = cls._from_plain(plain)
            if manifest.fingerprint != plain["fingerprint"]:
                raise ValueError("its fingerprint isn't that of its own files and sizes")
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ServerError(
                f"the server's description of itself can't be used: {error}; run the same "
                "recallm-core release on both sides"
            ) from error
        return manifest

    @classmethod
    def _from_plain(cls, data: Mapping[str, Any]) -> Manifest:
        if type(data["version"]) is not int or data["version"] != VERSION:
            raise ValueError(f"version {str(data['version'])[:20]}, this library reads {VERSION}")
        if data["spec_version"] != SPEC_VERSION:
            raise ValueError(
                f"its constraint specs have version {str(data['spec_version'])[:20]}, this "
                f"library's have {SPEC_VERSION}"
            )
        plain: dict[str, Any] = {n: _text(n, data[n], _TEXTS[n]) for n in _TEXTS}
        plain |= {name: _number(name, data[name]) for name in _NUMBERS}
        eos = tuple(_number("eos_ids", i, 0) for i in data["eos_ids"][:1000])
        files = {name: _manifest_file(name, entry) for name, entry in data["files"].items()}
        return cls(eos_ids=eos, files=files, **plain)


_TEXTS = {"model": _NAME, "model_type": _TYPE, "engine": _NAME, "runner": _NAME, "release": _NAME}
_NUMBERS = ("window", "vocab_size", "spec_version")


def _text(name: str, value: Any, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{name} is no plain short text")
    return value


def _number(name: str, value: Any, low: int = 1) -> int:
    if type(value) is not int or not low <= value <= MAX_IDS:
        raise ValueError(f"{name} is no number in [{low}, {MAX_IDS}]")
    return value


def _manifest_file(name: str, data: Mapping[str, Any]) -> ManifestFile:
    if name not in FILES:
        raise ValueError(f"it offers a file that isn't one of {sorted(FILES)}")
    size = _number(name, data["size"], 0)
    if size > FILES[name]:
        raise ValueError(f"{name} has {size:,} bytes, over the limit of {FILES[name]:,}")
    return ManifestFile(size, _text(name, data["sha256"], _DIGEST))


def read_files(folder: Path) -> dict[str, bytes]:
    """Returns the files of a model folder that clients need.

    Raises:
        ServerError: There is no ``tokenizer.json``, or a file is absurdly large.
    """
    contents: dict[str, bytes] = {}
    for name, limit in FILES.items():
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > limit:
            raise ServerError(f"{path} is over {limit:,} bytes: not a file of a tokenizer")
        contents[name] = path.read_bytes()
    if "tokenizer.json" not in contents:
        raise ServerError(
            f"{folder} has no tokenizer.json; convert its tokenizer with "
            "AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)"
        )
    return contents


def manifest_files(files: Mapping[str, bytes]) -> dict[str, ManifestFile]:
    """Returns sizes and digests of files."""
    return {n: ManifestFile(len(b), hashlib.sha256(b).hexdigest()) for n, b in files.items()}
