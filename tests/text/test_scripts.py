"""One set of the scripts without spaces; all who read words hold to it."""

import re
import unicodedata
from itertools import pairwise

import pytest

from recallm_core.answers.loops import is_loop
from recallm_core.checking.pairs import pairs
from recallm_core.prompting.followup import is_followup
from recallm_core.text.lexical import terms
from recallm_core.text.scripts import UNSPACED

LETTERS = {  # nine of each
    "THAI": "กขคงจฉชซฌ",
    "LAO": "ກຂຄງຈສຊຍດ",
    "MYANMAR": "ကခဂဃငစဆဇဈ",
    "KHMER": "កខគឃងចឆជឈ",
    "HIRAGANA": "あいうえおかきくけ",
    "KATAKANA": "アイウエオカキクケ",
    "CJK": "会员费每年三月支付",
    "CJK UNIFIED IDEOGRAPH-2": "".join(map(chr, range(0x20000, 0x20009))),
}


@pytest.mark.parametrize(("script", "letters"), LETTERS.items())
def test_every_reader_of_words_knows_the_script(script: str, letters: str) -> None:
    assert unicodedata.name(letters[0]).startswith(script)
    assert re.fullmatch(f"[{UNSPACED}]{{9}}", letters)
    assert terms(letters) == [a + b for a, b in pairwise(letters)]
    assert [(p.start, p.end) for p in pairs(f'{letters}"{letters}"{letters}')] == [(9, 19)]
    assert is_loop(f"{letters}。" * 3, 10)
    assert is_followup(letters[:8])
    assert not is_followup(letters)


@pytest.mark.parametrize(
    "text", ["abc", "ÀÉÎ", "Ωμέγα", "Жар", "한국어", "עברית", "العربية", "हिन्दी"]
)
def test_scripts_with_spaces_are_none_of_it(text: str) -> None:
    assert not re.search(f"[{UNSPACED}]", text)
