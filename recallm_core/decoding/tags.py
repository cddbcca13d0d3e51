"""The marks of a model as tags: one control token, or text that is watched for as it is written."""

from __future__ import annotations

from recallm_core.decoding.spec import PAST, Tag
from recallm_core.errors import TokenizerError
from recallm_core.tokenization.tokenizer import Tokenizer


def text_tag(tokenizer: Tokenizer, text: str) -> Tag:
    """Builds a tag that the model writes as ordinary text.

    Raises:
        TokenizerError: The tokenizer is lossy, or can't spell the tag.
    """
    mark = text.encode("utf-8")
    size = len(mark)
    rest = tuple(tuple(tokenizer.encode_plain(text[s:]).ids.tolist()) for s in range(size))
    spelled = [b"".join(tokenizer.token_bytes(i) or b"" for i in ids) for ids in rest]
    exact = all(spelled[s] == mark[s:] for s in range(size))
    if not exact or not text.isascii() or size < 2 or mark.count(mark[:1]) != 1:
        raise TokenizerError(
            f"the mark {text!r} can't be held to one spelling with this tokenizer; choose one "
            "such as <recall>, in ASCII and with its first character nowhere else, and a model "
            "whose tokenizer is lossless (byte-level BPE or SentencePiece with byte fallback)"
        )
    watch: list[dict[int, int]] = [{} for _ in range(size)]
    parts = {mark[a:b] for a in range(size) for b in range(a + 1, size + 1)}
    follow = tuple(mark[a:] for a in range(1, size))
    for token in range(tokenizer.vocab_size):
        piece = tokenizer.token_bytes(token)
        if piece and (mark[:1] in piece or piece in parts or piece.startswith(follow)):
            _watch_piece(watch, mark, token, piece)
    return Tag(text, rest[0], False, tuple(watch), rest, min(5, size - 1))


def _watch_piece(watch: list[dict[int, int]], mark: bytes, token: int, piece: bytes) -> None:
    size = len(mark)
    at = piece.find(mark)
    if at >= 0:
        watch[0][token] = size if at + size == len(piece) else PAST
    elif mark[:1] in piece:
        tail = piece[piece.rindex(mark[:1]) :]
        watch[0][token] = len(tail) if mark.startswith(tail) else 0
    for state in range(1, size):
        rest = mark[state:]
        if rest.startswith(piece):
            watch[state][token] = state + len(piece)
        elif piece.startswith(rest):
            watch[state][token] = PAST


def control_tag(tokenizer: Tokenizer, text: str) -> Tag | None:
    """Builds a tag that is one control token; None where the tokenizer has no such token."""
    token = tokenizer.control_id(text)
    return None if token is None else Tag(text, (token,))
