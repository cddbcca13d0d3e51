"""``recallm ui``: a page on this machine to ask one's own files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from recallm_core.cli.ask import add_base, base_of, load_model
from recallm_core.errors import MissingExtraError
from recallm_core.inputs.arguments import whole_option
from recallm_core.inputs.extras import install

if TYPE_CHECKING:
    from recallm_core.generator import RecaLLM
    from recallm_core.ui.session import OpenedSources

_HOST = "127.0.0.1"
_READ_AT_ONCE = 400_000  # characters that are read whole; more is searched by an index


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``ui`` to the command's parser."""
    ui = commands.add_parser(
        "ui",
        help="ask your own files in the browser",
        description="Serves one page on this machine: choose documents and a model, ask, watch the "
        "quotes appear and click one to see it in its source. Nothing leaves the machine.",
    )
    ui.set_defaults(run=run, parser=ui)
    ui.add_argument("paths", nargs="*", metavar="PATH", help="files, folders or an index to open")
    ui.add_argument("--model", default="recallm-mini", help="a name, a folder or an address")
    add_base(ui)
    ui.add_argument(
        "--port", type=whole_option(0, 65_535), default=0, help="on 127.0.0.1 (any free one)"
    )
    ui.add_argument("--no-browser", action="store_true", help="only print the address")
    ui.add_argument("--debug", action="store_true", help="show where an error comes from")


def run(args: argparse.Namespace) -> int:
    """Serves the page until it is interrupted.

    Raises:
        MissingExtraError: What serves it isn't installed.
        RecallmError: A path can't be opened.
        OSError: The port is taken.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise MissingExtraError(f"recallm ui needs starlette and uvicorn: {install('ui')}")
    import secrets
    import socket

    import uvicorn

    from recallm_core.ui.app import make_app
    from recallm_core.ui.session import Session

    session = Session(loading(args), open_paths, model=args.model)
    try:
        if args.paths:
            session.open(args.paths)
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((_HOST, args.port))
            port = listening.getsockname()[1]
            key = secrets.token_urlsafe(32)
            app = make_app(session, key=key, port=port)
            _announce(f"http://{_HOST}:{port}/#key={key}", open_it=not args.no_browser)
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        session.close()
    return 0


def _announce(address: str, *, open_it: bool) -> None:
    print(f"RecaLLM: {address}\nThe address holds a key; Ctrl-C ends the server.", flush=True)
    if open_it:
        import webbrowser

        webbrowser.open(address)


def loading(args: argparse.Namespace) -> Callable[[str], RecaLLM]:
    """Returns what loads a model by name; the base that was given is that of the first one."""
    return lambda name: load_model(name, **(base_of(args) if name == args.model else {}))


def open_paths(paths: Sequence[str]) -> OpenedSources:
    """Reads files and folders, or opens an index; what is large gets an index, kept between runs.

    Raises:
        DocumentError: A path doesn't exist, or nothing in it can be read.
    """
    from recallm_core.cli import index_cache
    from recallm_core.cli.left_out import left_out
    from recallm_core.documents.loading import load_documents
    from recallm_core.errors import DocumentError
    from recallm_core.rendering.visible import one_line
    from recallm_core.retrieval import CorpusIndex
    from recallm_core.ui.session import OpenedSources

    if len(paths) == 1 and Path(paths[0], "CURRENT").is_file():
        index = CorpusIndex.open(paths[0])
        return OpenedSources(index, tuple(map(one_line, index.documents)))
    loaded = load_documents(paths)
    skipped = tuple(left_out(loaded.skipped))
    if not loaded.documents:
        reasons = "; ".join(skipped[:3])
        raise DocumentError(f"no file there gave a document{': ' + reasons if reasons else ''}")
    names = tuple(one_line(document.title or document.id) for document in loaded.documents)
    if sum(len(document.text) for document in loaded.documents) <= _READ_AT_ONCE:
        return OpenedSources(loaded.documents, names, skipped)
    index = index_cache.cached_index(
        paths, loaded.documents, root=index_cache.folder(), progress=None
    )
    return OpenedSources(index, names, skipped)
