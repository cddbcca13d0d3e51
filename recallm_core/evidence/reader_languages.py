"""Which language a text is in, and whether an encoder knows it: by script, small words, pieces.

A scorer that was trained on one language gives confident nonsense on another. Where it doesn't
know a text it has to say so, and leave the choice to words and the model.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SAMPLE = 4000  # characters of a text that are looked at
_LATIN = 0.7  # share of Latin letters that a text in English has
_BROKEN = 0.45  # share of unknown or single-letter pieces that it doesn't have
_SHORT = 3  # letters of a word that may fall apart
_FEW = 3  # different small words that have to speak for another language
_MARGIN = 1.5  # and how many times as many as English ones

_SMALL = {
    "en": """the of and to in a is was for on as with by he at from his an were are which it be this
        had has that not but they their or who when what how did does do where many much why""",
    "de": """der die das den dem des ein eine einen einem einer und oder ist sind war waren wurde
        wurden wird im am zum zur von vom mit für auf aus bei nach über auch nicht sich als wie wer
        wann wo welche welcher welches""",
    "es": """el la los las un una unos unas de del y o en es son fue fueron era por para con que se
        su sus al como más qué quién cuándo dónde cuál cuántos cuántas cómo lo no""",
    "fr": """le la les l un une des du de d et ou en est sont était fut par pour avec que qui se son
        sa ses au aux dans sur ne pas plus qu quand où quel quelle combien il elle ce""",
    "it": """il lo la i gli le l un una uno di del della dei delle e o in è sono fu era per con che
        si suo sua al alla nel nella da dal come più chi quando dove quale quanti non""",
    "pt": """o os as um uma de do da dos das e ou em no na nos nas é são foi era por para com que
        se seu sua ao à como mais quem quando onde qual quantos não""",
    "nl": """de het een en of van in is zijn was werd werden voor op met door bij uit aan die dat
        dit niet ook als wie wat wanneer waar hoe welke hij zij""",
}
_WORDS = {name: frozenset(words.split()) for name, words in _SMALL.items()}
_WORD = re.compile(r"(?<![^\W_])[^\W\d_]+(?![^\W_])")  # no part of a key or number
_SPANISH = "\u00bf\u00a1"  # marks before a question, that count as two small words
_SCRIPTS = {
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"),
    "ja": re.compile("[\u3040-\u30ff]"),
    "ko": re.compile("[\u1100-\u11ff\uac00-\ud7af]"),
    "ar": re.compile("[\u0620-\u064a]"),
    "ru": re.compile("[\u0410-\u044f\u0451]"),
    "hi": re.compile("[\u0900-\u097f]"),
}
_KANA = 0.1  # share of the letters that tells Japanese from Chinese


class LanguageGate:
    """Says which texts an English encoder can read; each text is judged by itself.

    Args:
        tokenizer: The encoder's word pieces, without truncation and padding.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._unknown = tokenizer.token_to_id("[UNK]")

    def reads(self, text: str) -> bool:
        """Returns whether nothing speaks against English; a text without letters is readable."""
        sample = text[:_SAMPLE]
        letters = [c for c in sample if c.isalpha()]
        if not letters:
            return True
        if sum(map(_is_latin, letters)) < _LATIN * len(letters):
            return False
        return not is_foreign(sample) and not self._breaks(sample)

    def _breaks(self, text: str) -> bool:
        """Whether words fall apart into unknown pieces and single letters."""
        words = " ".join(word for word in _WORD.findall(text) if len(word) >= _SHORT)
        encoding = self._tokenizer.encode(words, add_special_tokens=False)
        pieces = encoding.tokens
        odd = sum(
            number == self._unknown or (piece.startswith("##") and len(piece) == 3)
            for number, piece in zip(encoding.ids, pieces, strict=True)
        )
        return len(pieces) >= 4 * _FEW and odd > _BROKEN * len(pieces)


def _is_latin(letter: str) -> bool:
    """Whether a letter is Latin: up to U+024F, and Latin Extended Additional."""
    return letter < "\u0250" or "\u1e00" <= letter <= "\u1eff" or "\uff21" <= letter <= "\uff5a"


def language_of(text: str) -> str:
    """Returns the likeliest language of a text, as two letters; ``en`` where nothing is against it.

    Of other scripts than Latin the language that most write in it; empty where none is known.
    """
    letters = [c for c in text[:_SAMPLE] if c.isalpha()]
    if sum(map(_is_latin, letters)) >= _LATIN * len(letters):
        return _foreign_language(text[:_SAMPLE]) or "en"
    counts = {name: len(script.findall("".join(letters))) for name, script in _SCRIPTS.items()}
    if counts["ja"] >= _KANA * len(letters):
        return "ja"
    name = max(counts, key=counts.__getitem__)
    return name if counts[name] else ""


def is_foreign(text: str) -> bool:
    """Returns whether the small words of a text are another language's rather than English ones."""
    return bool(_foreign_language(text))


def _foreign_language(text: str) -> str:
    """The language whose small words a text has rather than English ones; empty: none."""
    words = [word.casefold() for word in _WORD.findall(text)]
    counts = {name: len(known.intersection(words)) for name, known in _WORDS.items()}
    english = counts.pop("en")
    counts["es"] += 2 * any(mark in text for mark in _SPANISH)
    name = max(counts, key=counts.__getitem__)
    few = _FEW if len(words) > 2 * _FEW else 2
    return name if counts[name] >= few and counts[name] > _MARGIN * english else ""
