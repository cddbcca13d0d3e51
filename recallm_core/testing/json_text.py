"""JSON that a script says: the characters as grammars want them, white space where it may stand."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

WHITE = tuple(b" \n\r\t")
_QUOTE, _ESCAPE = b'"\\'
_ESCAPES = re.compile(  # surrogates only in pairs
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|"
    rb"\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|\\[^u]|\x7f",
    re.DOTALL,
)


def plainly(text: bytes) -> tuple[bytes, list[int]]:
    """JSON with its characters written as grammars want them, and where each byte comes from.

    Escapes of printable characters are these characters, and the one control character that JSON
    may hold bare is an escape.
    """
    out, origin, last = bytearray(), list[int](), 0
    for match in _ESCAPES.finditer(text):
        plain = _unescape(match.group())
        out += text[last : match.start()] + plain
        origin += [*range(last, match.start()), *[match.start()] * len(plain)]
        last = match.end()
    return bytes(out + text[last:]), [*origin, *range(last, len(text) + 1)]


def _unescape(escape: bytes) -> bytes:
    if escape == b"\x7f":
        return b"\\u007f"
    if escape[1:2] not in (b"u", b"/"):
        return escape
    character: str = json.loads(b'"' + escape + b'"')
    bare = character.isprintable() and character not in '"\\'
    return character.encode("utf-8") if bare or character > "\x7f" else escape


@dataclass(frozen=True, slots=True)
class QuotedJson:
    """Whether JSON stands inside a string, where white space is text."""

    inside: bool = False
    escaped: bool = False

    def after(self, text: bytes) -> QuotedJson:
        """The state some bytes later."""
        inside, escaped = self.inside, self.escaped
        for byte in text:
            if escaped or not inside:
                escaped, inside = False, inside or byte == _QUOTE
            else:
                escaped, inside = byte == _ESCAPE, byte != _QUOTE
        return QuotedJson(inside, escaped)

    def matched_length(self, token: bytes, text: bytes) -> int | None:
        """How much of ``text`` a token says, but for white space; None: it says something else."""
        state, at = self, 0
        for byte in token:
            while not state.inside and byte not in WHITE and text[at : at + 1].isspace():
                at += 1
            if at < len(text) and text[at] == byte:
                at += 1
            elif state.inside or byte not in WHITE:
                return None
            state = state.after(bytes([byte]))
        return at
