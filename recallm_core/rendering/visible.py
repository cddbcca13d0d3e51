"""Text that can't act: control and bidirectional characters made visible, only safe links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import quote, urlsplit, urlunsplit

# C0 but tab and newline, DEL, C1; line and paragraph separators; bidirectional embeddings,
# overrides and isolates; deprecated format characters; annotation anchors; surrogates. The marks
# LRM, RLM and ALM, and the joiners, belong to ordinary text and act on nothing but their line.
HOSTILE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_NEWLINE = re.compile(r"\r\n?")
_SPLIT = re.compile(f"({HOSTILE.pattern}+)")


def newlines(text: str) -> str:
    r"""Returns the text with every CR LF and CR as ``\n``."""
    return _NEWLINE.sub("\n", text)


def visible(text: str) -> str:
    r"""Returns the text with all that could act replaced by what can be seen.

    Control characters become their pictures, others ``⟨U+202E⟩``; CR LF and CR become ``\n``. The
    letters of every script, tabs and newlines stay. The result can always be encoded.
    """
    return HOSTILE.sub(_show, newlines(text))


def visible_runs(text: str) -> Iterator[tuple[str, bool]]:
    """Yields the pieces of ``visible(text)``, each with whether it is a replacement."""
    for number, run in enumerate(_SPLIT.split(newlines(text))):
        if run:
            yield (HOSTILE.sub(_show, run), True) if number % 2 else (run, False)


def visible_slice(text: str, start: int, end: int) -> str:
    """Returns ``text[start:end]`` with a CR LF that the end divides left to the next slice."""
    piece = text[start:end]
    return piece[:-1] if piece.endswith("\r") and text[end : end + 1] == "\n" else piece


def one_line(text: str) -> str:
    """Returns ``visible(text)`` on one line, for names and labels."""
    return " ".join(visible(text).split())


class VisibleStream:
    """``visible`` for a text that comes in pieces."""

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, piece: str) -> str:
        """Returns what the next piece shows."""
        if not piece:
            return ""
        rest = piece[1:] if self._after_cr and piece[0] == "\n" else piece
        self._after_cr = piece.endswith("\r")
        return visible(rest)


def safe_url(source: str | None) -> str | None:
    """Returns a link that is safe to offer, or None.

    Only ``http``, ``https`` and ``file`` are links, none with a user name (it can pass for the
    host), a file never on another machine. An absolute POSIX path becomes a ``file`` link. The
    result is ASCII without quotes, white space or brackets.
    """
    if not source or HOSTILE.search(source) or "\\" in source:
        return None
    if source.startswith("/") and not source.startswith("//"):
        return "file://" + _quote(PurePosixPath(source).as_posix(), "/")
    try:
        parts = urlsplit(source)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # includes UnicodeError: no such host
        return None
    if any(c.isspace() for c in source) or "@" in parts.netloc or not _NAME.fullmatch(host):
        return None
    if parts.scheme == "file" and host in ("", "localhost") and parts.path.startswith("/"):
        return urlunsplit(("file", "", _quote(parts.path, "/%"), "", ""))
    if parts.scheme not in ("http", "https") or not host:
        return None
    tail = (_quote(part, "/%=&?+:;,@!~-._$") for part in (parts.path, parts.query, parts.fragment))
    return urlunsplit((parts.scheme, host + port, *tail))


_NAME = re.compile(r"[A-Za-z0-9._-]*")


def _quote(part: str, safe: str) -> str:
    return quote(part, safe=safe)


def _show(match: re.Match[str]) -> str:
    return "".join(map(_picture, match.group()))


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
