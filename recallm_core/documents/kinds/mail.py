"""Mails: the words of their parts, decoded, and the names of their attachments."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import EmailMessage
from typing import Any

from recallm_core.documents.extracted import ExtractedText
from recallm_core.documents.html_page import extract_html
from recallm_core.documents.kinds.pieces import Pieces
from recallm_core.errors import DocumentError

_HEADS = ("From", "To", "Cc", "Date", "Subject")
_MOST_PARTS = 1_000
_MOST_BOUNDARIES = 20_000  # lines that may part a mail; they are parsed before parts are counted
_LONGEST_PARSED = 1_000  # characters of a head; the standard library takes quadratic time
_LONGEST_HEAD = 100_000
_DEEPEST = 20  # mails in mails


class _Policy(email.policy.EmailPolicy):
    """The default policy, but that long heads are only decoded, or cut where that won't do."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        """Returns the value of a head."""
        if len(value) <= _LONGEST_PARSED:
            return super().header_fetch_parse(name, value)
        if name.title() not in _HEADS:
            return super().header_fetch_parse(name, value[:_LONGEST_PARSED])
        value = "".join(value[:_LONGEST_HEAD].splitlines())
        try:
            return str(make_header(decode_header(value)))
        except (LookupError, ValueError, HeaderParseError):
            return value


def read_mail(data: bytes, origin: str, limit: int) -> ExtractedText:
    """Returns the heads and the text of a mail; of two versions of a part the plain one.

    Attached text and mails are read, other attachments are named.

    Raises:
        DocumentError: It has no heads, too many parts, or parts that can't be decoded.
    """
    try:
        if data.count(b"\n--") > _MOST_BOUNDARIES:
            raise DocumentError(f"it has more than {_MOST_PARTS:,} parts")
        message: Any = email.message_from_bytes(data, policy=_Policy())
        pieces = Pieces(limit)
        parts = _parts(message, "", 0)
        for number, (place, part) in enumerate(parts):
            if number >= _MOST_PARTS:
                raise DocumentError(f"it has more than {_MOST_PARTS:,} parts")
            _add_part(part, place, pieces, origin)
        title = _head(message, "Subject")
    except DocumentError:
        raise
    except Exception as error:  # the standard library raises whatever a malformed mail leads to
        raise DocumentError(f"the mail is malformed ({error or type(error).__name__})") from None
    return ExtractedText(pieces.text(), title, pieces.source_map(origin), tuple(pieces.notes))


def _head(message: EmailMessage, name: str) -> str | None:
    return " ".join(str(message.get(name, "")).split()) or None


def _parts(message: EmailMessage, place: str, depth: int) -> Iterator[tuple[str, EmailMessage]]:
    """Yields a mail and its leaves, each with its place."""
    if depth > _DEEPEST:
        raise DocumentError(f"it holds mails more than {_DEEPEST} deep")
    yield f"{place}heads", message
    waiting = [message]
    number = 0
    while waiting:
        part = waiting.pop()
        if part.get_content_type() == "multipart/alternative":
            best = part.get_body(("plain", "html"))
            inner = [best] if best is not None and best is not part else list(part.iter_parts())
            waiting += reversed(inner)  # type: ignore[arg-type]
        elif part.get_content_type() == "message/rfc822":
            number += 1
            for attached in part.iter_parts():
                yield from _parts(attached, f"{place}mail {number}, ", depth + 1)  # type: ignore[arg-type]
        elif part.is_multipart():
            waiting += reversed(list(part.iter_parts()))  # type: ignore[arg-type]
        else:
            number += 1
            name = part.get_filename()
            yield f"{place}part {number}" + (f": {name}" if name else ""), part


def _add_part(part: EmailMessage, place: str, pieces: Pieces, origin: str) -> None:
    if place.endswith("heads"):
        heads = [(name, _head(part, name)) for name in _HEADS]
        shown = "\n".join(f"{name}: {value}" for name, value in heads if value)
        if not shown:
            raise DocumentError("it has none of the heads of a mail")
        pieces.add(shown, place, gap="\n\n")
        return
    kind, name = part.get_content_type(), part.get_filename()
    content = part.get_content() if part.get_content_maintype() == "text" else None
    if not isinstance(content, str):
        size = len(part.get_payload(decode=True) or b"")
        pieces.add(f"Attachment: {name or 'without a name'} ({kind}, {size:,} bytes)", place)
        return
    text = content.replace("\r\n", "\n").replace("\r", "\n")
    head = f"Attachment: {name}\n" if name else ""
    if kind == "text/html":
        pieces.add_page(extract_html(text, origin), place, head=head)
    else:
        pieces.add(head + text, place, gap="\n\n")
