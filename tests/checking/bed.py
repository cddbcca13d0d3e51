"""Quotes made from documents, each with the verdict that it should get."""

from __future__ import annotations

import html
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from recallm_core.checking.changes import is_negation
from recallm_core.documents.document import Document
from recallm_core.text.lexical import sentences

STRICT = ("exact", "invented", "digit", "name", "negation")  # to be right in 99 of 100
LENIENT = ("case", "space", "ligature", "line", "hyphen", "stitched", "ellipsis", "elsewhere")
NEGATIONS = {
    "not": "", "never": "always", "no": "some", "nicht": "", "не": "", "δεν": "", "لا": "",
    "لم": "", "नहीं": "", "nunca": "siempre", "không": "",
}  # fmt: skip
UNSPACED_NEGATIONS = {"不": "", "没有": "有"}
_LIGATURES = {"ffi": "ﬃ", "ffl": "ﬄ", "ff": "ﬀ", "fi": "ﬁ", "fl": "ﬂ"}
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Row:
    """A quote and what is to be said of it."""

    kind: str
    text: str
    verdicts: tuple[str, ...]
    source: str | None = None

    @property
    def written(self) -> str:
        named = f' source="{html.escape(self.source)}"' if self.source else ""
        return f"<quote{named}>{html.escape(self.text, quote=False)}</quote>"


def rows(documents: Sequence[Document], others: Sequence[str], seed: int, count: int) -> list[Row]:
    """Returns about ``count`` rows of every kind that the texts have room for, in turn.

    ``others`` are texts that aren't among the documents; what is invented comes from them.
    """
    rng = random.Random(seed)
    bed = _Bed(documents, others, rng)
    makers = {kind: getattr(bed, kind) for kind in (*STRICT, *LENIENT)}
    found: list[Row] = []
    for make in makers.values():
        each = _tried(make, 300)
        found += [row for _, row in zip(range(-(-count // len(makers))), each, strict=False)]
    rng.shuffle(found)
    return found


def _tried(make: Callable[[], Row | None], tries: int) -> Iterator[Row]:
    while True:
        row = next((row for row in (make() for _ in range(tries)) if row is not None), None)
        if row is None:
            return
        yield row


class _Bed:
    def __init__(
        self, documents: Sequence[Document], others: Sequence[str], rng: random.Random
    ) -> None:
        self.documents = documents
        self.rng = rng
        self.all = "\n".join(document.text for document in documents)
        self.words = " ".join(_WORD.findall(self.all.casefold()))
        self.threes = set(_threes(self.all))
        self.pool = [
            (number, document.text[a:b])
            for number, document in enumerate(documents)
            for a, b in sentences(document.text)
            if _fits(document.text[a:b])
        ]
        self.foreign = [t[a:b] for t in others for a, b in sentences(t) if _fits(t[a:b])]

    def holds(self, text: str) -> bool:
        """Whether the documents hold a text, whatever stands between its words."""
        return " ".join(_WORD.findall(text.casefold())) in self.words

    def pick(self) -> tuple[int, str]:
        return self.rng.choice(self.pool)

    def part(self) -> str:
        """A sentence, or some words of one."""
        _, text = self.pick()
        spaces = _cuts(text)
        if len(spaces) < 10 or self.rng.random() < 0.5:
            return text
        a = self.rng.randrange(len(spaces) - 8)
        b = self.rng.randrange(a + 7, len(spaces))
        return text[spaces[a][1] : spaces[b][0]]

    def one_line(self) -> str:
        return re.sub(r"\s+", " ", self.part())

    def exact(self) -> Row | None:
        return Row("exact", self.part(), ("exact",))

    def invented(self) -> Row | None:
        text = self.rng.choice(self.foreign)
        threes = _threes(text)
        known = sum(three in self.threes for three in threes)
        return None if known > len(threes) / 4 else Row("invented", text, ("absent",))

    def digit(self) -> Row | None:
        return self._changed("digit", r"\d", lambda d: str((int(d) + self.rng.randint(1, 9)) % 10))

    def name(self) -> Row | None:
        names = {m.group() for m in re.finditer(r"(?<=[^\W\d_] )[^\W\d_]{4,}", self.part())}
        other = sorted(n for n in names if n[0].isupper()) or ["Kowalczyk"]
        new = self.rng.choice(other)
        return self._changed(
            "name",
            r"(?<=[^\W\d_]\s)[A-ZÀ-ÖØ-ÞА-ЯΑ-Ω][^\W\d_]{3,}",
            lambda old: new,
        )

    def negation(self) -> Row | None:
        words = "|".join(NEGATIONS)
        pattern = rf"(?<=[^\W\d_]\s)(?:{words})(?=\s)|{'|'.join(UNSPACED_NEGATIONS)}"
        known = NEGATIONS | UNSPACED_NEGATIONS
        return self._changed("negation", pattern, lambda word: known[word])

    def _changed(self, kind: str, pattern: str, put: Callable[[str], str]) -> Row | None:
        text = self.part()
        found = list(re.finditer(pattern, text))
        if not found:
            return None
        match = self.rng.choice(found)
        new = put(match.group())
        changed = text[: match.start()] + new + text[match.end() :]
        if new.casefold() == match.group().casefold() or self.holds(changed):
            return None
        return Row(kind, changed, ("altered",))

    def case(self) -> Row | None:
        text = self.part()
        changed = self.rng.choice((text.upper, text.lower, text.swapcase))()
        return self._drift("case", text, changed)

    def space(self) -> Row | None:
        text = self.one_line()
        changed = re.sub(r" ", lambda m: self.rng.choice((" ", "  ", "\n", "\u00a0", "\t")), text)
        return self._drift("space", text, changed)

    def ligature(self) -> Row | None:
        text = self.part()
        plain = next((p for p in _LIGATURES if p in text), None)
        if plain is not None:
            return self._drift("ligature", text, text.replace(plain, _LIGATURES[plain]))
        joined = next((p for p, sign in _LIGATURES.items() if sign in text), None)
        if joined is None:
            return None
        return self._drift("ligature", text, text.replace(_LIGATURES[joined], joined))

    def line(self) -> Row | None:
        text = self.part()
        return self._drift("line", text, re.sub(r"\s*\n\s*", " ", text))

    def hyphen(self) -> Row | None:
        """A word divided at a line's end in the quote, or in the document alone."""
        text = self.part()
        divided = re.search(r"(?<=[^\W\d_])-\n\s*(?=[^\W\d_])", text)
        if divided:
            return self._drift("hyphen", text, text.replace(divided.group(), ""))
        found = list(re.finditer(r"(?<=[a-zа-я]{3})(?=[a-zа-я]{3})", text))
        if not found:
            return None
        at = self.rng.choice(found).start()
        return self._drift("hyphen", text, text[:at] + "-\n" + text[at:])

    def stitched(self) -> Row | None:
        (_, one), (_, two) = self.pick(), self.pick()
        one, two = _half(one, first=True), _half(two, first=False)
        joined = f"{one} {two}"
        if min(len(_cuts(one)), len(_cuts(two))) < 4 or self.holds(joined):
            return None
        return Row("stitched", joined, ("stitched",))

    def ellipsis(self) -> Row | None:
        _, text = self.pick()
        spaces = _cuts(text)
        if len(spaces) < 9:
            return None
        a, b = spaces[len(spaces) // 3][0], spaces[2 * len(spaces) // 3][1]
        left_out = re.sub("['\u2019]", "", text[a:b].casefold())
        if any(map(is_negation, [*_WORD.findall(left_out), *left_out])):
            return None
        sign = self.rng.choice(("…", "...", "[…]", "[...]"))
        return Row("ellipsis", f"{text[:a]} {sign} {text[b:]}", ("exact", "drift"))

    def elsewhere(self) -> Row | None:
        number, text = self.pick()
        wrong = self.rng.randrange(len(self.documents))
        if wrong == number or text in self.documents[wrong].text:
            return None
        return Row("elsewhere", text, ("misattributed",), self.documents[wrong].id)

    def _drift(self, kind: str, text: str, changed: str) -> Row | None:
        if changed == text or changed in self.all:
            return None
        return Row(kind, changed, ("drift",))


def _threes(text: str) -> list[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return list(zip(words, words[1:], words[2:], strict=False))


def _fits(text: str) -> bool:
    """Whether a sentence is prose that a person could quote."""
    words = _WORD.findall(text)
    letters = sum(c.isalpha() or c.isspace() for c in text) / len(text)
    return (
        8 <= len(words) + sum(map(_is_han, text)) / 2 <= 60
        and letters > 0.85
        and not re.search(r"\.\.|…|[\[\]<>]|\n\s*\n", text)
        and text[0].isalnum()
    )


def _half(text: str, *, first: bool) -> str:
    spaces = _cuts(text)
    if not spaces:
        return ""
    a, b = spaces[len(spaces) // 2]
    return text[:a] if first else text[b:].strip(" .;,:。，")


def _cuts(text: str) -> list[tuple[int, int]]:
    """What lies between two words: white space, or nothing in a script without it."""
    spaces = [m.span() for m in re.finditer(r"(?<=\w)\s+(?=\w)", text)]
    inner = range(1, len(text))
    bare = [(i, i) for i in inner if _is_han(text[i - 1]) and _is_han(text[i])]
    return sorted([*spaces, *bare])


def _is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def typeset(text: str, rng: random.Random) -> str:
    """A text as a page has it: lines broken, words divided at their ends, ligatures."""
    width = rng.randint(40, 90)
    for plain, sign in _LIGATURES.items():
        if rng.random() < 0.4:
            text = text.replace(plain, sign)
    return "\n\n".join("\n".join(_wrapped(part, width, rng)) for part in text.split("\n\n"))


def _wrapped(text: str, width: int, rng: random.Random) -> Iterator[str]:
    line = ""
    for word in re.findall(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+\s*", text):
        room = width - len(line)
        if len(word) > room:
            divides = word.rstrip().isalpha() and len(word) > 7 and rng.random() < 0.5
            at = rng.randint(3, len(word.rstrip()) - 3) if divides else 0
            yield (
                line.rstrip()
                + (" " if at and line and line[-1] == " " else "")
                + (word[:at] + "-" if at else "")
            )
            line, word = "", word[at:]
        line += word
    yield line.rstrip()


_LEXICA = {
    "latin": (
        "river office filter ledger contract finance shuffle report flower benefit committee "
        "traffic market bridge sample record notice window garden signal waffle library officer "
        "payment delivery branch employee holiday machine winter difficult efficient annual "
        "written offered approved delayed covers requires finishes reflects follows begins the "
        "a of with during before after under",
        "Keller Martha Lindholm Oakes Berlin Quentin Harrow Svenson",
        "not never no",
    ),
    "cyrillic": (
        "река договор отчёт письмо рынок мост образец запись окно сад сигнал библиотека доставка "
        "отделение сотрудник праздник машина зима трудный годовой написанный одобренный требует "
        "начинается следует покрывает вечером утром после перед через около документ система",
        "Иванова Москва Казань Петров Соколова",
        "не",
    ),
    "greek": (
        "ποταμός συμβόλαιο αναφορά γράμμα αγορά γέφυρα δείγμα εγγραφή παράθυρο κήπος σήμα "
        "βιβλιοθήκη παράδοση τμήμα υπάλληλος γιορτή μηχανή χειμώνας δύσκολος ετήσιος γραπτός "
        "αρχίζει ακολουθεί καλύπτει απαιτεί μετά πριν κατά έγγραφο σύστημα",
        "Παπαδάκης Αθήνα Ελένη Κρήτη",
        "δεν",
    ),
    "arabic": (
        "نهر عقد تقرير رسالة سوق جسر عينة سجل نافذة حديقة إشارة مكتبة تسليم فرع موظف عطلة آلة "
        "شتاء صعب سنوي مكتوب موافق يتطلب يبدأ يتبع يغطي بعد قبل خلال وثيقة نظام مدينة شركة",
        "",
        "لا لم",
    ),
    "devanagari": (
        "नदी अनुबंध रिपोर्ट पत्र बाज़ार पुल नमूना अभिलेख खिड़की बगीचा संकेत पुस्तकालय वितरण शाखा "
        "कर्मचारी छुट्टी मशीन सर्दी कठिन वार्षिक लिखित स्वीकृत आवश्यक आरंभ अनुसरण बाद पहले दौरान दस्तावेज़",
        "",
        "नहीं",
    ),
    "han": (
        "河 合 同 报 告 信 市 场 桥 样 本 记 录 窗 花 园 号 图 书 馆 交 付 分 支 员 工 假 日 机 器 "
        "冬 难 年 度 书 面 批 准 需 要 始 随 盖 后 前 期 文 件 系 统 城 公 司",
        "",
        "不",
    ),
}  # fmt: skip


def made(seed: int, count: int) -> list[str]:
    """Texts of made-up sentences in six scripts, with numbers, names and negations."""
    rng = random.Random(seed)
    return [_paragraphs(*_LEXICA[script], script, rng) for script in _LEXICA for _ in range(count)]


def _paragraphs(words: str, names: str, noes: str, script: str, rng: random.Random) -> str:
    spaced = script != "han"
    gap, stop = (" ", ".") if spaced else ("", "。")

    def sentence() -> str:
        said = [rng.choice(words.split()) for _ in range(rng.randint(12, 18 if spaced else 26))]
        said.insert(rng.randint(3, 9), str(rng.randint(10, 9999)))
        said.insert(rng.randint(3, 9), rng.choice(noes.split()))
        if names:
            said.insert(rng.randint(3, 9), rng.choice(names.split()))
        text = gap.join(said)
        return text[0].upper() + text[1:] + stop

    return "\n\n".join((" " if spaced else "").join(sentence() for _ in range(4)) for _ in range(3))
