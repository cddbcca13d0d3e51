"""PDF files: pages found again, and files that take too much given up."""

import random
import resource
import subprocess
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from recallm_core.documents.document import Document
from recallm_core.documents.limited_process import LimitedProcess, pdf_process
from recallm_core.documents.pdf import extract_pdf
from recallm_core.errors import DocumentError


def test_pages_are_joined_and_found_again(pdf: Callable[..., bytes]) -> None:
    found = extract_pdf(pdf(["First page.\nSecond line", "", "Third page"]), "f.pdf")
    document = Document(found.text, source_map=found.source_map)
    assert found.text == "First page.\nSecond line\f\fThird page"
    assert [document.page_at(found.text.index(w)) for w in ("First", "line", "Third")] == [1, 1, 3]
    assert document.page_at(len(found.text)) == 3


def test_a_pdf_with_too_much_text_is_refused(pdf: Callable[..., bytes]) -> None:
    with pytest.raises(DocumentError, match="more than 10 characters"):
        extract_pdf(pdf(["a line", "another line"]), "f.pdf", max_chars=10)


def test_broken_pdfs_are_refused_or_read_but_never_crash(pdf: Callable[..., bytes]) -> None:
    whole, dice = bytearray(pdf(["Some text here", "and more"])), random.Random(0)
    for _ in range(150):
        broken = whole.copy()
        for _ in range(dice.randint(1, 20)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        try:
            found = extract_pdf(bytes(broken[: dice.randint(0, len(broken))]), "f.pdf")
        except DocumentError:
            continue
        Document(found.text, source_map=found.source_map)


# ---------------------------------------------------------------- files that take too much


def bomb(stream: bytes, filters: bytes) -> bytes:
    """A PDF file with one page, whose content is given as it is stored."""
    contents = b"<</Length %d/Filter[%s]>>stream\n%s\nendstream" % (len(stream), filters, stream)
    resources = b"<</Font<</F1 5 0 R>>>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources%s>>" % resources,
        contents,
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = b"%PDF-1.7\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


def deflated(head: bytes, piece: bytes, times: int) -> bytes:
    made = zlib.compressobj(9)
    return b"".join(
        [made.compress(head), *(made.compress(piece) for _ in range(times)), made.flush()]
    )


HELLO = b"BT /F1 12 Tf 10 10 Td (hello) Tj ET\n"


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_a_pdf_that_inflates_without_end_takes_no_memory_here() -> None:
    twice = zlib.compress(deflated(HELLO, b" " * 1_000_000, 500), 9)
    before = peak()
    with pytest.raises(DocumentError, match="more than 384 MB of memory"):
        extract_pdf(bomb(twice, b"/FlateDecode/FlateDecode"), "o")
    assert peak() - before < 100_000_000
    assert extract_pdf(bomb(zlib.compress(HELLO), b"/FlateDecode"), "o").text == "hello"


def test_a_pdf_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recallm_core.documents.limited_process._SECONDS", 0.3)
    monkeypatch.setattr("recallm_core.documents.limited_process._SECONDS_A_MEGABYTE", 0.0)
    paths = deflated(HELLO, b"0 0 m 9 9 l S\n" * 70_000, 20)
    pdf_process.close()
    with pytest.raises(DocumentError, match="memory or 0 s"):
        extract_pdf(bomb(paths, b"/FlateDecode"), "o")


def test_a_pdf_is_read_alike_in_a_child_and_here(
    pdf: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pdf(["First page.\nSecond line é", "", "Third page"])
    inside = extract_pdf(data, "f.pdf")
    monkeypatch.setattr(pdf_process, "_usable", False)
    monkeypatch.setattr(pdf_process, "_child", None)
    assert extract_pdf(data, "f.pdf") == inside
    assert inside.source_map.pages == (1, 2, 3)


@pytest.mark.parametrize("failure", [OSError("no processes here"), ValueError("embedded")])
def test_pdfs_are_read_here_where_no_process_can_be_started(
    pdf: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("recallm_core.documents.limited_process.subprocess.Popen", refuse)
    process = LimitedProcess()
    assert process.read(b"%PDF", 10) is None
    monkeypatch.setattr("recallm_core.documents.pdf.pdf_process", process)
    assert extract_pdf(pdf(["text"]), "f.pdf").text == "text"


def test_what_was_interrupted_is_never_taken_for_the_next_answer(
    pdf: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = LimitedProcess()

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recallm_core.documents.limited_process._read_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            process.read(pdf(["first"]), 1000)
    found = process.read(pdf(["second"]), 1000)
    process.close()
    assert found is not None
    assert found["text"] == "second"


def test_the_child_has_no_keys(pdf: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALLM_API_KEY", "swordfish")
    told: list[dict[str, str]] = []
    start = subprocess.Popen

    def started(*arguments: Any, **options: Any) -> Any:
        told.append(options["env"])
        return start(*arguments, **options)

    monkeypatch.setattr("recallm_core.documents.limited_process.subprocess.Popen", started)
    process = LimitedProcess()
    assert process.read(pdf(["text"]), 1000) is not None
    process.close()
    assert "swordfish" not in "".join(told[0].values())
