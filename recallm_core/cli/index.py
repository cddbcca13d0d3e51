"""``recallm index``: builds, changes and searches an index of documents in a folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from recallm_core.inputs.arguments import MOST_COUNTED, whole_option

if TYPE_CHECKING:
    from recallm_core.documents.document import Document, ScoredChunk
    from recallm_core.retrieval import CorpusIndex

    Progress = Callable[[int, int], None]

_SHOWN_CHARACTERS = 300  # of a chunk, where a person reads


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``index`` and its own subcommands to the command's parser."""
    index = commands.add_parser(
        "index",
        help="build, change and search an index of documents",
        description="Keeps documents in a folder so that a question finds them at once.",
    )
    actions = index.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = _action(
        actions, "build", _build, "make an index of these documents, or bring one up to date"
    )
    add = _action(actions, "add", _add, "add documents, replacing those with the same id")
    for action in (build, add):
        action.add_argument(
            "docs",
            nargs="+",
            metavar="DOCS",
            help="files and folders (.txt .md .html .pdf .docx .xlsx .eml ...)",
        )
    delete = _action(actions, "delete", _delete, "remove documents")
    delete.add_argument("ids", nargs="+", metavar="ID", help="as shown by search")
    stats = _action(actions, "stats", _stats, "show what the index holds")
    search = _action(actions, "search", _search, "show the passages that match a question")
    search.add_argument("question")
    search.add_argument(
        "-k", type=whole_option(1, MOST_COUNTED), default=5, help="how many (default: 5)"
    )
    search.add_argument(
        "--mode", choices=("hybrid", "dense", "lexical"), default="hybrid", help="default: hybrid"
    )
    for action in (stats, search):
        action.add_argument("--json", action="store_true", help="print JSON")


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=text.capitalize() + ".")
    action.add_argument("path", metavar="PATH", help="folder of the index")
    action.add_argument(
        "--embedder",
        metavar="NAME",
        help="a sentence-transformers model; the one that the index was built with",
    )
    action.add_argument("--quiet", action="store_true", help="no progress")
    action.set_defaults(run=run)
    return action


def _build(args: argparse.Namespace) -> int:
    documents = _documents(args)
    index, exists = _there(args)
    with _progress(args, "Indexing") as progress:
        changed = index.sync(documents, progress=progress)
    if changed or not exists:
        index.save(args.path)
    _report(args, f"{len(index.documents):,} documents")
    return 0


def _there(args: argparse.Namespace) -> tuple[CorpusIndex, bool]:
    """The index that is there, so that only what changed is embedded; else an empty one."""
    from recallm_core.errors import CorpusIndexError
    from recallm_core.retrieval import CorpusIndex
    from recallm_core.retrieval.embedding import as_embedder

    embedder = as_embedder(args.embedder)
    try:
        return CorpusIndex.open(args.path, embedder), True
    except CorpusIndexError:  # none, or one that is damaged or another embedder's: made anew
        return CorpusIndex(embedder), False


def _add(args: argparse.Namespace) -> int:
    index = _open(args)
    documents = _documents(args)
    with _progress(args, "Indexing") as progress:
        changed = index.add(documents, progress=progress)
    if changed:
        index.save()
    same = len(documents) - changed
    _report(args, f"{changed:,} documents added or replaced, {same:,} were there already")
    return 0


def _delete(args: argparse.Namespace) -> int:
    from recallm_core.errors import CorpusIndexError

    index = _open(args)
    try:
        gone = index.delete(args.ids)
    except KeyError as error:
        raise CorpusIndexError(f"{error.args[0]}; nothing was deleted") from None
    index.save()
    _report(args, f"{gone:,} documents deleted, {len(index.documents):,} left")
    return 0


def _stats(args: argparse.Namespace) -> int:
    stats = asdict(_open(args).stats())
    if args.json:
        print(json.dumps(stats))
        return 0
    for name, value in stats.items():
        shown = f"{value:,}" if isinstance(value, int) and name != "generation" else value
        print(f"{name:11} {shown}")
    return 0


def _search(args: argparse.Namespace) -> int:
    index = _open(args)
    hits = index.search(args.question, args.k, mode=args.mode)
    for hit in hits:
        if args.json:
            print(json.dumps(asdict(hit)))
        else:
            _show(hit, index.documents[hit.document_id])
    if not hits:
        _report(args, "nothing matches")
    return 0


def _show(hit: ScoredChunk, document: Document) -> None:
    from recallm_core.rendering.visible import one_line

    first, last = document.lines(hit.start, hit.end)
    page = document.page_at(hit.start)
    where = f"lines {first}-{last}" if page is None else f"page {page}"
    text = one_line(hit.text)
    dots = " …" if len(text) > _SHOWN_CHARACTERS else ""
    print(f"{one_line(hit.document_id)}, {where}, characters {hit.start:,}-{hit.end:,}")
    print(f"    {text[:_SHOWN_CHARACTERS]}{dots}")


def _open(args: argparse.Namespace) -> CorpusIndex:
    from recallm_core.retrieval import CorpusIndex

    return CorpusIndex.open(args.path, args.embedder)


def _documents(args: argparse.Namespace) -> tuple[Document, ...]:
    from recallm_core.cli.left_out import tell_left_out, to_stderr
    from recallm_core.documents.loading import load_documents
    from recallm_core.errors import DocumentError

    with _progress(args, "Reading") as progress:
        loaded = load_documents(args.docs, on_progress=progress)
    tell_left_out(loaded, to_stderr)
    if not loaded.documents:
        raise DocumentError("nothing to index: none of the files gave a document")
    return loaded.documents


def _report(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, file=sys.stderr)


@contextmanager
def _progress(args: argparse.Namespace, what: str) -> Iterator[Progress | None]:
    """Shows a bar on stderr, if a person is looking there."""
    if args.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)

        def update(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield update
