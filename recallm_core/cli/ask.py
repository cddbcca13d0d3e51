"""``recallm ask``: one question over files or an index, shown in the form that was asked for."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallm_core.cli.garbage import long_lived
from recallm_core.cli.interactive import converse, question
from recallm_core.inputs.arguments import MOST, MOST_TOKENS, whole_option

if TYPE_CHECKING:
    from rich.console import Console

    from recallm_core.answering.context import Documents, Message
    from recallm_core.answers.answer import Answer
    from recallm_core.generator import RecaLLM
    from recallm_core.prompting.params import GenerationParams

    Load = Callable[..., RecaLLM]

ANSWERED, ABSTAINED = 0, 3

_SETTINGS: dict[str, tuple[Callable[[str], Any], str]] = {
    "max_new_tokens": (whole_option(1, MOST_TOKENS), "tokens to write at most, reasoning included"),
    "max_thinking_tokens": (whole_option(0, MOST_TOKENS), "tokens of reasoning at most"),
    "temperature": (float, "0 always takes the likeliest word"),
    "top_p": (float, "the part of the likelihood to choose from"),
    "seed": (whole_option(-MOST, MOST), "makes a sampled answer reproducible"),
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``ask`` to the command's parser."""
    ask = commands.add_parser(
        "ask",
        help="answer a question from documents",
        description="Answers a question from documents, with verbatim quotes and their places.",
        epilog="The exit code is 3 when the documents hold no answer.",
    )
    ask.set_defaults(parser=ask)
    ask.add_argument("question", nargs="?", help="what to find out; with --interactive, the first")
    sources = ask.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--docs",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="files and folders to answer from (.txt .md .html .pdf .docx .xlsx .eml ...)",
    )
    sources.add_argument("--index", metavar="PATH", help="an index that recallm index has built")
    ask.add_argument(
        "--model",
        default="recallm-mini",
        help="a hub id (Qwen/Qwen3-1.7B), a folder, a GGUF file, ollama:NAME or a server's "
        "address; the default, "
        "recallm-mini, ships with the package and is good for short facts over a few pages",
    )
    add_base(ask)
    _add_forms(ask)
    ask.add_argument("--html", metavar="FILE", type=Path, help="also write a page with the sources")
    for name, (kind, text) in _SETTINGS.items():
        ask.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)
    ask.add_argument(
        "--no-cache",
        action="store_true",
        help="index large --docs anew instead of keeping the index for the next question",
    )
    ask.add_argument("--no-color", action="store_true", help="as if NO_COLOR were set")
    ask.add_argument("--debug", action="store_true", help="show where an error comes from")


def _add_forms(ask: argparse.ArgumentParser) -> None:
    """Adds in which form an answer is shown."""
    shown = ask.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print one JSON object")
    shown.add_argument("--markdown", action="store_true", help="print Markdown")
    shown.add_argument(
        "--annotations", action="store_true", help="print the quotes as W3C Web Annotations"
    )
    shown.add_argument(
        "--csl", action="store_true", help="print the sources as CSL-JSON, for Zotero or pandoc"
    )
    shown.add_argument("--quiet", action="store_true", help="no reasoning, no progress")
    shown.add_argument(
        "--interactive",
        action="store_true",
        help="ask one question after the other; model, index and what was read stay at hand",
    )


def run(args: argparse.Namespace, *, load: Load | None = None) -> int:
    """Answers the question and returns the exit code."""
    params = _params(args)
    if args.html is not None:
        check_target(args.html)
    with ExitStack() as stack:
        steps = _Steps(args)
        documents = _documents(args, steps)
        with long_lived(stack):
            with steps.loading(args.model):
                llm = stack.enter_context((load or load_model)(args.model, **base_of(args)))
            documents = _findable(args, llm, documents, steps)
        if args.interactive:
            return converse(
                args.question, lambda m: _answer(args, llm, m, documents, params, steps)
            )
        answer = _answer(args, llm, [question(args.question)], documents, params, steps)
        if args.html is not None:
            write_aside(args.html, answer.to_html())
            _note(f"wrote {args.html}", quiet=args.quiet)
    if answer.finish_reason == "length":
        _note("the answer was cut off; a higher --max-new-tokens lets it end", quiet=False)
    return ABSTAINED if answer.abstained else ANSWERED


def _params(args: argparse.Namespace) -> GenerationParams:
    from recallm_core.prompting.params import GenerationParams

    parser: argparse.ArgumentParser = args.parser
    if not args.interactive and not (args.question or "").strip():
        parser.error("the question is empty; give one, or --interactive")
    if args.interactive and args.html is not None:
        parser.error("--html writes one answer; it doesn't go with --interactive")
    settings = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    try:
        return GenerationParams(**settings)
    except ValueError as error:
        parser.error(str(error))


def add_base(parser: argparse.ArgumentParser) -> None:
    """Adds what an adapter goes on."""
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="where --model is an adapter: the folder or hub id of the model that it goes on "
        "(default: the one that it names)",
    )


def base_of(args: argparse.Namespace) -> dict[str, str]:
    """Returns it as an option of ``RecaLLM.load``; empty where none is given."""
    return {} if args.base is None else {"base": args.base}


def load_model(name: str, **options: str) -> RecaLLM:
    """Loads a model; nothing heavy is imported before."""
    from recallm_core.generator import RecaLLM

    return RecaLLM.load(name, **options)


def _documents(args: argparse.Namespace, steps: _Steps) -> Documents:
    if args.index is not None:
        from recallm_core.retrieval import CorpusIndex

        with steps.show("Opening the index"):
            return CorpusIndex.open(args.index)
    from recallm_core.cli.left_out import tell_left_out
    from recallm_core.documents.loading import load_documents
    from recallm_core.errors import DocumentError

    with steps.count("Reading documents") as progress:
        loaded = load_documents(args.docs, on_progress=progress)
    tell_left_out(loaded, lambda line: _note(line, quiet=False))
    if not loaded.documents:
        raise DocumentError("nothing to answer from: no file in --docs gave a document")
    return loaded.documents


def _findable(
    args: argparse.Namespace, llm: RecaLLM, documents: Documents, steps: _Steps
) -> Documents:
    """The documents, or where the model is given only parts of them an index, kept between runs."""
    from recallm_core.answering.context import wants_index
    from recallm_core.cli import index_cache as ask_cache

    if not isinstance(documents, tuple) or not wants_index(
        documents, llm.recipe, llm.backend.window
    ):
        return documents

    root = None if args.no_cache else ask_cache.folder()
    with steps.count("Indexing") as progress:
        return ask_cache.cached_index(args.docs, documents, root=root, progress=progress)


def _answer(
    args: argparse.Namespace,
    llm: RecaLLM,
    messages: Sequence[Message],
    documents: Documents,
    params: GenerationParams,
    steps: _Steps,
) -> Answer:
    """Streams the answer to where it was asked for."""
    from recallm_core.answering.stream import Finished
    from recallm_core.rendering import terminal

    console = terminal.AnswerConsole(
        no_color=True if args.no_color else None, highlight=False, markup=False, emoji=False
    )
    view = terminal.AnswerView(console, reasoning=not args.quiet)
    streams = not (args.json or args.markdown or args.annotations or args.csl)
    answer: Answer | None = None
    with ExitStack() as stack:
        stack.callback(view.close)
        waiting = stack.enter_context(ExitStack())
        waiting.enter_context(steps.reading(llm))
        events = stack.enter_context(llm.stream_chat(messages, documents, params=params))
        for event in events:
            if isinstance(event, Finished):
                answer = event.answer
            elif streams:
                waiting.close()
                view.feed(event)
        waiting.close()
        assert answer is not None, "a stream ends with Finished"
        if streams:
            view.finish(answer)
    _print_whole(args, answer)
    return answer


def _print_whole(args: argparse.Namespace, answer: Answer) -> None:
    """Prints what isn't streamed, in the form that was asked for."""
    from recallm_core.rendering import to_json

    if args.markdown:
        print(answer.to_markdown(), end="")
        return
    data: Any = None
    if args.json:
        data = answer.to_dict()
    elif args.annotations:
        data = answer.to_web_annotations()
    elif args.csl:
        data = answer.to_csl_json()
    if data is not None:
        text = to_json(data)
        print(text if _can_show(text) else to_json(data, ascii_only=True))


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class _Steps:
    """Shows on stderr what takes a while, if a person is looking there."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._quiet = args.quiet or not sys.stderr.isatty()
        self._no_color = True if args.no_color else None

    @contextmanager
    def show(self, what: str) -> Iterator[None]:
        if self._quiet:
            yield
            return
        from rich.text import Text

        from recallm_core.rendering.visible import one_line

        with self._console().status(Text(one_line(what), style="dim")):
            yield

    @contextmanager
    def loading(self, model: str) -> Iterator[None]:
        """Like ``show``; a model that may have to be fetched shows its own progress instead."""
        from recallm_core.models import shipped

        local = shipped(model) is not None or Path(model).exists()
        if local or self._quiet:
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of transformers as well
            with self.show(f"Loading {model}"):
                yield
        else:
            yield

    @contextmanager
    def count(self, what: str) -> Iterator[Callable[[int, int], None] | None]:
        """Like ``show``, but yields a function that is to be told how much is done."""
        if self._quiet:
            yield None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("[dim]{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console(), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextmanager
    def reading(self, llm: RecaLLM) -> Iterator[None]:
        """Shows how many tokens of the prompt the model has read, where its backend tells."""
        backend: Any = llm.backend
        if self._quiet or not hasattr(backend, "on_prefill"):
            with self.show("The model is reading"):
                yield
            return
        with self.count("The model is reading (tokens)") as progress:
            backend.on_prefill = progress
            try:
                yield
            finally:
                backend.on_prefill = None

    def _console(self) -> Console:
        from rich.console import Console

        return Console(stderr=True, no_color=self._no_color)


def _note(text: str, *, quiet: bool) -> None:
    from recallm_core.rendering.visible import one_line

    if not quiet:
        print(f"recallm: {one_line(text)}", file=sys.stderr)


def check_target(path: Path) -> None:
    """Raises unless a file can be written to ``path``, before anything slow is done.

    Raises:
        OSError: It is a folder, or its folder is missing or read-only.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file, for instance {path}/answer.html")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} doesn't exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"the folder {path.parent} can't be written to")


def write_aside(path: Path, text: str) -> None:
    """Writes a whole file or none: beside the target first, then renamed onto it."""
    target = path.resolve()
    if target.exists() and not target.is_file():  # a pipe or a device can't be replaced
        target.write_text(text, encoding="utf-8")
        return
    mask = os.umask(0)
    os.umask(mask)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
