from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import cli
from recallm_core.cli.ask import check_target, write_aside
from recallm_core.generator import RecaLLM
from recallm_core.rendering import visible
from recallm_core.testing import scripted_llm

SCRIPT = (
    "Where is it? <|start_recall|>27 days of paid leave<|end_recall|> That is it."
    "</think>You have 27 days of paid leave."
)
ABSTAINS = "I find nothing.</think>The documents don't say."
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "leave.md").write_text("# Leave\n\nYou have 27 days of paid leave a year.\n")
    return folder


def loading(script: str = SCRIPT, **options: int) -> Callable[[str], RecaLLM]:
    return lambda _: scripted_llm(script, **options)


def ask(docs: Path, *options: str, script: str = SCRIPT, question: str = "How many days?") -> int:
    return cli.main(["ask", question, "--docs", str(docs), *options], load=loading(script))


def test_an_answer_with_its_quote_and_place(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert ask(docs) == 0
    out, err = capsys.readouterr()
    assert out == (
        "Where is it? «27 days of paid leave» That is it.\n\n"
        "You have 27 days of paid leave[1].\n\n"
        f"[1] {docs / 'leave.md'}:3  Leave\n"
        "    27 days of paid leave\n"
    )
    assert err == ""


def test_quiet_leaves_the_reasoning_out(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(docs, "--quiet") == 0
    assert capsys.readouterr().out.startswith("You have 27 days of paid leave[1].\n")


def test_json_is_one_object_and_its_quotes_are_slices(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(docs, "--json") == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    (citation,) = answer["citations"]
    text = (docs / "leave.md").read_text()
    assert text[citation["start"] : citation["end"]] == citation["text"] == "27 days of paid leave"
    assert citation["lines"] == [3, 3]
    assert err == ""


def test_annotations_mark_the_quotes_and_csl_names_the_sources(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(docs, "--annotations") == 0
    (note,) = json.loads(capsys.readouterr().out)["items"]
    assert note["target"]["selector"][0]["exact"] == "27 days of paid leave"
    assert ask(docs, "--csl") == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert item["custom"]["quotes"][0]["text"] == "27 days of paid leave"


def test_markdown(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(docs, "--markdown") == 0
    assert capsys.readouterr().out.startswith("You have 27 days of paid leave[^1].\n\n[^1]: ")


def test_html_is_written_beside_other_output(
    docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "answer.html"
    page.write_text("old")
    assert ask(docs, "--json", "--html", str(page)) == 0
    out, err = capsys.readouterr()
    json.loads(out)
    assert str(page) in err
    assert page.read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer.html", "handbook"]


def test_an_abstention_has_its_own_exit_code(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert ask(docs, script=ABSTAINS) == 3
    assert "The documents hold no answer" in capsys.readouterr().out


def test_a_cut_off_answer_is_said_to_be(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = "</think>" + "word " * 100
    assert ask(docs, "--max-new-tokens", "60", script=script) == 3
    assert "cut off" in capsys.readouterr().err


def test_settings_reach_the_model(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = scripted_llm(SCRIPT)
    argv = ["ask", "How?", "--docs", str(docs), "--quiet", "--temperature", "0.5", "--seed", "7"]
    assert cli.main([*argv, "--max-new-tokens", "300", "--top-p", "0.9"], load=lambda _: llm) == 0
    (request,) = llm.backend.requests  # type: ignore[attr-defined]
    sampling = request.sampling
    assert (sampling.temperature, sampling.seed) == (0.5, 7)
    assert (sampling.max_new_tokens, sampling.top_p) == (300, 0.9)


def test_skipped_files_are_named(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (docs / "photo.jpg").write_bytes(b"\xff\xd8")
    (docs / "broken\x1b[31m.txt").write_bytes(b"\xff\xfe\xfd")
    assert ask(docs, "--json") == 0
    err = capsys.readouterr().err
    assert "skipped" in err
    assert "photo.jpg" in err
    assert "broken␛[31m.txt" in err
    assert err == visible(err)


def test_an_index_can_be_asked(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from recallm_core import CorpusIndex, load_documents

    path = docs.parent / "index"
    index = CorpusIndex.build(load_documents([docs]).documents, path=path)
    del index
    code = cli.main(["ask", "How many days?", "--index", str(path), "--json"], load=loading())
    assert code == 0
    assert json.loads(capsys.readouterr().out)["citations"][0]["text"] == "27 days of paid leave"


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice"),
        (["ask"], "required"),
        (["ask", "q"], "one of the arguments --docs --index is required"),
        (["ask", "q", "--docs", ".", "--index", "x"], "not allowed with"),
        (["ask", "q", "--docs", ".", "--json", "--markdown"], "not allowed with"),
        (["ask", "", "--docs", "."], "the question is empty"),
        (["ask", " \n", "--docs", "."], "the question is empty"),
        (["ask", "q", "--docs", ".", "--temperature", "-1"], "temperature must be"),
        (["ask", "q", "--docs", ".", "--seed", "x"], "must be a whole number"),
    ],
)
def test_wrong_usage(argv: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        cli.main(argv, load=loading())
    assert ending.value.code == 2
    out, err = capsys.readouterr()
    assert part in err
    assert out == ""


def test_errors_are_one_line_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    cases = {
        ("--docs", str(tmp_path / "no\x1b[2Jthing")): "[2Jthing",
        ("--docs", str(tmp_path / "empty")): "nothing to answer from",
        ("--index", str(tmp_path / "empty")): "holds no index",
        ("--docs", ".", "--html", str(tmp_path)): "is a folder",
        ("--docs", ".", "--html", str(tmp_path / "no" / "x.html")): "doesn't exist",
    }
    for options, part in cases.items():
        assert cli.main(["ask", "q", *options], load=loading()) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert part in err
        assert err.startswith("recallm: error: ")
        assert err == visible(err)
        assert err.count("\n") == 1


def test_a_failing_model_is_an_error_and_writes_no_page(
    docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "answer.html"
    argv = ["ask", "q", "--docs", str(docs), "--html", str(page)]
    assert cli.main(argv, load=loading(SCRIPT, fail_after=20)) == 1
    assert "as it was told to" in capsys.readouterr().err
    assert not page.exists()


def test_debug_shows_where(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def load(_: str) -> RecaLLM:
        raise TypeError("surprise")

    argv = ["ask", "q", "--docs", str(docs)]
    assert cli.main(argv, load=load) == 1
    err = capsys.readouterr().err
    assert "TypeError: surprise" in err
    assert "Traceback" not in err
    assert cli.main([*argv, "--debug"], load=load) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_question_that_utf8_cannot_hold_is_an_error(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(docs, question="how \udcff many?") == 1
    assert "surrogate" in capsys.readouterr().err


def test_more_than_the_window_holds_is_an_error(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["ask", "How many?", "--docs", str(docs)]
    assert cli.main(argv, load=loading(SCRIPT, window=200)) == 1
    assert "context length is 200" in capsys.readouterr().err


def test_an_encoding_without_the_characters_is_survived(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (docs / "leave.md").write_text("年假二十七天。", encoding="utf-8")
    script = "<|start_recall|>二十七天<|end_recall|></think>二十七天"
    for options in ([], ["--json"], ["--markdown"]):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
        assert ask(docs, *options, script=script) == 0
        out = raw.getvalue().decode("ascii")
        if options == ["--json"]:
            assert json.loads(out)["citations"][0]["text"] == "二十七天"
        else:
            assert "\\u4e8c" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from recallm_core import __version__

    with pytest.raises(SystemExit) as ending:
        cli.main(["--version"])
    assert ending.value.code == 0
    assert capsys.readouterr().out == f"recallm {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "golden"), [(["--help"], "recallm_help.txt"), (["ask", "--help"], "ask_help.txt")]
)
def test_help_is_as_agreed(
    argv: list[str],
    golden: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RECALLM_UPDATE_GOLDEN=1 writes the files anew; read the difference."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main(argv)
    shown = capsys.readouterr().out
    if os.environ.get("RECALLM_UPDATE_GOLDEN"):
        (GOLDEN / golden).write_text(shown)
    assert shown == (GOLDEN / golden).read_text()


@pytest.mark.parametrize("name", [name for name in cli.MODULES if cli.exists(name)])
def test_every_subcommand_that_is_listed_runs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as ending:
        cli.main([name, "--help"])
    assert ending.value.code == 0
    assert f"recallm {name}" in capsys.readouterr().out


@given(st.binary(max_size=300).map(lambda data: data.decode("utf-8", "replace")))
def test_a_page_is_written_whole_and_with_usual_rights(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("page")
    write_aside(folder / "a.html", text)
    assert (folder / "a.html").read_bytes() == text.encode()
    (folder / "b").touch()
    assert (folder / "a.html").stat().st_mode == (folder / "b").stat().st_mode
    assert sorted(path.name for path in folder.iterdir()) == ["a.html", "b"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_aside(page, "new \ud800")
    assert page.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_link_is_written_through_and_a_device_directly(tmp_path: Path) -> None:
    real, link = tmp_path / "real.html", tmp_path / "link.html"
    link.symlink_to(real)
    write_aside(link, "page")
    assert real.read_text() == "page"
    assert link.is_symlink()
    check_target(Path(os.devnull))
    write_aside(Path(os.devnull), "page")
    assert not Path(os.devnull).is_file()


# In a process of its own

CHILD = """
import atexit, signal, sys, time
from recallm_core import cli, testing

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's child ignores it

if {slow}:
    plain = testing.ScriptedStream.__next__
    def slowly(self):
        time.sleep(0.02)
        return plain(self)
    testing.ScriptedStream.__next__ = slowly
llm = testing.scripted_llm({script!r})
atexit.register(lambda: print("closed", llm.backend.closed_streams, file=sys.stderr))
sys.exit(cli.main(sys.argv[1:], load=lambda _: llm))
"""


def start(
    argv: Sequence[str], *, script: str = SCRIPT, slow: bool = False, **options: object
) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(CHILD.format(slow=slow, script=script))
    env = {**os.environ, "TERM": "xterm", "PYTHONUNBUFFERED": "", "OMP_NUM_THREADS": "1"}
    env.pop("NO_COLOR", None)
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv], env=env, **options  # type: ignore[call-overload]
    )  # fmt: skip


def test_a_closed_pipe_ends_it_quietly(docs: Path) -> None:
    argv = ["ask", "q", "--docs", str(docs)]
    script = "Thinking. " * 2000 + SCRIPT
    child = start(argv, script=script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.read(10) == b"Thinking. "
    child.stdout.close()
    assert child.stderr is not None
    err = child.stderr.read()
    child.stderr.close()
    assert child.wait(60) == 141
    assert err == b"closed 1\n"


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_stops_the_model_and_writes_nothing(docs: Path, tmp_path: Path) -> None:
    page = tmp_path / "answer.html"
    argv = ["ask", "q", "--docs", str(docs), "--html", str(page)]
    script = "Hm. " * 5000
    child = start(
        argv, script=script, slow=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.read(4) == b"Hm. "
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err == b"recallm: interrupted\nclosed 1\n"
    assert not page.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["handbook"]


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("interrupt", [False, True])
def test_on_a_terminal(docs: Path, *, interrupt: bool) -> None:
    ours, theirs = os.openpty()
    script = SCRIPT + (" And so on." * 5000 if interrupt else "")
    child = start(
        ["ask", "q", "--docs", str(docs)],
        script=script,
        slow=interrupt,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen, stopped = b"", False
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
        if interrupt and not stopped and b"You have" in seen:
            child.send_signal(signal.SIGINT)
            stopped = True
    os.close(ours)
    assert stopped == interrupt
    assert child.wait(60) == (130 if stopped else 0)
    shown = seen.decode()
    assert "\x1b[2mWhere " in shown
    assert "\x1b[1;33m27 " in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")
    if stopped:
        assert "interrupted" in shown
        assert "closed 1" in shown
    else:
        assert "You have 27 days of paid leave\x1b[1;36m[1]\x1b[0m." in shown


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom recallm_core import cli\n"
        "try: cli.main(['ask', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'faiss', 'numpy', 'rich', 'tokenizers'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_base_of_an_adapter_goes_to_loading(docs: Path) -> None:
    calls: list[tuple[str, dict[str, str]]] = []

    def load(name: str, **options: str) -> RecaLLM:
        calls.append((name, options))
        return scripted_llm(SCRIPT)

    argv = ["ask", "How many days?", "--docs", str(docs), "--model", "adapter"]
    assert cli.main([*argv, "--base", "some/base"], load=load) == 0
    assert cli.main(argv, load=load) == 0
    assert calls == [("adapter", {"base": "some/base"}), ("adapter", {})]
