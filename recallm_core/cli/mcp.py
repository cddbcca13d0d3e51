"""``recallm mcp``: documents, answers and checks for any agent, by the Model Context Protocol."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from recallm_core.cli.ask import add_base, base_of, load_model
from recallm_core.inputs.arguments import whole_option
from recallm_core.inputs.extras import install

if TYPE_CHECKING:
    from recallm_core.documents.document import Document
    from recallm_core.mcp_server.desk import Desk
    from recallm_core.mcp_server.library import Library
    from recallm_core.retrieval import CorpusIndex

_EPILOG = """\
A client starts the command itself and speaks with it over standard input and output. Only what is
below the folders that are named here can be read.

examples:
  recallm mcp --docs ~/handbook ~/contracts
  recallm mcp --docs ~/handbook --model Qwen/Qwen3-1.7B
  recallm mcp --docs ~/handbook --http            then: http://127.0.0.1:8765/mcp
  RECALLM_API_KEY=... recallm mcp --docs ~/handbook --http --host 0.0.0.0
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``mcp`` to the command's parser."""
    mcp = commands.add_parser(
        "mcp",
        help="serve documents to agents (Model Context Protocol)",
        description="Serves answers, passages, exact quotes and checks of quotes to agents, by "
        "the Model Context Protocol.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mcp.set_defaults(run=run, parser=mcp)
    mcp.add_argument(
        "--docs",
        nargs="+",
        action="extend",
        default=[],
        metavar="FOLDER",
        type=Path,
        help="folders whose files may be read, and nothing else",
    )
    mcp.add_argument(
        "--index",
        action="append",
        default=[],
        metavar="PATH",
        type=Path,
        help="an index that recallm index has built; its name is the last part of its path",
    )
    mcp.add_argument(
        "--model",
        default="recallm-mini",
        help="answers what the tool ask is asked, and is loaded then: a hub id, a folder or a "
        "server's address (default: %(default)s)",
    )
    add_base(mcp)
    mcp.add_argument("--http", action="store_true", help="serve over HTTP instead")
    mcp.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    mcp.add_argument(
        "--port", type=whole_option(1, 65_535), default=8765, help="port to listen on (%(default)s)"
    )
    mcp.add_argument(
        "--api-key-file",
        metavar="FILE",
        type=Path,
        help="keys that clients may use, one a line; or one key in RECALLM_API_KEY",
    )


def run(args: argparse.Namespace) -> int:
    """Serves until the client leaves.

    Raises:
        MissingExtraError: The package of the protocol isn't installed.
        RecallmError: A folder can't be served, or the address wants a key.
    """
    from recallm_core.cli.serve import check_host, keys_of
    from recallm_core.errors import MissingExtraError, RecallmError

    if not args.docs and not args.index:
        parser: argparse.ArgumentParser = args.parser
        parser.error("name what may be read: --docs FOLDER or --index PATH")
    if find_spec("mcp") is None:
        raise MissingExtraError(f"recallm mcp needs mcp, which isn't installed: {install('mcp')}")
    keys = keys_of(args) if args.http else ()
    if args.http:
        check_host(args.host, keys)
    elif args.api_key_file is not None:
        raise RecallmError("--api-key-file is for --http; over standard input no key is needed")
    desk = _desk(args)
    try:
        _serve(args, desk, keys)
    finally:
        desk.close()
    return 0


def _serve(args: argparse.Namespace, desk: Desk, keys: Sequence[str]) -> None:
    from recallm_core.mcp_server.server import RecallServer

    server = RecallServer(desk)
    if not args.http:
        server.run("stdio")
        return
    import uvicorn

    from recallm_core.mcp_server.web import PATH, application

    print(f"serving http://{args.host}:{args.port}{PATH}", flush=True)
    uvicorn.run(application(server, keys), host=args.host, port=args.port, log_level="warning")


def _desk(args: argparse.Namespace) -> Desk:
    from recallm_core.mcp_server.desk import Desk

    return Desk(_library(args), lambda: load_model(args.model, **base_of(args)))


def _library(args: argparse.Namespace) -> Library:
    from recallm_core.cli import index_cache
    from recallm_core.errors import RecallmError
    from recallm_core.mcp_server.library import Library

    names = [path.resolve().name for path in args.index]
    if len(set(names)) < len(names):
        raise RecallmError(f"two indexes have the same name: {', '.join(sorted(names))}")
    paths = [str(path) for path in args.docs]

    def index_documents(
        documents: Sequence[Document], progress: Callable[[int, int], None]
    ) -> CorpusIndex:
        return index_cache.cached_index(
            paths, documents, root=index_cache.folder(), progress=progress
        )

    return Library(
        args.docs, indexes=dict(zip(names, args.index, strict=True)), make_index=index_documents
    )  # fmt: skip
