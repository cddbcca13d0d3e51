"""A tokenizer's JSON state, changed so that it encodes plain text, and what its tokens spell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from typing import Any

_NORMAL_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_NO_MODEL = {"type": "BPE", "vocab": {}, "merges": []}


def rebuild(state: Mapping[str, Any], model: Any = None) -> Any:
    """Returns a ``tokenizers.Tokenizer`` of a state.

    Args:
        state: What it is to be.
        model: What it is to share of another tokenizer, as ``shareable`` gives it; None: nothing.
    """
    from tokenizers import Tokenizer

    if model is None:
        return Tokenizer.from_str(json.dumps(state))
    tokenizer = Tokenizer(model)
    shell = Tokenizer.from_str(json.dumps({**state, "added_tokens": [], "model": _NO_MODEL}))
    for stage in ("normalizer", "pre_tokenizer", "decoder"):
        if state.get(stage) is not None:
            setattr(tokenizer, stage, getattr(shell, stage))
    tokenizer.add_tokens([_added_token(token) for token in state.get("added_tokens") or ()])
    return tokenizer


def shareable(tokenizer: Any, state: Mapping[str, Any]) -> Any:
    """Returns the vocabulary and merges of a tokenizer where no plain one needs others, else None.

    Those of 262,144 tokens take 70 MB, each time.
    """
    model = state["model"]
    is_unchanged = model.get("type") == "BPE" and model == _without_dropout(model)
    return tokenizer.model if is_unchanged else None


def _added_token(token: Mapping[str, Any]) -> Any:
    from tokenizers import AddedToken

    return AddedToken(**{key: value for key, value in token.items() if key != "id"})


def template_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state without truncation, padding, post-processing, dropout and dummy spaces."""
    return {
        **state,
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "normalizer": _without_prepend(state.get("normalizer")),
        "pre_tokenizer": _without_prepend(state.get("pre_tokenizer")),
        "model": _without_dropout(state["model"]),
    }


def plain_tokenizer(state: Mapping[str, Any], controls: Set[int], model: Any = None) -> Any:
    """Returns a tokenizer that knows no control token; runs of white space remain added tokens.

    A byte-level tokenizer loses its normal form too. Normal forms are for matching, not for
    copying: without NFC a byte-level tokenizer spells every text exactly.

    Args:
        state: The tokenizer that it is made of.
        controls: The ids of control tokens.
        model: As for ``rebuild``.
    """
    plain = template_state(state)
    if is_byte_level(state):
        plain["normalizer"] = _without_normal_forms(plain["normalizer"])
    plain["model"] = _without_pieces(plain["model"], controls)
    blank = [t for t in state.get("added_tokens") or () if _is_blank(t) and t["id"] not in controls]
    tokenizer = rebuild(plain | {"added_tokens": blank}, model)
    if any(tokenizer.token_to_id(t["content"]) != t["id"] for t in blank):
        return rebuild(plain | {"added_tokens": []}, model)  # numbered after tokens that are gone
    return tokenizer


def _is_blank(token: Mapping[str, Any]) -> bool:
    return bool(str(token["content"]).isspace())


def _without_pieces(model: Mapping[str, Any], controls: Set[int]) -> dict[str, Any]:
    """Renames pieces that are control tokens, so that no text reaches them.

    A BPE model is left alone: what its merges don't make it can't reach, and a renamed piece could
    be part of a merge. What is reached all the same is found after encoding.
    """
    vocab = model["vocab"]
    if model.get("type") == "Unigram":
        vocabulary = [
            [_hide_piece(piece) if number in controls else piece, score]
            for number, (piece, score) in enumerate(vocab)
        ]
        return {**model, "vocab": vocabulary}
    if model.get("type") in ("WordPiece", "WordLevel"):
        return {
            **model,
            "vocab": {_hide_piece(p) if n in controls else p: n for p, n in vocab.items()},
        }
    return dict(model)


def _hide_piece(piece: str) -> str:
    return f"\U0010ffff{piece}\U0010ffff"


def _without_dropout(model: Mapping[str, Any]) -> dict[str, Any]:
    return {**model, "dropout": None} if "dropout" in model else dict(model)


def _without_normal_forms(part: Any) -> Any:
    if not isinstance(part, dict) or part.get("type") in _NORMAL_FORMS:
        return None
    if part.get("type") == "Sequence":
        normalizers = [k for k in map(_without_normal_forms, part["normalizers"]) if k is not None]
        return {**part, "normalizers": normalizers}
    return part


def _without_prepend(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        normalizers = [k for k in (_without_prepend(p) for p in part[key]) if k is not None]
        return {**part, key: normalizers}
    if part.get("type") == "Prepend":
        return None
    if part.get("type") == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if part.get("type") == "ByteLevel":
        return {**part, "add_prefix_space": False}
    return part


def _parts(part: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(part, dict):
        yield part
        for key in ("normalizers", "pretokenizers", "decoders"):
            for child in part.get(key) or ():
                yield from _parts(child)


def is_byte_level(state: Mapping[str, Any]) -> bool:
    """Whether the tokens are spelled in the byte alphabet."""
    stages = (state.get("pre_tokenizer"), state.get("decoder"))
    return any(p.get("type") == "ByteLevel" for stage in stages for p in _parts(stage))


def unknown_id(state: Mapping[str, Any], vocab: Mapping[str, int]) -> int:
    """Returns the id of the unknown token; -1 where there is none."""
    model = state["model"]
    if model.get("type") == "Unigram":
        number = model.get("unk_id")
        return -1 if number is None else int(number)
    name = model.get("unk_token")
    return vocab.get(name, -1) if isinstance(name, str) else -1


def byte_table(
    state: Mapping[str, Any], vocab: Mapping[str, int], size: int, hidden: Set[int]
) -> list[bytes | None]:
    """Returns the bytes of each id; all None where tokens are neither of bytes nor of pieces."""
    table: list[bytes | None] = [None] * size
    byte_level = is_byte_level(state)
    kinds = {p.get("type") for p in _parts(state.get("decoder"))}
    if not byte_level and not kinds & {"Metaspace", "ByteFallback"}:
        return table
    added = {int(t["id"]): str(t["content"]) for t in state.get("added_tokens") or ()}
    fallback = bool(state["model"].get("byte_fallback"))
    to_byte = _byte_alphabet()
    for token, number in vocab.items():
        if number in hidden:
            continue
        if byte_level and number not in added:
            spelled = [to_byte.get(c, -1) for c in token]
            table[number] = bytes(spelled) if min(spelled, default=-1) >= 0 else None
        else:
            table[number] = _piece_bytes(added.get(number, token), fallback)
    return table


def _piece_bytes(piece: str, fallback: bool) -> bytes | None:
    if fallback and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode() or None


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-ins that byte-level tokenizers write bytes with (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(rest)}
