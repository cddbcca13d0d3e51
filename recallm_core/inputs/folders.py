"""A folder held open, so that what is below it is reached from it and never by way of a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_BY_DESCRIPTOR = os.open in os.supports_dir_fd and os.listdir in os.supports_fd
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)

Below = tuple[str, ...]  # the names on the way from the folder


class Folder:
    """A folder that somebody named, and all below it, whatever is renamed meanwhile.

    Each name on the way is opened by itself, from the folder before it, and refused where it is a
    link. Where the system can't do that, each is looked at before it is opened.

    Args:
        path: The folder; it may itself be a link.

    Raises:
        OSError: It can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._top = os.open(path, _FOLDER) if _BY_DESCRIPTOR else -1

    def close(self) -> None:
        """Closes the folder's descriptor; safe to call twice."""
        if self._top >= 0:
            os.close(self._top)
            self._top = -1

    def names(self, below: Below) -> list[str]:
        """Returns the names in a folder, in no order.

        Raises:
            OSError: It can't be read, or there is a link on the way.
        """
        if not _BY_DESCRIPTOR:
            return [path.name for path in self._check(below).iterdir()]
        folder = self._open(below)
        try:
            return os.listdir(folder)  # noqa: PTH208  (a descriptor)
        finally:
            os.close(folder)

    def mode(self, below: Below) -> int:
        """Returns type and rights of what stands there; a link's own.

        Raises:
            OSError: Nothing is there, or there is a link on the way.
        """
        return self.state(below).st_mode

    def state(self, below: Below) -> os.stat_result:
        """Returns what the system says of what stands there; of a link, not of where it leads.

        Raises:
            OSError: Nothing is there, or there is a link on the way.
        """
        if not below or not _BY_DESCRIPTOR:
            return self._check(below).stat(follow_symlinks=not below)
        folder = self._open(below[:-1])
        try:
            return os.stat(below[-1], dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(folder)

    def open(self, below: Below, flags: int) -> int:
        """Returns a descriptor of a file.

        Raises:
            OSError: It can't be opened, or is a link, or there is one on the way.
        """
        if not _BY_DESCRIPTOR:
            return os.open(self._check(below), flags | _NO_LINK)
        folder = self._open(below[:-1])
        try:
            return os.open(below[-1], flags | _NO_LINK, dir_fd=folder)
        finally:
            os.close(folder)

    def _open(self, below: Below) -> int:
        """A descriptor of a folder, which the caller closes."""
        descriptor = os.dup(self._top)
        for name in below:
            above = descriptor
            try:
                descriptor = os.open(name, _FOLDER | _NO_LINK, dir_fd=above)
            finally:
                os.close(above)
        return descriptor

    def _check(self, below: Below) -> Path:
        path = self.path
        for name in below:
            path = path / name
            if stat.S_ISLNK(path.lstat().st_mode):
                raise OSError(f"{name} has become a link")
        return path
