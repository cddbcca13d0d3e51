"""``recallm check``: the quotes of a text, of whatever model, against documents."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallm_core.inputs.arguments import MOST_COUNTED, whole_option

if TYPE_CHECKING:
    from recallm_core.checking.report import QuoteReport
    from recallm_core.documents.document import Document

SOUND, PROBLEMS = 0, 1


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``check`` to the command's parser."""
    check = commands.add_parser(
        "check",
        help="check a text's quotes against documents",
        description="Finds every quote of a text, of whatever model, in the documents, and says "
        "which are verbatim, which aren't, and what the documents say instead.",
        epilog="The exit code is 0 when every quote is verbatim or the same words in other "
        "writing, 1 when one is not, 2 for wrong usage or what can't be read.",
    )
    check.set_defaults(run=run, parser=check)
    check.add_argument("text", metavar="TEXT", help="a file with the text; - reads standard input")
    check.add_argument(
        "--docs",
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help="files and folders that are quoted; [1] in the text is the first, and so on",
    )
    shown = check.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print one JSON object")
    shown.add_argument("--markdown", action="store_true", help="print Markdown")
    check.add_argument("--html", metavar="FILE", type=Path, help="also write a page")
    check.add_argument(
        "--repair",
        metavar="FILE",
        type=Path,
        help="also write the text with the documents' own words for quotes that only drifted",
    )
    check.add_argument(
        "--message",
        action="store_true",
        help="TEXT is the JSON of a message, as a provider's API returned it",
    )
    check.add_argument(
        "--claims",
        action="store_true",
        help="also list sentences without a quote whose words no document holds",
    )
    check.add_argument(
        "--min-words",
        type=whole_option(1, MOST_COUNTED),
        default=3,
        metavar="N",
        help="fewer words in quotation marks needn't be a quote (default: 3)",
    )


def run(args: argparse.Namespace) -> int:
    """Checks the text and returns the exit code."""
    from recallm_core.checking import check_quotes
    from recallm_core.cli.ask import check_target, write_aside

    targets = [path for path in (args.html, args.repair) if path is not None]
    for path in targets:
        check_target(path)
    content = _read_input(args)
    report = check_quotes(
        content,
        _documents(args),
        repair=args.repair is not None,
        claims=args.claims,
        min_words=args.min_words,
    )
    print(_show(args, report), end="")
    if args.html is not None:
        write_aside(args.html, report.to_html())
    if args.repair is not None:
        write_aside(args.repair, report.text)
    return SOUND if report.ok else PROBLEMS


def _show(args: argparse.Namespace, report: QuoteReport) -> str:
    from recallm_core.rendering.visible import visible

    if args.json:
        return report.to_json() + "\n"
    return report.to_markdown() if args.markdown else visible(report.to_text())


def _read_input(args: argparse.Namespace) -> Any:
    from recallm_core.errors import DocumentError

    data = _read(args.text)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"{args.text} isn't UTF-8 (byte {error.start:,}); convert it: iconv -t UTF-8"
        ) from None
    if not args.message:
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise DocumentError(f"{args.text} isn't JSON, which --message expects: {error}") from None


def _read(name: str) -> bytes:
    from recallm_core.errors import DocumentError

    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise DocumentError(
            f"expected a file with the text to check, got {name!r} ({error.strerror}); "
            "- reads standard input"
        ) from None


def _documents(args: argparse.Namespace) -> tuple[Document, ...]:
    from recallm_core.cli.left_out import tell_left_out, to_stderr
    from recallm_core.documents.loading import load_documents
    from recallm_core.errors import DocumentError

    loaded = load_documents(args.docs)
    tell_left_out(loaded, to_stderr)
    if not loaded.documents:
        raise DocumentError("nothing to check against: no file in --docs gave a document")
    return loaded.documents
