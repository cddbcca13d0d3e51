"""Whether an untrusted grammar can be compiled: tried in a process of its own, within limits.

A grammar of a hundred characters can take minutes and gigabytes to compile, and one of some
thousand rules overflows the stack: neither may happen to a server. The process knows no model's
vocabulary; a grammar is checked over bytes, which every vocabulary is made of. As a file it is that
process: it imports nothing of this library.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

MAX_GRAMMAR = 262_144  # characters
_CPU_SECONDS = 1
_WALL_SECONDS = 10.0  # a busy machine gives the second of CPU time slowly
_MEMORY = 1 << 30  # bytes of address space, of which the interpreter takes a tenth
_STACK = 2 << 20  # bytes, a quarter of what the server's own threads have
_REFUSED = 3


def grammar_problem(grammar: str) -> str | None:
    """Returns why a grammar can't be used; None where it can.

    Waits for a tenth of a second, or at most for one of CPU time; once for each grammar.

    Raises:
        RuntimeError: No grammar can be checked here, such as where llguidance is missing.
    """
    if len(grammar) > MAX_GRAMMAR:
        return f"it has {len(grammar):,} characters, the limit is {MAX_GRAMMAR:,}"
    return _compile_apart(grammar)


@lru_cache(maxsize=64)  # of bounded length each
def _compile_apart(grammar: str) -> str | None:
    """What a process of its own says that compiles it."""
    try:
        data = grammar.encode()
    except UnicodeEncodeError:
        return "it is no text: it holds half a character"
    command = [sys.executable, "-P", __file__]
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=_WALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it isn't compiled after {_WALL_SECONDS:g} seconds"
    if done.returncode == _REFUSED:
        return done.stdout.decode("utf-8", "replace").strip()[:500]
    if done.returncode < 0:
        return (
            f"compiling it takes more than {_CPU_SECONDS} second, {_MEMORY >> 20} MiB or "
            f"{_STACK >> 20} MiB of stack"
        )
    if done.returncode:
        raise RuntimeError(
            f"grammars can't be checked: {' '.join(command)} ended with {done.returncode}: "
            f"{done.stderr.decode('utf-8', 'replace').strip()[-500:]}"
        )
    return None


def _main() -> int:
    """Compiles the grammar that comes in, and says what is wrong with it."""
    import resource
    import threading

    for limit, value in (
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    grammar = sys.stdin.buffer.read().decode()
    problems: list[str] = []
    threading.stack_size(_STACK)
    thread = threading.Thread(target=_compile, args=(grammar, problems))
    thread.start()
    thread.join()
    sys.stdout.write("".join(problems))
    return _REFUSED if problems else 0


def _compile(grammar: str, problems: list[str]) -> None:
    from llguidance import LLMatcher, LLTokenizer

    matcher = LLMatcher(LLTokenizer("byte", slices=[]), grammar, log_level=0)
    matcher.compute_bitmask()
    if matcher.is_error():
        problems.append(matcher.get_error().partition("\n<state>")[0])


if __name__ == "__main__":
    sys.exit(_main())
