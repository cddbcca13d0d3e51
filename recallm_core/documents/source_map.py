"""Where the text of a document comes from in the file that it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from recallm_core.errors import DocumentError


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Where stretches of a document's text come from in the file it was read from.

    Attributes:
        origin: Path or URL of the file.
        starts: Offsets in ``Document.text``, ascending, where a new stretch begins; first is 0.
        lines: 1-based line of the file at which each stretch begins; None counts from the text.
        pages: 1-based page of each stretch, for paged formats.
        places: Where each stretch stands, for people, in formats with other parts than pages:
            ``sheet Fees, row 12``.
    """

    origin: str
    starts: tuple[int, ...] = (0,)
    lines: tuple[int, ...] | None = None
    pages: tuple[int, ...] | None = None
    places: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        starts = self.starts
        if not all(type(start) is int for start in starts):
            raise DocumentError("a source map's starts must be whole numbers")
        if not starts or starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
            raise DocumentError("a source map's starts must ascend from 0")
        for name, numbers in (("lines", self.lines), ("pages", self.pages)):
            if numbers is not None and not all(type(value) is int for value in numbers):
                raise DocumentError(f"a source map's {name} must be whole numbers")
        named = (("lines", self.lines), ("pages", self.pages), ("places", self.places))
        for name, values in named:
            if values is not None and len(values) != len(starts):
                raise DocumentError(
                    f"a source map needs one of its {name} for each of its {len(starts)} starts, "
                    f"got {len(values)}"
                )
