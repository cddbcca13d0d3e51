"""Boundaries against the regex module and against the rules of UAX #29 read one by one."""

import itertools
from functools import cache

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from recallm_core.text.boundaries import amid_phrases, grapheme_boundaries, word_boundaries

# Linkers (U+094D) only after a consonant: elsewhere regex's \X joins where UAX #29 doesn't.
PIECES = [
    *"aZ9_é ßא'\"’.,:;/·-‐",
    *"0٣४５٫٬",
    *"日本カタひら。ーｱﾞ",
    *"สวัดีำ",
    *"नमेि।",
    "क्",
    "क्‍",
    "क्ष",
    *"한국어",
    *"\u1100\u1161\u11a8",
    *"👩👦❤👍Ⓜ©🏽",
    "👩‍👦",
    *"🇩🇪🇫",
    *"\u0301\u0308\u200c\u200d\ufe0f\u00ad\ufeff\u2060",
    "\r\n",
    *"\r\n\t\x00\x0b\x85\u2028\u3000",
    *"\u0600\u06dd\U000110bd",
    *"𐒀𝟘𝐀",
    *"عربي",
    "2024/05/06",
    "3,000.5",
]
mixed = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
# Few characters that the rules are about, so that they meet often.
close = st.text(st.sampled_from("a1é·':.,/_אカ日 \u0301\u200d"), max_size=8)
any_text = close | st.text(st.characters(), max_size=30) | mixed


def naive_graphemes(text: str) -> list[bool]:
    marks = [False] * (len(text) + 1)
    marks[0] = True
    for match in regex.finditer(r"\X", text):
        marks[match.end()] = True
    return marks


CLASSES = [
    *("ALetter", "Hebrew_Letter", "Numeric", "Katakana", "ExtendNumLet", "MidLetter", "MidNum"),
    *("MidNumLet", "Single_Quote", "Double_Quote", "Regional_Indicator", "WSegSpace", "Extend"),
    *("Format", "ZWJ", "CR", "LF", "Newline"),
]
LETTERS = {"ALetter", "Hebrew_Letter"}
MID_LETTERS = {"MidLetter", "MidNumLet", "Single_Quote"}
MID_DIGITS = {"MidNum", "MidNumLet", "Single_Quote", "joins digits"}
LINES = {"CR", "LF", "Newline"}
SILENT = {"Extend", "Format", "ZWJ"}


@cache
def kind(char: str) -> str:
    return next((c for c in CLASSES if regex.match(rf"\p{{WB={c}}}", char)), "Other")


def is_word_break(text: str, kinds: list[str], i: int) -> bool:
    """UAX #29, rule by rule, at one position inside the text; with our joined numbers."""
    if text[i - 1] == "\r" and text[i] == "\n":
        return False
    if kinds[i - 1] in LINES or kinds[i] in LINES:
        return True
    if kinds[i - 1] == "ZWJ" and regex.match(r"\p{Extended_Pictographic}", text[i]):
        return False
    if kinds[i - 1] == kinds[i] == "WSegSpace":
        return False
    if kinds[i] in SILENT:
        return False
    heard = [  # what rule 4 leaves of the text
        j for j, k in enumerate(kinds) if not (k in SILENT and j > 0 and kinds[j - 1] not in LINES)
    ]
    at = heard.index(i)
    around = ["", "", *(kinds[j] for j in heard), "", ""][at : at + 4]
    signs = ["", "", *(text[j] for j in heard), "", ""][at : at + 4]
    a, b, c, d = around
    if b == c == "Regional_Indicator":
        run = 0
        while at - 1 - run >= 0 and kinds[heard[at - 1 - run]] == "Regional_Indicator":
            run += 1
        return run % 2 == 0
    joins_after = c in MID_DIGITS or signs[2] in ":/：／﹕"
    joins_before = b in MID_DIGITS or signs[1] in ":/：／﹕"
    return not (
        (b in LETTERS and c in LETTERS)
        or (b in LETTERS and c in MID_LETTERS and d in LETTERS)
        or (a in LETTERS and b in MID_LETTERS and c in LETTERS)
        or (b == "Hebrew_Letter" and c == "Single_Quote")
        or (b == d == "Hebrew_Letter" and c == "Double_Quote")
        or (a == c == "Hebrew_Letter" and b == "Double_Quote")
        or (b in LETTERS | {"Numeric"} and c in LETTERS | {"Numeric"})
        or (a == c == "Numeric" and joins_before)
        or (b == d == "Numeric" and joins_after)
        or (b == c == "Katakana")
        or (b in LETTERS | {"Numeric", "Katakana", "ExtendNumLet"} and c == "ExtendNumLet")
        or (b == "ExtendNumLet" and c in LETTERS | {"Numeric", "Katakana"})
    )


def naive_words(text: str) -> list[bool]:
    kinds = [kind(char) for char in text]
    inner = [is_word_break(text, kinds, i) for i in range(1, len(text))]
    graphemes = grapheme_boundaries(text).tolist()
    return [
        mark and whole
        for mark, whole in zip([True, *inner, True][: len(graphemes)], graphemes, strict=True)
    ]


def pieces(text: str, marks: np.ndarray) -> list[str]:
    places = np.flatnonzero(marks).tolist()
    return [text[a:b] for a, b in itertools.pairwise(places)]


@settings(max_examples=400)
@given(mixed | close)
def test_graphemes_equal_the_regex_modules(text: str) -> None:
    assert grapheme_boundaries(text).tolist() == naive_graphemes(text)


@settings(max_examples=400)
@given(any_text)
def test_words_equal_the_rules_read_one_by_one(text: str) -> None:
    assert word_boundaries(text).tolist() == naive_words(text)


@given(st.text(st.sampled_from("ab Zé9_.,!?()\n\t-日本カタ가나ไทย"), max_size=40))
def test_words_equal_the_regex_modules_where_it_follows_the_rules(text: str) -> None:
    expected = {0, len(text), *(m.start() for m in regex.finditer(r"(?w)\b", text))}
    assert set(np.flatnonzero(word_boundaries(text)).tolist()) == expected & set(
        np.flatnonzero(grapheme_boundaries(text)).tolist()
    )


@settings(max_examples=300)
@given(any_text)
def test_shape_ends_and_nesting(text: str) -> None:
    graphemes, words = grapheme_boundaries(text), word_boundaries(text)
    for marks in (graphemes, words):
        assert marks.dtype == np.bool_
        assert marks.shape == (len(text) + 1,)
        assert marks[0]
        assert marks[-1]
    assert not np.any(words & ~graphemes)
    assert np.array_equal(words, word_boundaries(text, graphemes))


@given(st.text(st.characters(codec="ascii"), max_size=40))
def test_plain_text_has_the_same_boundaries_beside_other_scripts(text: str) -> None:
    """The short way for ASCII agrees with the general one."""
    mixed_in = text + "\n日"
    assert grapheme_boundaries(mixed_in)[: len(text)].tolist() == (
        grapheme_boundaries(text + "\n")[: len(text)].tolist()
    )
    assert word_boundaries(mixed_in)[: len(text)].tolist() == (
        word_boundaries(text + "\n")[: len(text)].tolist()
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("at 10:30 on 2024/05/06", ["at", " ", "10:30", " ", "on", " ", "2024/05/06"]),
        ("cost 3,000.5!", ["cost", " ", "3,000.5", "!"]),
        ("1.2.3.4:80", ["1.2.3.4:80"]),
        ("٣٫٥ १,२३ ５：３０", ["٣٫٥", " ", "१,२३", " ", "５：３０"]),
        ("10: 30 /5 6/", ["10", ":", " ", "30", " ", "/", "5", " ", "6", "/"]),
        ("and/or key:1", ["and", "/", "or", " ", "key", ":", "1"]),
        ("can't 'all' l’eau", ["can't", " ", "'", "all", "'", " ", "l’eau"]),
        ("e.g. foo_bar", ["e.g", ".", " ", "foo_bar"]),
        ("日本語カタカナを", ["日", "本", "語", "カタカナ", "を"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("नमस्ते दुनिया", ["नमस्ते", " ", "दुनिया"]),
        ("한국어 말", ["한국어", " ", "말"]),
        ("👩‍👩‍👧‍👦🇩🇪🇫🇷x", ["👩‍👩‍👧‍👦", "🇩🇪", "🇫🇷", "x"]),
        ("e\u0301te\u0301 a\u200db", ["e\u0301te\u0301", " ", "a\u200db"]),
        ("a\r\n\r\nb\x00\t c", ["a", "\r\n", "\r\n", "b", "\x00", "\t", " ", "c"]),
        ("צה\"ל ג'", ['צה"ל', " ", "ג'"]),
    ],
)
def test_words_read_as_people_read_them(text: str, words: list[str]) -> None:
    assert pieces(text, word_boundaries(text)) == words


@pytest.mark.parametrize(
    ("text", "graphemes"),
    [
        ("क्षि", ["क्षि"]),
        ("क्‍ष", ["क्‍ष"]),
        ("a\u094dक", ["a\u094d", "क"]),  # a conjunct needs a consonant on both sides
        ("क\u094d\u094dक", ["क\u094d\u094dक"]),
        ("\u0300\u094dक", ["\u0300\u094d", "क"]),
        ("👩\u200d🚀", ["👩\u200d🚀"]),
        ("a\u200d🚀", ["a\u200d", "🚀"]),
        ("👍🏽\u200d", ["👍🏽\u200d"]),
        ("🇩🇪🇫", ["🇩🇪", "🇫"]),
        ("\u1100\u1161\u11a8\u1100", ["\u1100\u1161\u11a8", "\u1100"]),
        ("가\u11a8각\u11a8", ["가\u11a8", "각\u11a8"]),
        ("\r\n\n\r\u0301", ["\r\n", "\n", "\r", "\u0301"]),
        ("\u06001", ["\u06001"]),
        ("क्क\u200dक", ["क्क\u200d", "क"]),  # the link must stand between the two consonants
        ("क\u093cक्क", ["क\u093c", "क्क"]),
        ("\u0301\u200d👩", ["\u0301\u200d", "👩"]),
    ],
)
def test_graphemes_follow_the_published_rules(text: str, graphemes: list[str]) -> None:
    assert pieces(text, grapheme_boundaries(text)) == graphemes


def test_lone_surrogates_and_the_last_code_point_are_characters_like_others() -> None:
    text = "a\ud800\udc00\U0010ffff"
    assert grapheme_boundaries(text).all()
    assert word_boundaries(text).all()


@pytest.mark.parametrize("text", ["", "a", "\r", "\u0301", "\u200d", "\n\u0301"])
def test_short_texts_have_both_ends(text: str) -> None:
    assert grapheme_boundaries(text).all()
    assert word_boundaries(text).all()


def test_the_callers_graphemes_stay_untouched() -> None:
    graphemes = grapheme_boundaries("two words")
    word_boundaries("two words", graphemes)
    assert graphemes.all()


@given(mixed)
def test_phrases_of_scripts_without_spaces_end_at_signs_and_never_go_on_for_long(text: str) -> None:
    amid = amid_phrases(text * 12)
    unspaced = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\u30fc\uff70]")
    for place in np.flatnonzero(amid).tolist():
        assert all(unspaced.match(c) for c in (text * 12)[place - 1 : place + 1])
    edges = np.flatnonzero(~amid)
    assert edges[0] == 0
    assert edges[-1] == len(text * 12)
    assert (np.diff(edges) <= 49).all()


@pytest.mark.parametrize(
    "phrases",
    [
        ["因为函数问题可以重新定义", "，", "实际情况并非如此", "。"],
        ["费为", " ", "3000", " ", "万英镑", "(", "Drogo", ")", "和", "iPhone", "手机"],
        ["図書館は", "毎朝九時に", "開きます", "。", "二〇二四年に"],
        ["コンピューター", "を", "使う", "人々はらーめん", "屋へ"],
        ["ห้องสมุดเปิดเวลาเก้าโมงเช้า", " ", "๒๔๐", " ", "บาท"],
        ["The fee", " ", "is due"],
    ],
)
def test_where_a_phrase_begins_shows(phrases: list[str]) -> None:
    text = "".join(phrases)
    shown = np.flatnonzero(word_boundaries(text) & ~amid_phrases(text)).tolist()
    edges = [0, *itertools.accumulate(map(len, phrases))]
    assert [n for n in shown if n in edges or not text.isascii()] == edges
