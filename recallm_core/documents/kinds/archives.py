"""Zip files, opened with care: what is in them is bounded before it is unpacked."""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

from recallm_core.errors import DocumentError

_MOST_MEMBERS = 20_000
_MOST_TIMES = 20  # what is unpacked may be so many times larger than the most characters of text


class Archive:
    """A zip file whose members are read whole, within limits.

    Args:
        data: The file.
        most: Characters of text that are wanted at most; bounds what is unpacked.

    Raises:
        DocumentError: It is damaged, encrypted, or too large once unpacked.
    """

    def __init__(self, data: bytes, limit: int) -> None:
        with _damage():
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        members = self._zip.infolist()
        size = sum(member.file_size for member in members)
        if len(members) > _MOST_MEMBERS or size > _MOST_TIMES * limit:
            raise DocumentError(
                f"unpacked it has {len(members):,} parts and {size:,} bytes; more than "
                f"{_MOST_MEMBERS:,} parts or {_MOST_TIMES * limit:,} bytes aren't read"
            )
        if any(member.flag_bits & 1 for member in members):
            raise DocumentError("it is encrypted; save a copy without a password")
        self._names = {member.filename: member for member in members}

    def names(self) -> list[str]:
        """Returns the names of its members, in the order of the file."""
        return list(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        """Returns a member; never more than the size that was checked.

        Raises:
            DocumentError: There is none, or it is damaged.
        """
        if name not in self._names:
            raise DocumentError(f"it has no {name}")
        with _damage():
            return self._zip.read(self._names[name])

    def xml(self, name: str) -> ElementTree.Element:
        """Returns the root element of a member.

        Raises:
            DocumentError: It is no XML, or declares entities, which could be any number.
        """
        return parse_xml(self.read(name), name)

    def relations(self, name: str) -> dict[str, str]:
        """Returns what a part of an Office file refers to: the name of each part by its key."""
        folder, file = posixpath.split(name)
        table = posixpath.join(folder, "_rels", f"{file}.rels")
        if table not in self:
            return {}
        parts = {}
        for relation in self.xml(table):
            target = relation.get("Target", "")
            whole = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            parts[relation.get("Id", "")] = whole
        return parts


def nearest(element: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    """Yields the elements of a tag below another, in order, and none that is inside another."""
    waiting = list(reversed(element))
    while waiting:
        node = waiting.pop()
        if node.tag == tag:
            yield node
        else:
            waiting += reversed(node)


def parse_xml(data: bytes, name: str) -> ElementTree.Element:
    """Returns the root element of an XML file.

    Raises:
        DocumentError: It is no XML, or declares entities, which could be any number.
    """
    # An encoding that hides the letters of a declaration is none that these files use.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DocumentError(f"{name} declares its own entities, or isn't in UTF-8")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise DocumentError(f"{name} is no XML ({error})") from None


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise DocumentError(f"it is a damaged zip file ({error})") from None
    except (NotImplementedError, RuntimeError) as error:
        raise DocumentError(f"it is packed in a way that can't be read ({error})") from None
