from __future__ import annotations

import textwrap

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from recallm_core.text.layout import (
    _LEAST_WIDTH,
    _paragraphs,
    _paragraphs_by_any_break,
    read_layout,
)
from recallm_core.text.lexical import sentences, terms, units

WORDS = st.sampled_from(
    """
    the club fee is paid by every member in March, and of boats two hundred euros harbour Anna
    Schmidt October 240 a regatta takes place on 12 July (weather permitting) equipment well-kept
    warden because from eastern pier: moved at 9:30 twenty-four hours — Müller's boiler e.g.
""".split()  # noqa: SIM905
)
SENTENCES = st.builds(
    lambda first, words, last, stop: " ".join([first, *words, last]) + stop,
    st.sampled_from(["The", "Damage", "Our", "Wind", "Élan"]),
    st.lists(WORDS, min_size=4, max_size=25),
    st.sampled_from(["harbour", "euros", "Anna", "members"]),
    st.sampled_from([".", ".", "?", "!"]),
)
PREFIXES = ("", "> ", ">> ", "# ", "// ", "/// ", "; ", "-- ", "% ", " * ", "    ", "\t")


def read(text: str) -> list[list[str]]:
    found = units(text)
    return [terms(found.text[start:end]) for start, end in found.spans]


def shown(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@given(
    st.lists(SENTENCES, min_size=1, max_size=6).map(" ".join),
    st.integers(25, 100),
    st.sampled_from(PREFIXES),
    st.sampled_from(["\n", "\r\n"]),
)
def test_wrapping_changes_no_sentence_and_no_word(
    text: str, width: int, prefix: str, newline: str
) -> None:
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    # no line shows how wide the column was, where each is as narrow as a list's
    assume(len(lines) == 1 or max(map(len, lines)) >= _LEAST_WIDTH)
    assert read(newline.join(prefix + line for line in lines)) == read(text)


def test_lines_that_are_narrower_than_any_column_are_read_apart() -> None:
    assert shown("Wind euros a a on\nharbour.") == ["Wind euros a a on", "harbour."]
    assert len(shown("Wind euros blow on\nharbour.")) == 1


LIKE_ITEMS = st.lists(
    st.sampled_from(["61.", "7)", "(3)", "a)", "(b)", "-", "*", "+", "\u2022", "--", "9:30"]),
    unique=True,
    max_size=3,
)


@st.composite
def proses_with_likes_of_items(draw: st.DrawFn) -> str:
    """Prose with words in its midst that would begin an item where a line begins with them."""
    likes = draw(LIKE_ITEMS)
    prose = draw(st.lists(SENTENCES, min_size=len(likes), max_size=5))
    for number, like in enumerate(likes):
        first, *words = prose[number].split(" ")
        place = draw(st.integers(2, len(words) - 1))
        prose[number] = " ".join([first, *words[:place], "near", like, "beside", *words[place:]])
    return " ".join(prose)


@example("The club twenty-four near - beside the the euros. The the the the the harbour.", 33, "")
@given(proses_with_likes_of_items(), st.integers(25, 100), st.sampled_from(["", "> ", "    "]))
def test_a_word_of_prose_begins_no_item_where_a_line_begins_with_it(
    text: str, width: int, prefix: str
) -> None:
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    assert read("\n".join(prefix + line for line in lines)) == read(text)


RECORDS = st.sampled_from(
    ["Price: 20 euros\nTerm: 12 months", "| plan | price |\n| Basic | 20 |", "- pears\n- two plums",
     "Opening hours of the town library", "Name     Price\nBasic    20", "1. First\n2. Then"]
)  # fmt: skip
WRAPPED = st.lists(SENTENCES, min_size=1, max_size=4).map(" ".join)


@given(
    st.lists(RECORDS | WRAPPED, min_size=2, max_size=5),
    st.integers(25, 100),
    st.sampled_from([prefix for prefix in PREFIXES if "*" not in prefix]),
)
def test_a_prefix_of_a_whole_text_changes_no_sentence_and_is_not_read(
    paragraphs: list[str], width: int, prefix: str
) -> None:
    lines = [
        line
        for paragraph in paragraphs
        for row in [*paragraph.split("\n"), ""]
        for line in textwrap.wrap(row, width, break_on_hyphens=False) or [""]
    ]
    text = "\n".join(prefix + line for line in lines)
    marked = units(text)
    assert [found for found in read(text) if found] == read("\n\n".join(paragraphs))
    begins = [
        at
        for at, (a, b) in zip(marked.begins, marked.spans, strict=True)
        if marked.text[a:b].strip()
    ]
    assert not any(marked.text[at].isspace() for at in begins)


LINES = st.sampled_from(
    ["", "> ", "> quoted", "# Head", "// note", " * star", "1", "00:00:01,000 --> 00:00:04,000",
     "and goes on in lower case", "The end is here.", "- item", "a,b,c", "東京。大阪", "   ",
     "x = 1;", "A line that is long enough to have been wrapped"]
)  # fmt: skip


@given(st.lists(LINES | st.text(max_size=30), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
def test_blocks_hold_every_visible_character_and_marks_only_turn_into_spaces(
    lines: list[str], newline: str
) -> None:
    text = newline.join(lines)
    layout = read_layout(text)
    assert len(layout.text) == len(text)
    assert all(a == b or b == " " for a, b in zip(text, layout.text, strict=True))
    covered = set()
    previous = 0
    for start, end in layout.blocks:
        assert previous <= start < end
        covered.update(range(start, end))
        previous = end
    assert all(i in covered or c.isspace() for i, c in enumerate(text))
    found = units(text)
    assert all(a <= begin < b for (a, b), begin in zip(found.spans, found.begins, strict=True))


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(
            [
                "2024-05-01 02:14:51 INFO worker-1 handled request 1 in 7 ms",
                "2024-05-04 02:14:55 ERROR billing lost the connection to the ledger on kestrel",
                "2024-05-05 02:14:55 INFO worker-5 handled request 5 in 35 ms",
            ],
            id="log",
        ),
        pytest.param(
            [f"2024-05-0{n} 02:14:5{n} INFO worker-{n} handled it" for n in range(1, 8)],
            id="log of equal lines",
        ),
        pytest.param(
            [
                "Shall I compare thee to a summer's day?",
                "Thou art more lovely and more temperate:",
                "Rough winds do shake the darling buds of May,",
                "And summer's lease hath all too short a date;",
            ],
            id="verse",
        ),
        pytest.param(
            ["def settle(ledger):", "    return ledger.total(0)", "", "print(settle(x))"], id="code"
        ),
        pytest.param(["- apples from the garden", "- pears", "- plums from the market"], id="list"),
        pytest.param(
            ["Insurance premium heating", "Water and waste fees", "Street cleaning"], id="names"
        ),
        pytest.param(["plan,price,term", "Premium,40,12 months", "Basic,3,1 month"], id="values"),
        pytest.param(["Name     Price", "Basic    20", "Premium  40"], id="columns"),
        pytest.param(["Sailing Club Ltd", "12 Pier Road", "Hamburg"], id="address"),
        pytest.param(["From: Anna Schmidt", "To: all members", "Subject: fees"], id="headers"),
        pytest.param(
            ["Opening hours of the town library", "The library opens at nine."], id="heading"
        ),
        pytest.param(["| plan | price |", "| Basic | 20 |"], id="table"),
        pytest.param(["# Fees of the club", "## When they are paid"], id="headings"),
    ],
)
def test_records_are_a_line_each(records: list[str]) -> None:
    assert shown("\n".join(records)) == [line.strip() for line in records if line]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "1\n00:00:01,000 --> 00:00:04,000\nThe boiler inspection has been moved\n\n"
            "2\n00:00:04,000 --> 00:00:06,000\nto the ninth of October.\n\n"
            "3\n00:00:07,000 --> 00:00:09,000\nThank you.\n",
            ["The boiler inspection has been moved to the ninth of October.", "Thank you."],
        ),
        (
            "/**\n * The timeout till a connection is\n * over is thirty seconds.\n */\nint f;",
            ["/**", "The timeout till a connection is over is thirty seconds.", "*/", "int f;"],
        ),
        (
            "She said:\n> the repair was moved to the\n> ninth of October.\n>\n> Come.\nOk.",
            ["She said:", "the repair was moved to the ninth of October.", "", "Come.", "Ok."],
        ),
        (
            "- The fee is two hundred and\n  forty euros.\n- It goes to Anna\n  Schmidt.",
            ["- The fee is two hundred and forty euros.", "- It goes to Anna Schmidt."],
        ),
        (
            "Hi all,\nwe moved the meeting\nto Friday because of the strike that\nwas on. Ok.",
            ["Hi all,", "we moved the meeting to Friday because of the strike that was on.", "Ok."],
        ),
        (
            "The pier was built for the regatta of\n61. It stood till the flood of the year\n"
            "75. So says the warden of our harbours\n- and he knows.",
            ["The pier was built for the regatta of 61.", "It stood till the flood of the year 75.",
             "So says the warden of our harbours - and he knows."],
        ),
        (
            "The club has, for all of its members and\n1. a boiler that is as old as the pier\n"
            "2. a pier",
            ["The club has, for all of its members and", "1. a boiler that is as old as the pier",
             "2. a pier"],
        ),
        (
            "1. the boiler, which is older than all\n  of the members\n1. the pier",
            ["1. the boiler, which is older than all of the members", "1. the pier"],
        ),
        (
            "| Name | Fee |\n|---|---|\n| Anna | 240 |\n"
            "The fee is paid by Anna in March. It\nis due.",
            ["| Name | Fee |", "|---|---|", "| Anna | 240 |", "The fee is paid by Anna in March.",
             "It is due."],
        ),
        (
            "Check it:\n```bash\nrecallm check answer.md --docs docs/\n```",
            ["Check it:", "```bash", "recallm check answer.md --docs docs/", "```"],
        ),
        (
            "It keeps the quotes that were made of it in the text of the answer,\n"
            "the page is shown, and the\n`trace` has the words of the model. So the\n9 is a page.",
            ["It keeps the quotes that were made of it in the text of the answer, the page is "
             "shown, and the `trace` has the words of the model.", "So the 9 is a page."],
        ),
        (
            "1 Fees ........ 3\n2 Boats ........ 14",
            ["1 Fees ........ 3", "2 Boats ........ 14"],
        ),
        (
            "All of them were moved to the eastern pier\n-- the boiler too.",
            ["All of them were moved to the eastern pier -- the boiler too."],
        ),
    ],
)  # fmt: skip
def test_sentences_reach_over_lines_and_their_marks(text: str, expected: list[str]) -> None:
    found = units(text)
    assert [" ".join(found.text[a:b].split()) for a, b in found.spans] == expected
    assert all(
        text[begin] == found.text[begin]
        for begin, (a, b) in zip(found.begins, found.spans, strict=True)
        if found.text[a:b].strip()
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Es wurde Mitte des 18. Jahrhunderts gebaut. Am 3. Oktober 1990 fiel die Mauer.",
            ["Es wurde Mitte des 18. Jahrhunderts gebaut.", "Am 3. Oktober 1990 fiel die Mauer."],
        ),
        ("Am 3. 5. 2024 kam er. Er war 18. Dann ging er.",
         ["Am 3. 5. 2024 kam er.", "Er war 18.", "Dann ging er."]),
        ("Das gilt z. B. Sonntags, d.h. Immer.", ["Das gilt z. B. Sonntags, d.h. Immer."]),
        ("Lee et al. Found it (see Fig. 3. It shows more). Then not.",
         ["Lee et al. Found it (see Fig. 3. It shows more).", "Then not."]),
        ("A stray ( is no bracket. It ends. " + "Word " + "word " * 50 + "end) now.",
         ["A stray ( is no bracket.", "It ends.", "Word " + "word " * 50 + "end) now."]),
        ("Sick pay is the whole 100\n% of your salary. And so\nit has always been.",
         ["Sick pay is the whole 100\n% of your salary.", "And so\nit has always been."]),
        ("It was said.[2] Then more.[3][4] End.", ["It was said.[2]", "Then more.[3][4]", "End."]),
        ("我们去。他说：“好！”然后走了。", ["我们去。", "他说：“好！”", "然后走了。"]),
        ("「行く！」と言った。それで。", ["「行く！」と言った。", "それで。"]),
        ("她写道“我会付款。”的信，他没看。“真的？”，她问。",
         ["她写道“我会付款。”的信，他没看。", "“真的？”，她问。"]),
        ("（费用见表。），每年付款；可退！？会员须知！",
         ["（费用见表。），每年付款；可退！？", "会员须知！"]),
        ("真的吗?是的!好。", ["真的吗?", "是的!", "好。"]),
        ("値は３．１４である．次に１．２を見る．", ["値は３．１４である．", "次に１．２を見る．"]),
        ("ថ្លៃសមាជិក២៤០។បង់ខែមីនា។", ["ថ្លៃសមាជិក២៤០។", "បង់ខែមីនា។"]),
        ("ዋጋው ሁለት መቶ ነው። በመጋቢት ይከፈላል።", ["ዋጋው ሁለት መቶ ነው።", "በመጋቢት ይከፈላል።"]),
        ("यह घर है। वह गया।", ["यह घर है।", "वह गया।"]),
    ],
)  # fmt: skip
def test_what_ends_a_sentence(text: str, expected: list[str]) -> None:
    assert shown(text) == expected


@given(st.text(st.sampled_from("ab. \t\n\r\x0b\u2028\u3000>-"), max_size=40))
def test_lines_are_found_alike_whatever_breaks_there_may_be(text: str) -> None:
    assert list(_paragraphs(text)) == list(_paragraphs_by_any_break(text))
