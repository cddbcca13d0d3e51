"""Numbers and structures that pass comparison: refused at the door of every public function."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core import (
    CorpusIndex,
    Document,
    GenerationParams,
    PointedPrompt,
    RecallIndex,
    RecaLLM,
    SchemaLimits,
    cli,
    load_documents,
)
from recallm_core.backends.local.transformers import TransformersBackend
from recallm_core.backends.vllm.connection import Connection
from recallm_core.cli import eval as cli_eval
from recallm_core.cli import main
from recallm_core.cli import serve as cli_serve
from recallm_core.cli import train as cli_train
from recallm_core.documents.chunking import chunk, split
from recallm_core.documents.document import ScoredChunk
from recallm_core.documents.source_map import SourceMap
from recallm_core.errors import RecallmError
from recallm_core.inputs.arguments import real_number, whole_number, without_password
from recallm_core.mcp_server.places import exact_quote
from recallm_core.packing import pack
from recallm_core.retrieval.embedding import FunctionEmbedder
from recallm_core.testing import scripted_llm

NAN, INF = float("nan"), float("inf")
HUGE = 10**5000
DEEP = json.loads("[" * 500 + "]" * 500)
BARE = re.compile(
    "not supported between|unsupported operand|is not iterable|has no attribute|too large"
    "|sub-exception|not subscriptable|Exceeds the limit|cannot convert|could not convert"
    "|recursion|not callable|surrogates not allowed|unhashable|cannot unpack|must be real number"
    "|inhomogeneous|positional argument|cannot be interpreted|int\\(\\) argument"
)
NESTED: dict[str, Any] = {}
for _ in range(3000):
    NESTED = {"a": NESTED}
NO_COUNT = [NAN, INF, -INF, -1, 1.5, HUGE, -HUGE, "5", None, [], {}, b"5", True, Decimal(5), DEEP]
NO_NUMBER = [NAN, INF, -INF, HUGE, -HUGE, -1, Fraction(10**400), "1", [], {}, 1j, Decimal(1), True]
NO_TEXT = [None, 5, NAN, b"x", [], {}, "\ud800", "a\udfff"]
NO_VECTOR = [None, 5, "x", [], [1, 2], [NAN] * 256, [[1.0]], DEEP, [HUGE], {}, object()]
NO_WHERE = [5, "x", NAN, [1], b"x"]

llm = scripted_llm("</think>x")
docs = [Document("The library opens at nine.", "d")]
index = CorpusIndex.build(docs)
pointed = PointedPrompt.of("q", docs)
ask = [{"role": "user", "content": "q"}]


def settings(name: str, values: list[Any]) -> dict[str, tuple[Callable[[Any], Any], list[Any]]]:
    values = [value for value in values if value is not None]
    return {
        f"params {name}": (lambda v: GenerationParams(**{name: v}), values),
        f"answer {name}": (lambda v: llm.answer("q", docs, **{name: v}), values),
    }


DOORS: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    **settings("max_new_tokens", [*NO_COUNT, 0]),
    **settings("max_thinking_tokens", NO_COUNT),
    **settings("max_span_tokens", [*NO_COUNT, 0]),
    **settings("max_spans", NO_COUNT),
    **settings("seed", [v for v in NO_COUNT if v != -1]),
    **settings("temperature", NO_NUMBER),
    **settings("top_p", [*NO_NUMBER, 0, 2]),
    **settings("prior_weight", NO_NUMBER),
    **settings("stop", [5, NAN, [5], [""], DEEP, {}]),
    **settings("boundary", [5, [], "x", {}]),
    **settings("recall_in", [5, [], "x"]),
    "question": (lambda v: llm.answer(v, docs), NO_TEXT),
    "message": (lambda v: llm.chat([{"role": "user", "content": v}], docs), NO_TEXT),
    "role": (lambda v: llm.chat([{"role": v, "content": "q"}], docs), [None, 5, [], {}, DEEP]),
    "documents": (lambda v: llm.answer("q", v), [None, 5, NAN, "x", b"x", {}, [5], [None], DEEP]),
    "count_tokens": (llm.count_tokens, NO_TEXT),
    "tools": (lambda v: llm.chat(ask, docs, tools=v), [5, [5], [None], [{}], [[]], [DEEP]]),
    "tool name": (
        lambda v: llm.chat(ask, docs, tools=[{"name": v}]),
        [5, "", "a b", "\ud800", [1], HUGE, "x" * 65],
    ),
    "tool parameters": (
        lambda v: llm.chat(ask, docs, tools=[{"name": "f", "parameters": {"default": v}}]),
        [NAN, INF, HUGE, "\ud800", DEEP, object(), {1: 2}, {"\ud800": 1}, b"x"],
    ),
    "schema": (
        lambda v: llm.chat(ask, docs, response_schema={"const": v}),
        [NAN, INF, HUGE, "\ud800", DEEP, object(), {1: 2}, b"x"],
    ),
    "tool_choice": (lambda v: llm.chat(ask, docs, tool_choice=v), [5, "x", NAN, "\ud800"]),
    "search question": (index.search, NO_TEXT),
    "search k": (lambda v: index.search("q", v), NO_COUNT),
    "search mode": (lambda v: index.search("q", mode=v), [None, 5, [], {}, "x", NAN]),
    "search where": (lambda v: index.search("q", where=v), NO_WHERE),
    "search_vector": (index.search_vector, NO_VECTOR),
    "search_vector k": (lambda v: index.search_vector(np.zeros(256), v), NO_COUNT),
    "matching": (index.matching, NO_WHERE),
    "delete": (index.delete, [5, None, NAN, [5], [None], DEEP]),
    "add": (index.add, [5, None, "x", [5], {}, DEEP]),
    "add_vectors": (lambda v: index.add_vectors(docs, v), NO_VECTOR),
    "pack question": (index.pack, NO_TEXT),
    "pack budget": (
        lambda v: index.pack("q", token_budget=v),
        [v for v in NO_COUNT if v is not None],
    ),
    "pack_report budget": (lambda v: index.pack_report("q", v, len), NO_COUNT),
    "pack_report gap": (lambda v: index.pack_report("q", 9, len, gap_tokens=v), NO_COUNT),
    "pack order": (lambda v: index.pack("q", 5, order=v, where={}), [5, None, [], "x"]),
    "pack of chunks": (
        lambda v: pack([ScoredChunk("d", 0, 3, "The", 1.0)], token_budget=v, count=len),
        NO_COUNT,
    ),
    "pack of scores": (
        lambda v: pack([ScoredChunk("d", 0, 3, "The", v)], token_budget=5, count=len),
        [NAN, "x", None, []],
    ),
    "embedder": (lambda v: CorpusIndex.build(docs, v), [5, NAN, [], {}, b"x"]),
    "embedding": (
        lambda v: CorpusIndex.build(docs, FunctionEmbedder(lambda _: v, name="f")),
        [v for v in NO_VECTOR if v != [[1.0]]],
    ),
    "batch_size": (lambda v: FunctionEmbedder(len, name="f", batch_size=v), [*NO_COUNT, 0]),
    "load_documents": (load_documents, [None, 5, NAN, {}, [5], [None], b"x", DEEP]),
    "max_bytes": (lambda v: load_documents("LICENSE", max_bytes=v), NO_COUNT),
    "document text": (Document, NO_TEXT),
    "document id": (lambda v: Document("x", v), [5, b"x", [], "", "\ud800"]),
    "document title": (lambda v: Document("x", None, v), [5, b"x", [], "\ud800"]),
    "document metadata": (lambda v: Document("x", None, None, v), [5, "x", [1], DEEP]),
    "line_at": (docs[0].line_at, [NAN, -1, 1.5, HUGE, "5", None, []]),
    "lines": (lambda v: docs[0].lines(0, v), [NAN, -1, 1.5, HUGE, "5", None, []]),
    "utf16_range": (lambda v: docs[0].utf16_range(v, 5), [NAN, -1, 1.5, HUGE, "5", None, []]),
    "source map": (lambda v: SourceMap("f", (0, v)), [NAN, -1, 1.5, "5", None, []]),
    "chunk": (lambda v: chunk(docs[0], max_tokens=v), [*NO_COUNT, 0]),
    "chunk parents": (lambda v: chunk(docs[0], parent_tokens=v), [*NO_COUNT, 0]),
    "split": (lambda v: split("text", max_tokens=v), [*NO_COUNT, 0]),
    "runs": (
        lambda v: RecallIndex(v, vocab_size=10),
        [5, None, [[NAN]], [["x"]], [[-1]], [[HUGE]], [[10]]],
    ),
    "vocab_size": (lambda v: RecallIndex([[1]], vocab_size=v), [*NO_COUNT, 0]),
    "matcher": (lambda v: RecallIndex([[1]], vocab_size=10).matcher(v), [*NO_COUNT, 0]),
    "prior": (
        lambda v: RecallIndex([[1]], vocab_size=10).matcher(start_log_prior=v),
        [5, [], [NAN], [INF], ["x"], [None], [HUGE], DEEP],
    ),
    "address": (
        lambda v: Connection(v),
        [5, None, "", "x", "ftp://a", "http://", "http://a:99999", "http://a:0", "http://[", b"x"],
    ),
    "api_key": (
        lambda v: Connection("http://a", api_key=v),
        [5, b"x", [], "\ud800", "é", "a\nb", {}],
    ),
    "timeout": (lambda v: Connection("http://a", timeout=v), [*NO_NUMBER, 0, None]),
    "max_retries": (lambda v: Connection("http://a", max_retries=v), NO_COUNT),
    "max_connections": (lambda v: Connection("http://a", max_connections=v), [*NO_COUNT, 0]),
    "pointed question": (
        lambda v: PointedPrompt.of(v, docs),
        [None, 5, NAN, b"x", {}, "\ud800", [5], [{}], [{"role": "user"}], [{"content": "q"}]],
    ),
    "pointed role": (lambda v: PointedPrompt.of([{"role": v, "content": "q"}], docs), NO_TEXT),
    "pointed content": (
        lambda v: PointedPrompt.of([{"role": "user", "content": v}], docs),
        NO_TEXT,
    ),
    "pointed documents": (lambda v: PointedPrompt.of("q", v), [None, 5, "x", b"x", {}, [5], DEEP]),
    "pointed schema": (pointed.schema, [5, "openai", {}, [], NAN]),
    "pointed reply": (
        pointed.answer,
        [None, 5, NAN, [], {}, "", b"{}", DEEP, {1: 2}, {"answered": NAN}, object(), NESTED],
    ),
    "pointed outside": (lambda v: pointed.answer("{}", outside=v), [5, None, "x", [], {}]),
    "pointed piece": (lambda v: pointed.reader().feed(v), [None, 5, [], b"x", {}]),
    "pointed piece to match": (
        lambda v: pointed.reader(outside="match").feed(v),
        [None, 5, [], b"x", {}],
    ),
    "schema limits": (SchemaLimits, NO_COUNT),
    "schema limits of": (SchemaLimits.of, [None, 5, [], b"x", NAN]),
    "quoted start": (lambda v: exact_quote(docs[0], v, 5, docs), NO_COUNT),
    "quoted end": (lambda v: exact_quote(docs[0], 0, v, docs), [*NO_COUNT, 0]),
    "load": (RecaLLM.load, [5, None, "", [], NAN, {}]),
    "load mode": (lambda v: RecaLLM.load(mode=v), [5, None, [], "x"]),
    "load backend": (lambda v: RecaLLM.load(backend=v), [5, None, [], "x"]),
    "load recipe": (lambda v: RecaLLM.load(recipe=v), [5, "x", {}]),
}


@pytest.mark.parametrize("door", DOORS)
def test_nonsense_is_refused_with_what_was_expected(door: str) -> None:
    call, values = DOORS[door]
    for value in values:
        with pytest.raises((RecallmError, ValueError, TypeError)) as caught:
            call(value)
        said = str(caught.value)
        assert said
        assert len(said) < 1500
        assert not BARE.search(said), said


@pytest.mark.parametrize("name", ["window", "max_batch", "prefill_chunk", "draft_tokens"])
def test_settings_of_the_engine_are_checked(name: str) -> None:
    for value in (v for v in NO_COUNT if v is not None):
        with pytest.raises(ValueError, match=name):
            TransformersBackend(None, **{name: value})


OPTIONS = {
    "--max-new-tokens": ["nan", "-1", "0", "x", "1.5", "9" * 5000],
    "--temperature": ["nan", "inf", "-1", "x", "1e999", "9" * 5000],
    "--seed": ["nan", "x", "9" * 5000],
    "--top-p": ["nan", "inf", "-1", "0", "2", "x", "1e999", "9" * 5000],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_ask_are_checked(option: str, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The library opens at nine.")
    for value in OPTIONS[option]:
        line = ["ask", "q", "--docs", str(tmp_path), f"{option}={value}"]
        try:
            code = main(line)
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr().err
        assert code in (1, 2), (value, said)
        assert "Traceback" not in said
        assert not BARE.search(said), said


@pytest.mark.parametrize("value", ["nan", "0", "-1", "x", "9" * 5000, "1.5"])
def test_options_of_index_are_checked(value: str, capsys: Any, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    with pytest.raises(SystemExit) as left:
        main(["index", "search", str(tmp_path / "index"), "q", f"-k={value}"])
    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def numbers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every option of a command, and of the commands below it, that is read as a number."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from numbers(inner)
        elif is_number(action.type):
            yield f"{parser.prog} {'/'.join(action.option_strings)}", action


def is_number(read: Any) -> bool:
    try:
        return read is not None and isinstance(read("3"), int | float)
    except (ValueError, argparse.ArgumentTypeError):  # names
        return False


COMMANDS = (cli.parser, cli_eval.parser, cli_serve.parser, cli_train.parser)
READ = dict(each for made in COMMANDS for each in numbers(made()))
SIGNED = re.compile("--seed$")
NO_NUMBERS = ["nan", "inf", "x", "", "1e999", "0x10", "9" * 5000, "1_0", "\u0661", "--5", "\ud800"]


@pytest.mark.parametrize("option", READ)
def test_every_number_of_every_command_has_bounds(option: str) -> None:
    read: Any = READ[option].type
    if read is float:
        return  # its values are checked with all settings of a question
    for value in [*NO_NUMBERS, "1.5", "9" * 30, *([] if SIGNED.search(option) else ["-1"])]:
        with pytest.raises(argparse.ArgumentTypeError, match="must be") as caught:
            read(value)
        assert len(str(caught.value)) < 200


def test_the_walk_over_the_commands_meets_their_numbers() -> None:
    assert {name.partition(" ")[2].split(" ")[0] for name in READ} >= {
        "ask", "check", "index", "model", "eval", "serve", "train"
    }  # fmt: skip


@given(st.integers())
def test_whole_numbers_within_bounds_pass(number: int) -> None:
    if -5 <= number <= 5:
        assert whole_number("n", number, -5, 5) == number
    else:
        with pytest.raises(ValueError, match="n must be a whole number in"):
            whole_number("n", number, -5, 5)


@given(st.floats() | st.integers() | st.fractions())
def test_real_numbers_within_bounds_pass(number: Any) -> None:
    if 0 <= number <= 5:
        assert real_number("x", number, 0, 5) == float(number)
    else:
        with pytest.raises(ValueError, match="x must be a number in"):
            real_number("x", number, 0, 5)


SECRET = "swordfish"


@pytest.mark.parametrize(
    "address",
    [
        f"http://user:{SECRET}@host:8000",
        f"http://{SECRET}@host/?x",
        f"http://user:{SECRET}@host?key={SECRET}",
        f"http://host?key={SECRET}",
        f"ftp://user:{SECRET}@host",
        f"http://user:{SECRET}@host:99999",
        f"http://user:{SECRET}@[host",
        f"//user:{SECRET}/x@host",
    ],
)
def test_passwords_stand_in_no_error(address: str) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        Connection(address)
    assert SECRET not in str(caught.value)
    assert SECRET not in without_password(address)


def test_keys_stand_in_no_repr_or_error() -> None:
    connection = Connection("http://127.0.0.1:1", api_key=SECRET, max_retries=0)
    assert SECRET not in repr(connection) + str(connection)
    with pytest.raises(ValueError, match="printable") as caught:
        Connection("http://a", api_key=SECRET + "\n")
    assert SECRET not in str(caught.value)
