"""A tokenizer of bytes: no file, no download, and every offset is plain to see."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recallm_core.tokenization.tokenizer import ByteDetokenizer, Detokenizer, PlainTokens

CONTROL = ("<|start_recall|>", "<|end_recall|>", "<think>", "</think>", "<|turn|>", "<|eos|>")
OPEN, CLOSE, THINK, THINK_END, TURN, EOS = range(256, 256 + len(CONTROL))
_CONTROLS = re.compile("|".join(re.escape(mark) for mark in CONTROL))


class ByteTokenizer:
    """One token per byte, six control tokens above them; no file, no download.

    Args:
        pieces: Longer tokens, above the control tokens; where several fit, the longest is taken.
    """

    control_ids = frozenset(range(256, 256 + len(CONTROL)))
    eos_ids = (EOS,)

    def __init__(self, pieces: Sequence[str] = ()) -> None:
        self._pieces = [piece.encode("utf-8") for piece in dict.fromkeys(pieces)]
        self._ids = {piece: EOS + 1 + n for n, piece in enumerate(self._pieces) if len(piece) > 1}
        longest = sorted((re.escape(piece) for piece in self._ids), key=len, reverse=True)
        self._pattern = re.compile(b"|".join([*longest, b"(?s:.)"]))
        self.vocab_size = EOS + 1 + len(self._pieces)
        self.fingerprint = f"recallm-byte-tokenizer-1:{self._pieces!r}"

    def encode_plain(self, text: str) -> PlainTokens:
        """One id per UTF-8 byte, or per piece where there are any."""
        data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
        at = (np.cumsum((data & 0xC0) != 0x80) - 1).astype(np.int32)
        if not self._ids:
            return PlainTokens(
                data.astype(np.int32), at, at + np.int32(1), np.ones(len(data), dtype=np.bool_)
            )
        pieces = [match.group() for match in self._pattern.finditer(data.tobytes())]
        ids = np.array([self._ids.get(p, p[0]) for p in pieces], dtype=np.int32)
        ends = np.cumsum([len(p) for p in pieces], dtype=np.int64)
        firsts = ends - np.array([len(p) for p in pieces], dtype=np.int64)
        whole = np.ones(len(ids), dtype=np.bool_)
        return PlainTokens(ids, at[firsts], at[ends - 1] + np.int32(1), whole)

    def encode_template(self, text: str) -> list[int]:
        """Like plain text, but control tokens are recognised."""
        ids: list[int] = []
        last = 0
        for match in _CONTROLS.finditer(text):
            ids.extend(self.encode_plain(text[last : match.start()]).ids.tolist())
            ids.append(256 + CONTROL.index(match.group()))
            last = match.end()
        ids.extend(self.encode_plain(text[last:]).ids.tolist())
        return ids

    def control_id(self, token: str) -> int | None:
        """The id of one of ``CONTROL``."""
        return 256 + CONTROL.index(token) if token in CONTROL else None

    def token_bytes(self, token: int) -> bytes | None:
        """What a token stands for."""
        if 0 <= token < 256:
            return bytes([token])
        return self._pieces[token - EOS - 1] if EOS < token < self.vocab_size else None

    def detokenizer(self) -> Detokenizer:
        """A fresh incremental decoder."""
        return ByteDetokenizer(self)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        **_: Any,
    ) -> str:
        """One ``<|turn|>`` before each message, and one for the reply; tools come first."""
        shown = [f"<|turn|>tools\n{json.dumps(list(tools))}"] if tools else []
        for message in messages:
            calls = "".join(
                f"<tool_call>\n{json.dumps(call['function'])}\n</tool_call>"
                for call in message.get("tool_calls", ())
            )
            shown.append(f"<|turn|>{message['role']}\n{message['content']}{calls}")
        return "".join(shown) + "<|turn|>"
