r"""Which lines of a plain text run on: prose that was wrapped, against one record a line.

A line break says nothing by itself. ``read_layout`` judges the lines of a paragraph together: where
each line ends because the next word had no room, or the next line goes on in lower case, the lines
are one block, whatever their width and whatever marks stand before them (``> ``, ``# ``, ``// ``,
a comment's `` * ``, indentation, the numbers and times of subtitles). Lines of logs, lists, tables,
keys with values, verse and code are a block each. A text that was wrapped at a width always has
the first property, so it needs no threshold on that width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby, islice, pairwise

from recallm_core.text.line import (
    CUE_TIME,
    FINISHED,
    GOES_ON,
    LOOK_AHEAD,
    ODD,
    Label,
    Line,
    is_code,
)
from recallm_core.text.scripts import UNSPACED

Range = tuple[int, int]

_RARE_BREAKS = "\r\u2028\u2029\x0b\x0c\x85"
_LINE = re.compile(rf"[^\n{_RARE_BREAKS}]+")
_BREAKS = ("\n", "\r\n", "\r")
_MARK = re.compile(
    r"[ \t]*(?:>(?:[ \t]?>)*[ \t]?|(?://[/!]?|\#{1,6}|;{1,3}|%{1,3}|--)[ \t]|\*(?=[ \t]|$))"
)
_NOT_CODE = frozenset(">#/;%*-+([|<{\u2022\u2023\u25e6\u25aa\u2043")
_MARK_STARTS = frozenset(">/#;%-*")
_MARKING = _MARK_STARTS.union(" \t")
_BROKEN = re.compile(r"[^\s-]-\Z")  # a line that ends amid a word; a dash alone is a word
_OPENERS = frozenset(
    """
    The A An It This That These If When We You He She They There In On For To Der Die Das Ein Eine
    Es Wenn Wir Sie Er Le La Les Il Elle El Los Las
""".split()  # noqa: SIM905
)
_CUE = re.compile(r"\d\d[.,]\d{3} --> ")
_UNSPACED = re.compile(rf"[{UNSPACED}\u3008-\u303f\uff01-\uff60]")  # and their marks
_BEFORE_UNSPACED = "\u0dff"  # this saves time: few texts have anything behind it
_LEAST_WIDTH = 18  # nobody wraps prose in narrower columns
_LONG = 45  # columns: a line as long as that is no heading


@dataclass(frozen=True, slots=True)
class Layout:
    """A text taken apart into blocks.

    Attributes:
        text: The text with a space for each character of a mark that stands before a line of a
            block; as long as the untouched text.
        blocks: Half-open ranges, ascending and disjoint, that hold every visible character: each is
            a line, or lines that run on.
    """

    text: str
    blocks: list[Range]


def read_layout(text: str) -> Layout:
    """Returns the blocks of a text; linear in its length."""
    blocks: list[Range] = []
    marks: list[Range] = []
    for paragraph in _paragraphs(text):
        if _is_bare_line(text, paragraph) or _is_plainly_wrapped(text, paragraph):
            blocks.append((paragraph[0][0], paragraph[-1][1]))
        elif _is_plainly_code(text, paragraph):
            blocks += paragraph
        else:
            _read_paragraph(text, paragraph, blocks, marks)
    if " --> " in text and _CUE.search(text):  # the first saves time
        blocks = _joined_cues(text, blocks, marks)
    return Layout(_blank_ranges(text, marks), blocks)


def _paragraphs(text: str) -> Iterator[list[Range]]:
    """Yields runs of lines without an empty one between them."""
    if any(mark in text for mark in _RARE_BREAKS):
        yield from _paragraphs_by_any_break(text)
        return
    lines: list[Range] = []
    start = 0
    for line in text.split("\n"):
        end = start + len(line)
        if line and not line.isspace():
            lines.append((start, end))
        elif lines:
            yield lines
            lines = []
        start = end + 1
    if lines:
        yield lines


def _paragraphs_by_any_break(text: str) -> Iterator[list[Range]]:
    """The same for texts whose lines don't all end in a line feed."""
    lines: list[Range] = []
    for match in _LINE.finditer(text):
        if match.group().isspace():
            continue
        if lines and text[lines[-1][1] : match.start()] not in _BREAKS:
            yield lines
            lines = []
        lines.append(match.span())
    if lines:
        yield lines


def _is_bare_line(text: str, paragraph: Sequence[Range]) -> bool:
    """Whether a paragraph is one line without a mark."""
    return len(paragraph) == 1 and text[paragraph[0][0]] not in _MARKING


def _is_plainly_wrapped(text: str, paragraph: Sequence[Range]) -> bool:
    """Tells of most wrapped paragraphs that they are; the others need a closer look."""
    if len(paragraph) < 3 or ODD.search(text, paragraph[0][0], paragraph[-1][1]):
        return False
    lines = [text[start:end].rstrip() for start, end in paragraph]
    widest = max(map(len, lines))
    if widest < _LEAST_WIDTH or not all(line[0].isalpha() for line in lines):
        return False
    if any("   " in line or line.count(",") > line.count(", ") + 1 for line in lines):
        return False
    begins_anew = not any(line[0].islower() for line in lines[1:])
    return not (begins_anew or lines[1].split(None, 1)[0] in _OPENERS) and all(
        len(line) + len(following.split(None, 1)[0]) + (not _BROKEN.search(line)) > widest
        for line, following in pairwise(lines)
    )


def _is_plainly_code(text: str, paragraph: Sequence[Range]) -> bool:
    """Tells of most code that it is; so it is read three times as fast."""
    if len(paragraph) < 2:
        return False
    lines = [text[start:end].strip() for start, end in paragraph]
    if any(first in _NOT_CODE or first.isdecimal() for first in {line[0] for line in lines}):
        return False
    least = max(2, (len(lines) + 1) // 2)
    codes = (line for line in lines if is_code(line))
    return next(islice(codes, least - 1, None), None) is not None


def _blank_ranges(text: str, marks: Sequence[Range]) -> str:
    """The text with spaces in place of some ranges."""
    if not marks:
        return text
    pieces, last = [], 0
    for start, end in sorted(marks):
        pieces += [text[last:start], " " * (end - start)]
        last = end
    return "".join([*pieces, text[last:]])


def _read_paragraph(
    text: str, paragraph: Sequence[Range], blocks: list[Range], marks: list[Range]
) -> None:
    """Adds the blocks of a paragraph, and the marks before their lines."""
    lines = _lines(text, paragraph)
    for run in _runs(lines):
        joins = _joins(run) if len(run) > 1 else []
        begin = run[0].start
        for (line, following), joined in zip(pairwise(run), joins, strict=True):
            if not joined:
                blocks.append((begin, line.end))
                begin = following.start
        blocks.append((begin, run[-1].end))
        mark = run[0].mark
        if mark and (any(joins) or mark[0] != "#" or _is_common(mark, lines)):
            marks.extend((line.start, line.at) for line in run)


def _is_common(mark: str, lines: Sequence[Line]) -> bool:
    """Whether a mark stands before all lines of a paragraph; else a hash may be a heading's."""
    return len(lines) > 1 and all(line.mark == mark for line in lines)


def _lines(text: str, paragraph: Sequence[Range]) -> list[Line]:
    """The lines described; a star is a comment's mark or a list's, as the lines around it say.

    A percent sign after a number is no mark.
    """
    lines: list[Line] = []
    for start, end in paragraph:
        is_marked = text[start:end].lstrip()[0] in _MARK_STARTS
        match = _MARK.match(text, start, end) if is_marked else None
        if match is None:
            lines.append(Line(text, start, end, start, ""))
        else:
            lines.append(Line(text, start, end, match.end(), "".join(match.group().split())))
    first = 0
    for mark, group in groupby(lines, key=lambda line: line.mark):
        run = list(group)
        last = first + len(run)
        is_prose = first > 0 and _is_word(mark, lines, first, last)
        if is_prose or (mark == "*" and not _is_comment(lines, first, last)):
            lines[first:last] = [Line(text, line.start, line.end, line.start, "") for line in run]
        first = last
    return lines


def _is_word(mark: str, lines: Sequence[Line], first: int, last: int) -> bool:
    """Whether what looks like a mark is a percent sign or a dash of the sentence before it."""
    if mark == "%":
        return lines[first - 1].words[-1:].isdecimal()
    return mark == "--" and last - first == 1 and _runs_into(lines, first)


def _is_comment(lines: Sequence[Line], first: int, last: int) -> bool:
    """Whether lines that begin with a star are wrapped prose and no list."""
    if first and lines[first - 1].words.startswith("/*"):
        return True
    if last < len(lines) and lines[last].words.startswith("*/"):
        return True
    run = lines[first:last]
    is_cut = any(not line.is_finished for line in run[:-1])
    return is_cut and run[-1].is_finished and _is_wrapped(run)


def _runs(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Yields stretches of lines with one mark; items, tables and a subtitle's parts are apart."""
    for _, group in groupby(lines, key=lambda line: (line.mark, not line.words)):
        part = list(group)
        begins = _item_numbers(part)
        first = 0
        for number in range(1, len(part)):
            line = part[number]
            if line.is_apart_from(part[number - 1]) or number in begins or not line.words:
                yield part[first:number]
                first = number
        yield part[first:]


def _item_numbers(lines: Sequence[Line]) -> set[int]:
    """Which lines begin an item of a list; what only looks so is prose from here on.

    A line that the one before runs into, being full and no sentence's end, begins one only if it
    goes on with a list or starts one inside of an item.
    """
    labels = {number: line.label for number, line in enumerate(lines) if line.kind == "item"}
    doubtful: set[int] = set()
    for number, label in labels.items():
        is_nested = number - 1 in labels and number - 1 not in doubtful and label.is_first
        if number and label.is_word and not is_nested and _runs_into(lines, number):
            doubtful.add(number)
    prose = {number for number in doubtful if not _is_in_list(number, labels, doubtful)}
    for number in prose:
        lines[number].kind = None
    return labels.keys() - prose


def _runs_into(lines: Sequence[Line], number: int) -> bool:
    """Whether the line before is one of prose that had no room for the first word of this one."""
    before = lines[number - 1]
    return bool(before.words) and not before.is_finished and _is_full(lines, number - 1)


def _is_in_list(number: int, labels: Mapping[int, Label], doubtful: Set[int]) -> bool:
    """Whether another item comes before or after one: the next number, or the same sign.

    A sign that stands at the beginning of a line by chance has none like it right beside it.
    """
    label = labels[number]
    return any(
        label.is_beside(other)
        and (label.value is not None or place not in doubtful or abs(place - number) == 1)
        for place, other in labels.items()
        if place != number
    )


def _is_wrapped(run: Sequence[Line]) -> bool:
    """Whether no line had room for the first word of the next one, by the widest of them."""
    widest = max(line.width for line in run)
    return all(a.width + _room_for(a, b) > widest for a, b in pairwise(run))


def _is_full(run: Sequence[Line], number: int) -> bool:
    """The same for one line, by the widest of those around it."""
    widest = max([line.width for line in run[max(0, number - 1) : number + 3]])
    return run[number].width + _room_for(run[number], run[number + 1]) > widest


def _room_for(line: Line, following: Line) -> int:
    """The room that the next line's first word would have taken."""
    if following.first[:1] > _BEFORE_UNSPACED and _UNSPACED.match(following.first):
        return 3  # a character, and one that may not begin a line
    return len(following.first) + (not _BROKEN.search(line.words))


def _joins(run: Sequence[Line]) -> list[bool]:
    """Tells for each line but the last whether it runs on in the next."""
    widest = max(line.width for line in run)
    records = _records(run)
    is_hanging = run[0].kind == "item" and all(line.indent > run[0].indent for line in run[1:])
    if (widest < _LEAST_WIDTH and not is_hanging) or records & {"code", "columns", "table"}:
        return [False] * (len(run) - 1)
    is_wrapped = _is_wrapped(run)
    if not is_hanging and _is_list(run, widest, is_wrapped):
        return [False] * (len(run) - 1)
    if is_wrapped:
        records.discard("number")
    flows = is_hanging or (is_wrapped and len(run) > 2)
    joins = [
        line.kind not in records and (flows or _runs_on(run, number))
        for number, line in enumerate(run[1:])
    ]
    joins[0] = joins[0] and not _is_heading(run[0], run[1])
    return joins


def _records(run: Sequence[Line]) -> set[str]:
    """The kinds that at least half of the lines have, and not just one."""
    kinds = [line.kind for line in run if line.kind]
    common = {kind for kind in set(kinds) if kinds.count(kind) >= max(2, len(run) / 2)}
    if len(run) > 2 and all(line.first == run[0].first for line in run):
        common.add("table")
    return common


def _is_list(run: Sequence[Line], widest: int, is_wrapped: bool) -> bool:
    """Whether lines without marks are a list or verse: each begins anew, and none goes on."""
    if not all(line.begins_anew for line in run[1:]):
        return False
    if len(run) > 3 and not is_wrapped:
        return True
    is_open = any(line.is_finished or line.goes_on for line in run)
    return not is_open and (len(run) > 2 or widest < _LONG)


def _is_heading(line: Line, following: Line) -> bool:
    """Whether the first line of a paragraph is a heading, or an item, of its own."""
    if line.goes_on or line.width >= _LONG:
        return False
    if line.kind == "item" and following.indent <= line.indent:
        return following.begins_anew
    return not line.is_finished and following.first in _OPENERS


def _runs_on(run: Sequence[Line], number: int) -> bool:
    """Whether a line of a paragraph that isn't wrapped throughout runs on in the next."""
    line, following = run[number], run[number + 1]
    if line.kind == "code" and following.indent > line.indent:
        return False
    continues = following.first[:1].islower()
    if _is_full(run, number):
        return continues or " " in line.words or line.goes_on or _is_unspaced(line, following)
    is_open = line.goes_on and line.words[-1].isalnum() and not following.first[:1].isupper()
    return (continues or is_open) and not line.is_finished and _is_prose(line)


def _is_unspaced(line: Line, following: Line) -> bool:
    return bool(_UNSPACED.match(line.words[-1:]) and _UNSPACED.match(following.first))


def _is_prose(line: Line) -> bool:
    words = [word.strip("\"'(),") for word in line.words.split()]
    return len(words) > 2 and sum(word.isalpha() for word in words) > 0.7 * len(words)


def _joined_cues(text: str, blocks: list[Range], marks: list[Range]) -> list[Range]:
    """The blocks with the number and the time of a subtitle before its words, as marks.

    A sentence that goes on in the next subtitle is one block.
    """
    joined: list[Range] = []
    head: list[Range] = []  # the number and the time before a subtitle
    for start, end in blocks:
        words = text[start:end].strip()
        is_time = CUE_TIME.match(words) is not None
        if is_time or (words.isdecimal() and not head):
            head.append((start, end))
            continue
        if len(head) in (1, 2) and CUE_TIME.match(text[slice(*head[-1])]):
            marks.extend(head)
            start = head[0][0]
            if joined and _goes_on_after(text, joined[-1], words):
                start = joined.pop()[0]
            head = []
        joined += [*head, (start, end)]
        head = []
    return joined + head


def _goes_on_after(text: str, block: Range, following: str) -> bool:
    """Whether a subtitle goes on in the next."""
    tail = text[max(block[0], block[1] - LOOK_AHEAD) : block[1]].rstrip()
    if FINISHED.search(tail) or not any(c.isalpha() for c in tail):
        return False
    return following[:1].islower() or GOES_ON.search(tail) is not None
