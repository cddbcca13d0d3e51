"""What differs between a quote and the words it was taken from, and whether that may be mended."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rapidfuzz.distance import OSA

from recallm_core.checking.words import Word
from recallm_core.lexical import terms

Kind = Literal["number", "negation", "name", "words"]

# Words that say nothing of their own: leaving one out, or taking another, is a slip.
_MINOR = frozenset(("a", "an", "the"))
_SLIP_LENGTH = 5  # shorter words are other words too easily
_NEGATIONS = frozenset(
    """
    no not never none nor neither nobody nothing nowhere without cannot non
    nicht kein keine keinen keinem keiner keines nie niemals ohne weder nichts
    ne pas jamais sans aucun aucune rien ni nul nunca sin ningun ningún ninguna ninguno jamás nada
    mai senza né nessun nessuna nessuno niente não nao sem nem nenhum nenhuma
    niet geen nooit zonder inte ingen inga aldrig utan ikke aldri uten
    не нет ни без никогда нельзя nie bez nigdy żaden değil yok hiç
    δεν μη μην όχι χωρίς ποτέ لا ليس لم لن غير بدون ليست لیس نہیں لا אין לא בלי אינו אינה
    नहीं न मत बिना ไม่ ไม่มี 不 没 沒 無 无 非 未 否 勿 莫 别 別 ぬ ず 안 않 못 없 아니 không chẳng
    """.split()  # noqa: SIM905
)
_CONTRACTED = frozenset(
    """
    dont doesnt didnt isnt arent wasnt werent wont cant couldnt wouldnt shouldnt hasnt havent hadnt
    mustnt neednt aint mightnt shant
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Change:
    """Where a quote's words aren't the document's.

    Attributes:
        kind: The gravest thing that differs; ``number`` and ``negation`` before ``name``.
        written: The quote's words; empty where it left some out.
        found: The document's words; empty where the quote added some.
    """

    kind: Kind
    written: str
    found: str


def change(written: Sequence[Word], found: Sequence[Word], known: Container[str]) -> Change | None:
    """Returns how two stretches of words differ in what they say; None where only in writing.

    Other spaces and hyphens (``guaran-`` ``tee``), an article more or less and a slip of the pen
    in a longer word of small letters are no change; anything else is.

    Args:
        written: The quote's words.
        found: The document's words in their place.
        known: Words that the documents hold and that the quote can't have misspelt, as keys.
    """
    if _numbers(written) == _numbers(found):
        ours, theirs = _spoken(written), _spoken(found)
        if _run_together(ours) == _run_together(theirs):
            return None
        if same_letters(written, found):
            return None
        if len(ours) == len(theirs) and all(
            a.key == b.key or _is_slip(a, b, known) for a, b in zip(ours, theirs, strict=True)
        ):
            return None
    return Change(_kind(written, found), _text(written), _text(found))


def same_letters(written: Sequence[Word], found: Sequence[Word]) -> bool:
    """Whether two stretches of words are the same, but for where words are divided."""
    return _run_together(written) == _run_together(found)


def is_negation(key: str) -> bool:
    """Whether a word's key says no, in one of some twenty languages."""
    return key in _NEGATIONS or key in _CONTRACTED


def weight(word: Word) -> float:
    """Returns how much a word counts for telling whether two texts say the same."""
    if len(word.key) == 1 and not word.key.isascii():
        return 0.5
    return 1.0 if word.key[:1].isdigit() or terms(word.key) else 0.3


def _spoken(words: Sequence[Word]) -> list[Word]:
    return [word for word in words if word.key not in _MINOR]


def _numbers(words: Sequence[Word]) -> list[str]:
    """What must agree to the character: figures and signs, and whatever holds a digit."""
    return [word.key for word in words if _is_figure(word.key)]


@lru_cache(maxsize=65_536)
def _is_figure(key: str) -> bool:
    return any(c.isnumeric() for c in key) or not any(c.isalpha() for c in key)


def _run_together(words: Sequence[Word]) -> str:
    return "".join(word.key for word in words)


def _is_slip(ours: Word, theirs: Word, known: Container[str]) -> bool:
    """Whether a word is another with one letter missing, doubled or in its neighbour's place.

    Names don't pass, nor does a word that the documents use themselves.
    """
    a, b = ours.key, theirs.key
    if min(len(a), len(b)) < _SLIP_LENGTH or a in known or is_negation(a) or is_negation(b):
        return False
    if not (ours.raw.islower() and theirs.raw.islower()) or a[0] != b[0] or a[-1] != b[-1]:
        return False
    return OSA.distance(a, b, score_cutoff=1) == 1 and (len(a) != len(b) or sorted(a) == sorted(b))


def _kind(written: Sequence[Word], found: Sequence[Word]) -> Kind:
    if _numbers(written) != _numbers(found):
        return "number"
    no = [[word.key for word in words if is_negation(word.key)] for words in (written, found)]
    if no[0] != no[1]:
        return "negation"
    names = [[word.key for word in words if _is_name(word)] for words in (written, found)]
    return "name" if names[0] != names[1] else "words"


def _is_name(word: Word) -> bool:
    return word.raw[:1].isupper()


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.raw for word in words)
