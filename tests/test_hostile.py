"""Hostile input against the shipped model: whatever comes in, quotes are exact or it is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recallm_core import Answer, Document, RecaLLM
from recallm_core.errors import ContextOverflowError
from recallm_core.models import shipped
from recallm_core.retrieval import CorpusIndex

pytestmark = pytest.mark.slow

FACT, QUESTION = "The harbour library opens at nine.", "When does the harbour library open?"
FOLDER = shipped("recallm-mini")
assert FOLDER is not None
ADDED = [
    token["content"]
    for token in json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))["added_tokens"]
]
FOREIGN = ["<recall>", "</recall>", "<|im_start|>", "<|im_end|>", "</s>", "<tool_call>"]
FIELDS = ["RECALLMFIELD0Z", "{title}", "{text}", "{{ messages }}"]
MARKS = [*ADDED, *FOREIGN, *FIELDS]
ALL_MARKS = "".join(MARKS)


@pytest.fixture(scope="module")
def mini() -> Iterator[RecaLLM]:
    with RecaLLM.load() as llm:
        yield llm


def ask(llm: RecaLLM, question: str, documents: list[Document]) -> Answer:
    """Asks, and checks everything that is promised of any answer."""
    answer = llm.answer(question, documents, max_new_tokens=48)
    by_id = {document.id: document.text for document in documents}
    for cited in answer.citations:
        assert by_id[cited.document_id][cited.start : cited.end] == cited.text
        assert cited.text.strip()
        assert cited.occurrences
        for place in cited.occurrences:
            assert by_id[place.document_id][place.start : place.end] == cited.text
    json.dumps(answer.to_dict())
    assert answer.to_markdown() is not None
    assert answer.to_html()
    return answer


@pytest.mark.parametrize("mark", MARKS)
def test_look_alikes_of_control_tokens_are_text(mini: RecaLLM, mark: str) -> None:
    text = f"{mark} The harbour library opens at nine {mark} sharp. {mark}"
    answer = ask(mini, QUESTION, [Document(text, "d", mark)])
    assert mini.tokenizer.control_id(mark) not in mini.tokenizer.encode_plain(text).ids.tolist()
    assert answer.trace.spans


TEXTS = {
    "only look-alikes": ALL_MARKS,
    "nul and controls": "The harbour\0 library opens\0 at nine.\0\x01\x1b[31m\x7f\u202e",
    "rtl": "تفتح المكتبة في الساعة التاسعة صباحًا. המוזיאון נפתח בשעה עשר.",
    "cjk": "港口图书馆九点开门。渡轮十点出发。",
    "emoji": "The sign 👩\u200d👩\u200d👧\u200d👦 means family 🏳️\u200d🌈. zo\u0308e 🇫🇷🇩🇪",
    "thai": "ห้องสมุดท่าเรือเปิดเวลาเก้านาฬิกา",
    "line ends": "A\r\n\r\nThe harbour library\r\nopens at nine.\r\rB\u2028C\x85",
    "one huge word": "x" * 200_000,
    "one huge line": "word " * 60_000 + FACT,
    "one token": "a " * 2_000,
    "combining marks": "e" + "\u0301" * 1_000 + " " + FACT,
    "joiners": "\u200d" * 1_000 + FACT,
    "white space": " " * 5_000 + FACT + "\n" * 5_000,
    "blank": " \n\t\u3000",
}


@pytest.mark.parametrize("name", TEXTS)
def test_odd_texts_give_exact_quotes_or_none(mini: RecaLLM, name: str) -> None:
    ask(mini, QUESTION, [Document(TEXTS[name], "odd"), Document("", "empty")])


def test_look_alikes_in_questions_titles_and_ids(mini: RecaLLM) -> None:
    ask(mini, QUESTION + ALL_MARKS, [Document(FACT, ALL_MARKS, ALL_MARKS)])
    ask(mini, QUESTION, [Document(FACT, "a", "t\0\n" + ALL_MARKS)])


def test_equal_texts_with_other_ids_are_all_named(mini: RecaLLM) -> None:
    answer = ask(mini, QUESTION, [Document(FACT, name) for name in "abc"])
    assert {place.document_id for place in answer.citations[0].occurrences} == set("abc")


@pytest.mark.parametrize("times", [20_000, 500_000])
def test_a_question_longer_than_the_window_is_refused(mini: RecaLLM, times: int) -> None:
    with pytest.raises(ContextOverflowError, match="context length is 16,384"):
        mini.answer("why " * times, [Document(FACT)])


def test_one_of_ten_thousand_tiny_documents_is_read(mini: RecaLLM) -> None:
    others = [Document(f"Ticket {n} was opened by no {n * 7}.", f"t{n}") for n in range(9_999)]
    keys = Document("The keys of the boat house hang behind the blue door.", "keys")
    answer = ask(mini, "Where do the keys of the boat house hang?", [*others, keys])
    assert answer.sources["keys"] is keys
    assert answer.usage.prompt_tokens < mini.backend.window


def test_a_needle_in_three_megabytes_is_in_the_pack() -> None:
    noise = "".join(
        f"Entry {n} of the log speaks of ship {n * 37 % 9973}.\n" for n in range(35_000)
    )
    text = noise + FACT + "\n" + noise
    passages = CorpusIndex.build([Document(text, "log")]).pack(QUESTION, token_budget=4_000)
    assert any(FACT in passage.text for passage in passages)
    assert all(text[p.start : p.end] == p.text for p in passages)


def test_sixteen_threads_get_the_answers_that_they_would_get_alone(mini: RecaLLM) -> None:
    said = [("library", "nine"), ("museum", "ten"), ("bakery", "six"), ("bank", "eight")]
    calls = [
        (f"When does the {what} open?", [Document(f"The {what} opens at {hour}.", f"{what}{n}")])
        for n in range(4)
        for what, hour in said
    ]
    alone = [ask(mini, *call) for call in calls[:4]]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda call: ask(mini, *call), calls))
    for number, answer in enumerate(together):
        assert answer.text == alone[number % 4].text
        expected = [cited.text for cited in alone[number % 4].citations]
        assert [cited.text for cited in answer.citations] == expected


# the command


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "recallm_core.cli", *map(str, arguments)]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=600, check=False, env=environment()
    )


def environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_a_folder_of_junk_is_reported_and_the_rest_answers(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "secret.txt").write_text("The password is swordfish.")
    (docs / "good.txt").write_text(FACT)
    (docs / "empty.txt").write_text("")
    (docs / "nul.txt").write_bytes(b"a\0b" * 1000)
    (docs / "binary.txt").write_bytes(bytes(range(256)) * 100)
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 nonsense")
    (docs / "out.txt").symlink_to(tmp_path / "secret.txt")
    (docs / "up").symlink_to(tmp_path)
    os.mkfifo(docs / "pipe.txt")
    done = command("ask", QUESTION, "--docs", docs, "--json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "swordfish" not in done.stdout
    for name in ("empty.txt", "binary.txt", "broken.pdf", "out.txt", "up", "pipe.txt"):
        assert re.search(rf"/{re.escape(name)}(?:: |, )", done.stderr)
    found = json.loads(done.stdout)["citations"]
    assert {cited["document_id"] for cited in found} == {"good.txt"}


@pytest.mark.skipif(os.name != "posix", reason="needs modes of files")
def test_folders_without_access_are_refused_or_reported() -> None:
    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder)
        docs.chmod(0o755)
        (docs / "locked").mkdir()
        (docs / "locked" / "secret.txt").write_text("swordfish")
        (docs / "good.txt").write_text(FACT)
        (docs / "shut.txt").write_text(FACT)
        (docs / "shut.txt").chmod(0)
        (docs / "locked").chmod(0)
        line = [sys.executable, "-c", AS_NOBODY, folder, QUESTION]
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=600, check=False, env=environment()
        )
        (docs / "locked").chmod(0o700)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("ermission denied") == 1
    assert "Traceback" not in done.stderr
    found, *skipped = done.stdout.splitlines()
    assert found == "good.txt"
    assert [Path(line.partition(": ")[0]).name for line in skipped] == ["locked", "shut.txt"]
    assert all("permission denied" in line for line in skipped)


# Modes don't bind root, so it becomes somebody else once everything is imported.
AS_NOBODY = """
import os, sys
from recallm_core import cli, errors
from recallm_core.cli import ask
from recallm_core.documents import loading
from recallm_core.prompting import params
from recallm_core.rendering import visible
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
loaded = loading.load_documents(sys.argv[1])
print(*[d.id for d in loaded], *[f"{s.path}: {s.reason}" for s in loaded.skipped], sep="\\n")
sys.exit(cli.main(["ask", sys.argv[2], "--docs", sys.argv[1] + "/locked"]))
"""


def test_ctrl_c_in_mid_answer_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three four five six seven. " * 300)
    line = [sys.executable, "-c", LONG, "ask", "What comes after six?", "--docs", str(tmp_path)]
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stderr is not None
    try:
        assert process.stderr.readline().strip() == "started"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors


LONG = """
import signal, sys
from recallm_core.cli import main
from recallm_core.answering.stream import AnswerStream

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's child ignores it

take = AnswerStream.next_events

def noisy(stream):
    events = take(stream)
    if not getattr(sys, "told", False):
        sys.told = True
        print("started", file=sys.stderr, flush=True)
    return [event for event in events if "Finished" not in type(event).__name__] or take(stream)

AnswerStream.next_events = noisy
sys.exit(main(sys.argv[1:]))
"""
