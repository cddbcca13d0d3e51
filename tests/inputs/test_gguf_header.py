"""Headers of GGUF files: read as they were written, and refused where anything doesn't add up."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.errors import CheckpointError
from recallm_core.inputs.gguf_header import read_header, split_files


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Any) -> Path:
    path: Path = tiny_gguf.write(tmp_path_factory.mktemp("header") / "tiny.gguf", "llama")
    return path


@pytest.fixture(scope="module")
def data(written: Path) -> bytes:
    return written.read_bytes()


def test_what_was_written_is_read(written: Path, tiny_gguf: Any) -> None:
    header = read_header(written)
    assert header.architecture == header.model_type == "llama"
    vocabulary = tiny_gguf.byte_level()
    assert header.texts("tokenizer.ggml.tokens") == tuple(vocabulary["tokenizer.ggml.tokens"])
    assert (
        header.numbers("tokenizer.ggml.token_type").tolist()
        == (vocabulary["tokenizer.ggml.token_type"])
    )
    assert header.number("llama.context_length") == 4096
    assert header.text("tokenizer.chat_template") == tiny_gguf.TEMPLATE
    assert header.text("llama.context_length") is header.number("general.name") is None
    assert header.tensors["token_embd.weight"].shape == (tiny_gguf.WIDTH, tiny_gguf.VOCAB)
    assert header.tensors["token_embd.weight"].size == 4 * tiny_gguf.WIDTH * tiny_gguf.VOCAB
    assert header.size == written.stat().st_size


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    return str(caught.value)


def header_size(written: Path) -> int:
    """Bytes before the first tensor's data, roughly: all of them matter."""
    header = read_header(written)
    return header.size - sum(tensor.size for tensor in header.tensors.values()) - 64


def test_a_file_that_was_cut_off_is_refused_wherever_it_ends(
    written: Path, data: bytes, tmp_path: Path
) -> None:
    size = header_size(written)
    for end in [*range(0, 64), *range(64, size, 211), *range(size, len(data) - 32, 4099)]:
        message = refused(tmp_path / "cut.gguf", data[:end])
        assert "download it again" in message


@given(st.data())
def test_any_other_bits_are_a_header_or_an_error(written: Path, draw: Any) -> None:
    """No other exception, no endless loop, no memory for what isn't there."""
    changed = bytearray(written.read_bytes())
    size = header_size(written)
    for _ in range(draw.draw(st.integers(1, 4))):
        place = draw.draw(st.integers(0, size - 1) | st.integers(0, 400))
        if draw.draw(st.booleans()):
            changed[place] ^= 1 << draw.draw(st.integers(0, 7))
        else:
            number = draw.draw(st.sampled_from([0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1]))
            changed[place : place + 8] = struct.pack("<Q", number)
    path = written.with_name("changed.gguf")
    path.write_bytes(bytes(changed))
    with suppress(CheckpointError):
        assert read_header(path).tensors


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(written: Path, tail: bytes) -> None:
    path = written.with_name("random.gguf")
    refused(path, tail)
    refused(path, b"GGUF" + struct.pack("<I", 3) + tail)


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


def key(name: str) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode()


def test_each_fault_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    u32, u64 = struct.Struct("<I").pack, struct.Struct("<Q").pack
    width = key("token_embd.weight") + u32(2)
    cases = {
        "begins with b'GGML'": b"GGML" + data[4:],
        "version 1": data[:4] + u32(1) + data[8:],
        "version 50,331,648": data[:4] + u32(3 << 24) + data[8:],  # of the other byte order
        "things follow": data[:8] + u64(1 << 40) + data[16:],
        "is of type 77": patched(
            data, key("llama.block_count") + u32(4), key("llama.block_count") + u32(77)
        ),
        "holds no weights": data[:8] + u64(0) + data[16:],
        "axes": patched(data, width, key("token_embd.weight") + u32(9)),
    }
    for message, content in cases.items():
        assert message in refused(path, content)
    names = patched(data, key("blk.1.attn_q.weight"), key("blk.0.attn_q.weight"))
    assert "one name" in refused(path, names)
    where = data.index(key("blk.0.attn_norm.weight")) + len(key("blk.0.attn_norm.weight"))
    offset = where + 4 + 8 + 4  # axes, length, type
    moved = data[:offset] + u64(32) + data[offset + 8 :]
    assert "lies at 32, expected" in refused(path, moved)
    huge = data[: where + 4] + u64(1 << 60) + data[where + 12 :]
    assert "ends at byte" in refused(path, huge)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "../x"}, "general.architecture"),
        ({"llama__context_length": None}, "context_length is None"),
        ({"llama__block_count": 513}, "more than any model has"),
        ({"llama__attention.layer_norm_rms_epsilon": -1e-6}, "expected a finite number"),
        ({"llama__attention.layer_norm_rms_epsilon": float("nan")}, "expected a finite number"),
        ({"llama__attention.head_count": [4, 1 << 30]}, "more than any model has"),
        ({"tokenizer__ggml__tokens": None}, "it has 0 tokens"),
        ({"tokenizer__ggml__token_type": [1, 1]}, "2 entries for 300 tokens"),
        ({"split__count": 3}, "the model has 3 files"),
        ({"general__alignment": 48}, "alignment is 48"),
    ],
)
def test_what_llama_cpp_takes_for_granted_is_checked(
    changes: dict[str, Any], message: str, tmp_path: Path, tiny_gguf: Any
) -> None:
    path = tmp_path / "odd.gguf"
    if "general__architecture" in changes:
        tiny_gguf.write(path, "llama")
        name = key("general.architecture") + struct.pack("<I", 8)
        content = path.read_bytes().replace(name + key("llama"), name + key("../xy"))
        path.write_bytes(content)
    else:
        tiny_gguf.write(path, "llama", **changes)
    with pytest.raises(CheckpointError, match=message):
        read_header(path)


def test_tokens_that_are_spelled_alike_end_no_process(tmp_path: Path, tiny_gguf: Any) -> None:
    """llama.cpp asserts that there are none."""
    vocabulary = tiny_gguf.byte_level()
    tokens = [*vocabulary["tokenizer.ggml.tokens"]]
    tokens[5] = tokens[6]
    path = tiny_gguf.write(
        tmp_path / "twice.gguf", vocabulary=vocabulary | {"tokenizer.ggml.tokens": tokens}
    )
    with pytest.raises(CheckpointError, match="spelled alike"):
        read_header(path)
    other = tiny_gguf.write(
        tmp_path / "few.gguf",
        vocabulary=vocabulary
        | {"tokenizer.ggml.tokens": tokens[10:], "tokenizer.ggml.token_type": [1] * 290},
    )
    with pytest.raises(CheckpointError, match="table of tokens"):
        read_header(other)


def test_files_that_arent_regular_or_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(CheckpointError, match="isn't a regular file"):
        read_header(tmp_path)


def test_a_split_model_is_all_of_its_files(tmp_path: Path) -> None:
    names = [path.name for path in split_files(tmp_path / "m-00001-of-00003.gguf")]
    assert names == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert split_files(tmp_path / "m.gguf") == (tmp_path / "m.gguf",)
    with pytest.raises(CheckpointError, match="give the first"):
        split_files(tmp_path / "m-00002-of-00003.gguf")


def test_a_split_models_header_has_the_tensors_of_all_files(tmp_path: Path, tiny_gguf: Any) -> None:
    whole = read_header(tiny_gguf.write(tmp_path / "whole.gguf", "llama"))
    tiny_gguf.write(tmp_path / "m.gguf", "llama", tensors_a_file=8)
    files = sorted(tmp_path.glob("m-*.gguf"))
    header = read_header(files[0])
    assert len(files) == 3
    assert header.tensors == whole.tensors
    assert header.size == sum(file.stat().st_size for file in files)
    assert {tensor.type_name for tensor in header.tensors.values()} == {"F32"}
    third = files[2].read_bytes()
    files[2].write_bytes(third[:-40])
    with pytest.raises(CheckpointError, match=r"00003-of-00003.gguf is no whole GGUF file"):
        read_header(files[0])
    files[2].unlink()
    with pytest.raises(CheckpointError, match=r"00003.gguf isn't beside it; .* --merge FIRST OUT"):
        read_header(files[0])
    files[2].write_bytes(files[1].read_bytes())
    with pytest.raises(CheckpointError, match="says that it is file 1 of 3, expected 2"):
        read_header(files[0])


def test_a_tensor_of_two_files_is_refused(tmp_path: Path, tiny_gguf: Any) -> None:
    tiny_gguf.write(tmp_path / "m.gguf", "llama", tensors_a_file=12)
    first, second = sorted(tmp_path.glob("m-*.gguf"))
    data = second.read_bytes()
    assert b"blk.1.ffn_up" in data
    second.write_bytes(data.replace(b"blk.1.ffn_up", b"blk.0.ffn_up"))
    assert b"blk.0.ffn_up" in first.read_bytes()
    with pytest.raises(CheckpointError, match="stands in two of its files"):
        read_header(first)


def test_numbers_of_every_width_are_read(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "numbers.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for number, name in enumerate(("uint8", "int8", "uint16", "int16", "uint64", "int64")):
        getattr(writer, f"add_{name}")(f"x.{name}", number)
    writer.add_float64("x.float64", 0.5)
    writer.add_array("x.bools", [True, False])
    for name in ("context_length", "embedding_length", "block_count"):
        writer.add_uint32(f"llama.{name}", 1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "é"])
    writer.add_tensor("token_embd.weight", np.zeros((2, 1), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    assert [header.number(f"x.{n}") for n in ("uint8", "int64")] == [0, 5]
    assert header.metadata["x.float64"] == 0.5
    assert header.numbers("x.bools").dtype == np.bool_
    assert header.texts("tokenizer.ggml.tokens") == ("a", "é")
