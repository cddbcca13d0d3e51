"""Each reason is said once, however many files it holds for."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.cli import main
from recallm_core.cli.left_out import left_out, tell_left_out
from recallm_core.documents.loading import Loaded, Note, Skipped

SKIPS = st.lists(
    st.builds(Skipped, st.sampled_from("abcdefgh"), st.sampled_from(["empty", "binary"]))
)


@given(SKIPS)
def test_every_file_is_named_or_counted(skips: list[Skipped]) -> None:
    lines = left_out(skips)
    reasons = list(dict.fromkeys(skip.reason for skip in skips))
    assert [line.rpartition(": ")[2] for line in lines] == reasons
    for reason, line in zip(reasons, lines, strict=True):
        paths = [skip.path for skip in skips if skip.reason == reason]
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        assert line == f"{', '.join(paths[:3])}{more}: {reason}"


def test_many_reasons_are_counted_in_the_end() -> None:
    lines: list[str] = []
    skips = tuple(Skipped(f"{n}.txt", f"line {n} is odd") for n in range(25))
    tell_left_out(Loaded((), skips, (Note("a.pdf", "doubtful order"),)), lines.append)
    assert len(lines) == 22
    assert lines[0] == "skipped 0.txt: line 0 is odd"
    assert lines[20:] == ["skipped more, for 5 other reasons", "a.pdf: doubtful order"]


@pytest.mark.parametrize("command", [["ask", "Who?"], ["index", "build"], ["check"]])
def test_the_kinds_that_are_read_are_listed_once(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs, text = tmp_path / "docs", tmp_path / "text.md"
    docs.mkdir()
    text.write_text("words")
    for n in range(9):
        (docs / f"{n}.png").write_bytes(b"\x89PNG")
    (docs / "bad\x1b[2J.png").write_bytes(b"\x89PNG")
    if command[0] == "index":
        arguments = [*command, str(tmp_path / "index"), str(docs)]
    else:
        arguments = [*command, *([str(text)] if command[0] == "check" else []), "--docs", str(docs)]
    assert main(arguments) != 0
    err = capsys.readouterr().err
    assert err.count(".docx") == 1
    assert "and 7 more: not one of" in err
    assert "\x1b" not in err
