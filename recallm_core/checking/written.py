"""What a reader of quotes hands on: the quote as written, where, and whose it is said to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Form = Literal["marks", "block", "tag", "field", "citation"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a text says of where a quote is from.

    Attributes:
        numbers: Documents by their place in the list, counted from 1.
        names: Ids, titles, file names or addresses; enough if one is known.
        loose: Whether names that no document has say nothing (a remark in brackets, maybe).
        at: The range in the document, where one is named.
    """

    numbers: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    loose: bool = False
    at: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class WrittenQuote:
    """A quote as it is written.

    Attributes:
        text: The quote alone: no marks, no ``>``, escapes undone.
        start: Where it begins in the text read; None for one that only a message's data hold.
        end: One past where it ends.
        form: How it is marked as a quote.
        claim: Where it is said to be from; None where nothing is said.
        close: What would end it too early, if it stood in it.
    """

    text: str
    start: int | None
    end: int | None
    form: Form
    claim: Claim | None = None
    close: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """A part of a text as it reads, with the place of each character in the whole.

    Attributes:
        text: The part, without the marks that only lay it out.
        places: Where each of its characters begins, and where the last ends.
    """

    text: str
    places: Sequence[int] = field(repr=False)

    @classmethod
    def plain(cls, text: str, start: int, end: int) -> View:
        """A part that reads as it is written."""
        return cls(text[start:end], range(start, end + 1))

    def quote_in(
        self,
        start: int,
        end: int,
        form: Form,
        claim: Claim | None = None,
        close: str = "",
    ) -> WrittenQuote | None:
        """The quote in a range, without outer white space; None where nothing is left of it."""
        text = self.text[start:end]
        start += len(text) - len(text.lstrip())
        core = text.strip()
        if not core:
            return None
        end = start + len(core)
        return WrittenQuote(core, self.places[start], self.places[end], form, claim, close)
