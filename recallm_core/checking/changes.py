"""What differs between a quote and the words it was taken from, and whether that may be mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from recallm_core.checking.words import Word
from recallm_core.text.lexical import terms

Kind = Literal["number", "negation", "name", "words"]

# Words that say nothing of their own.
_MINOR = frozenset(("a", "an", "the"))
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


def change(written: Sequence[Word], source: Sequence[Word]) -> Change | None:
    """Returns how two stretches of words differ in what they say; None where only in writing.

    Words divided otherwise (``guaran-`` ``tee``) and another article, or one more or less, are no
    change. Anything else is: that a word is only misspelt can't be told, for ``county`` and
    ``country`` are both words.

    Args:
        written: The quote's words.
        source: The document's words in their place.
    """
    if _numbers(written) == _numbers(source) and (
        same_letters(written, source)
        or same_letters(_without_articles(written), _without_articles(source))
    ):
        return None
    return Change(_kind(written, source), _text(written), _text(source))


def same_letters(written: Sequence[Word], source: Sequence[Word]) -> bool:
    """Whether two stretches of words are the same, but for where words are divided.

    ``not able`` isn't ``notable``.
    """
    if _run_together(written) != _run_together(source):
        return False
    return _noes(written) == _noes(source)


def is_negation(key: str) -> bool:
    """Whether a word's key says no, in one of some twenty languages."""
    return key in _NEGATIONS or key in _CONTRACTED


def weight(word: Word) -> float:
    """Returns how much a word counts for telling whether two texts say the same."""
    if len(word.key) == 1 and not word.key.isascii():
        return 0.5
    return 1.0 if word.key[:1].isdigit() or terms(word.key) else 0.3


def _without_articles(words: Sequence[Word]) -> list[Word]:
    """Words without the articles; a capital makes an article a name: ``Plan A``, ``The Hague``."""
    return [word for word in words if word.key not in _MINOR or not word.raw.islower()]


def _numbers(words: Sequence[Word]) -> list[str]:
    """What must agree to the character: figures and signs, and whatever holds a digit."""
    return [word.key for word in words if _is_figure(word.key)]


@lru_cache(maxsize=65_536)
def _is_figure(key: str) -> bool:
    return any(c.isnumeric() for c in key) or not any(c.isalpha() for c in key)


def _noes(words: Sequence[Word]) -> int:
    """How often some words say no; half a word, as ``inte-`` before ``gration``, says nothing."""
    return sum(map(is_negation, _whole_word_keys(words)))


def _whole_word_keys(words: Sequence[Word]) -> Iterator[str]:
    """The keys of words, those that a line's end divides joined."""
    joined = ""
    for word in words:
        joined += word.key
        if not word.divided:
            yield joined
            joined = ""
    if joined:
        yield joined


def _run_together(words: Sequence[Word]) -> str:
    return "".join(word.key for word in words)


def _kind(written: Sequence[Word], source: Sequence[Word]) -> Kind:
    if _numbers(written) != _numbers(source):
        return "number"
    if _noes(written) != _noes(source):
        return "negation"
    names = [[word.key for word in words if _is_name(word)] for words in (written, source)]
    return "name" if names[0] != names[1] else "words"


def _is_name(word: Word) -> bool:
    return word.raw[:1].isupper()


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.raw for word in words)
