"""Words that go round in circles: what a small model writes until its tokens are used up."""

from __future__ import annotations

import re

from recallm_core.text.scripts import UNSPACED

MOST = 480  # characters of one turn
KEPT = 3 * MOST  # characters that are looked back on
_TURNS = 3  # that make a loop of a sentence
_LEAST = 20  # characters of a turn that may be a sentence
_TELLING = 4  # different words of it
_MANY = 7  # different words that may be a sentence however short they are
_DRONE = 400  # characters of a loop of less than that
_PROBE = 12  # characters that have to stand once more before anything is compared
_STOPS = frozenset(".!?,;:\u2026\u3002\uff01\uff1f\uff0c\uff1b\u3001\n")
_WORD = re.compile(rf"[{UNSPACED}]|[^\W_]+")


def turn_length(text: str) -> int:
    """Returns the length of the turn that a text ends with for the second time or more; 0: none.

    A turn is any stretch of text with nothing between its copies; the shortest counts.
    """
    probe = text[-_PROBE:]
    at = text.rfind(probe, max(0, len(text) - MOST - _PROBE), len(text) - 1)
    if len(probe) < _PROBE or at < 0:
        return 0
    length = len(text) - _PROBE - at
    return length if text.endswith(text[-length:] * 2) else 0


def is_loop(text: str, length: int) -> bool:
    """Returns whether a text that ends with turns of some length goes round in circles.

    That is three turns of a sentence's different words, up to a comma or a full stop if there is
    one; else 400 characters with a letter or a digit in them: a line of dashes is no loop.
    """
    turn = text[-length:]
    if not text.endswith(turn * _TURNS) or not _may_end(turn):
        return False
    words = set(_WORD.findall(turn))
    is_telling = len(words) >= (_TELLING if length >= _LEAST else _MANY)
    return is_telling or (bool(words) and text.endswith(turn * -(-_DRONE // length)))


def _may_end(turn: str) -> bool:
    """Whether a sentence or its part ends with a turn, as far as there are marks or spaces."""
    if turn[-1] in _STOPS or turn.isalnum():
        return True
    return not (turn[-1].isalnum() or _STOPS.intersection(turn))
