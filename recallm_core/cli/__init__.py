"""The command ``recallm``: its parser, and what every subcommand's ending becomes."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

from recallm_core.cli import ask as ask_cli
from recallm_core.errors import RecallmError
from recallm_core.inputs.extras import needs

ERROR, INTERRUPTED, BROKEN_PIPE = 1, 130, 141
_ERRORS = {"check": 2}  # its 1 is a verdict; a pipeline must tell a quote from a mistyped path

_EXAMPLES = """\
examples:
  recallm ask "How many days of leave do I have?" --docs handbook/
  recallm ask "When does the contract end?" --docs contract.pdf notes.md --html answer.html
  recallm ask "Who signed it?" --docs contract.pdf --json | jq '.citations[].lines'

exit codes:
  0 answered, 1 error, 2 wrong usage, 3 the documents hold no answer, 130 interrupted
  recallm check: 0 all quotes sound, 1 one is not, 2 wrong usage or an error
"""


# A part that isn't there has no subcommand.
MODULES = {
    "check": "recallm_core.cli.check",  # add_parser(subparsers); sets args.run
    "index": "recallm_core.cli.index",
    "mcp": "recallm_core.cli.mcp",
    "model": "recallm_core.cli.model",
    "ui": "recallm_core.cli.ui",
    "serve": "recallm_core.cli.serve",  # main(argv), with a parser of its own
    "train": "recallm_core.cli.train",
    "eval": "recallm_core.cli.eval",
}
DELEGATES = {
    "serve": "serve a model to many with vLLM",
    "train": "train a model to recall",
    "eval": "measure a model's answers and quotes",
}
_EXTRAS = {"serve": "vllm", "train": "train", "eval": "eval"}


def exists(name: str) -> bool:
    """Whether the part that a subcommand needs is there; imports nothing of it."""
    try:
        spec = find_spec(MODULES[name])
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None


def main(argv: Sequence[str] | None = None, *, load: ask_cli.Load | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        argv: Arguments; None takes those of the process.
        load: Loads a model by name; tests give their own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _tolerate_any_character()
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    failure = _ERRORS.get("".join(arguments[:1]), ERROR)
    try:
        code = _dispatch(arguments, load)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, debug=debug)
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except (RecallmError, OSError) as error:
        return _fail(f"error: {error}", failure, debug=debug)
    except Exception as error:
        message = f"error: {type(error).__name__}: {error}"
        return _fail(f"{message} (--debug shows where)", failure, debug=debug)
    return code


def _dispatch(arguments: list[str], load: ask_cli.Load | None) -> int:
    name = arguments[0] if arguments else ""
    if name in DELEGATES and exists(name):
        with needs(_EXTRAS[name], f"recallm {name}"):
            delegate: Callable[[list[str]], int | None] = import_module(MODULES[name]).main
            return delegate(arguments[1:]) or 0
    args = parser().parse_args(arguments)
    if args.command == "ask":
        return ask_cli.run(args, load=load)
    run: Callable[[argparse.Namespace], int | None] = args.run
    return run(args) or 0


def parser() -> argparse.ArgumentParser:
    """Returns the parser; delegated subcommands are named in it and parse their own arguments."""
    top = argparse.ArgumentParser(
        prog="recallm",
        description="Answers a question over your documents; every quote is verbatim and located.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version)
    top.add_argument("--debug", action="store_true", help="show where an error comes from")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    ask_cli.add_parser(commands)
    for name, module in MODULES.items():
        if not exists(name):
            continue
        if name in DELEGATES:
            commands.add_parser(name, help=DELEGATES[name], add_help=False)
        else:
            import_module(module).add_parser(commands)
    return top


class _Version(argparse.Action):
    """Prints the version; reading it costs a file, so only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from recallm_core._version import __version__

        print(f"recallm {__version__}")
        parser.exit()


def _fail(message: str, code: int, *, debug: bool) -> int:
    from recallm_core.rendering.visible import visible

    if debug:
        traceback.print_exc()
    print(f"recallm: {visible(message)}", file=sys.stderr)
    return code


def _tolerate_any_character() -> None:
    """Shows a character that the terminal's encoding lacks as an escape instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Keeps the interpreter from failing again when it flushes what nobody reads."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError):  # not a file, as in tests
        pass
    finally:
        os.close(null)
