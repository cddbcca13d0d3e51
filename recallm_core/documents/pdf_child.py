"""What the child process does that reads PDF files: one after another, each within limits."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from recallm_core.documents.limited_process import COPIES, HEAD, SPARE_BYTES
from recallm_core.documents.pdf import read_pdf
from recallm_core.errors import DocumentError


def serve() -> None:
    """Answers requests on the standard input until it ends."""
    import pypdfium2

    pypdfium2.PdfDocument.new().close()  # loads the library before its memory is limited
    requests = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what else is printed doesn't go among the answers
        answers.write(b"+")
        answers.flush()
        while len(head := requests.read(HEAD.size)) == HEAD.size:
            _answer(requests, answers, *HEAD.unpack(head))


def _answer(requests: IO[bytes], answers: IO[bytes], size: int, max_chars: int) -> None:
    limit_memory(SPARE_BYTES + COPIES * size)
    answer = json.dumps(_read(requests.read(size), max_chars), ensure_ascii=False).encode()
    answers.write(HEAD.pack(len(answer), 0))
    answers.write(answer)
    answers.flush()


def _read(data: bytes, max_chars: int) -> dict[str, Any]:
    try:
        return asdict(read_pdf(data, "", max_chars=max_chars))
    except DocumentError as error:
        return {"error": str(error)}


def limit_memory(more: int) -> None:
    """Allows so much more memory than there is now; nothing where the system can't."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        total = pages * resource.getpagesize() + more
        soft = total if hard == resource.RLIM_INFINITY else min(total, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass
