"""Writes small GGUF files of random weights: the kinds that llama.cpp treats in different ways.

The byte-level one has the ids of the models in backends/conftest.py, so that their rules fit it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS = 32, 64, 2, 4, 2
VOCAB, WORDS = 300, 280
OPEN, CLOSE, THINK, EOS = 290, 291, 292, 299
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
NAMED = {
    OPEN: "<|start_recall|>",
    CLOSE: "<|end_recall|>",
    THINK: "</think>",
    293: "<think>",
    294: "<|im_start|>",
    295: "<|im_end|>",
    EOS: "<|endoftext|>",
}
PIECES = ("Ġt", "he", "Ġthe", "in", "er", "an", "Ġa", "on", "re", "Ġs", "at", "en", "ou", "Ġw")
MORE = ("or", "is", "Ġin", "Ġb", "es", "it", "al", "ar", "ing", "Ġo", "Ġf", "ed", "Ġp", "le")
LAST = ("1", "89", "Ġc", "om", "Ġm", "ic", "Ġd", "18")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPES = {
    "embedding_length": WIDTH,
    "block_count": LAYERS,
    "feed_forward_length": HIDDEN,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
}


def byte_alphabet() -> list[str]:
    """The printable stand-ins of the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(rest)) for b in range(256)]


def byte_level() -> dict[str, Any]:
    """A vocabulary of bytes, merges and control tokens."""
    tokens, merges = byte_alphabet(), []
    for piece in (*PIECES, *MORE, *LAST):
        if piece in tokens:
            continue
        halves = next(
            (piece[:at], piece[at:])
            for at in range(1, len(piece))
            if piece[:at] in tokens and piece[at:] in tokens
        )
        tokens.append(piece)
        merges.append(" ".join(halves))
    tokens += [f"[PAD{i}]" for i in range(len(tokens), VOCAB)]
    kinds = [NORMAL if not token.startswith("[PAD") else UNUSED for token in tokens]
    for number, name in NAMED.items():
        tokens[number], kinds[number] = name, CONTROL
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.chat_template": TEMPLATE,
    }


def of_pieces() -> dict[str, Any]:
    """A vocabulary of pieces with scores, as SentencePiece has it."""
    listed = [
        "▁",
        "h",
        "e",
        "t",
        "a",
        "o",
        "n",
        "s",
        "▁t",
        "he",
        "▁the",
        "an",
        "▁a",
        "é",
        "日",
        "1",
        "9",
    ]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *listed]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(listed)]
    tokens += [*NAMED.values(), "  ", "\n\n"]
    kinds += [*[CONTROL] * len(NAMED), USER_DEFINED, USER_DEFINED]
    tokens += [f"[unused{i}]" for i in range(len(tokens), VOCAB)]
    kinds += [UNUSED] * (VOCAB - len(kinds))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": [-float(number) for number in range(VOCAB)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": TEMPLATE,
    }


def write(
    path: Path,
    kind: str = "qwen2",
    *,
    vocabulary: Mapping[str, Any] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    tensors_a_file: int = 0,
    **metadata: Any,
) -> Path:
    """Writes a file and returns its path; ``metadata`` overrides keys, None leaves one out.

    With ``tensors_a_file`` it is split, as llama.cpp's tool does it.
    """
    import gguf

    described, shapes = KINDS[kind]
    values = {f"{kind}.{key}": value for key, value in {**COMMON, **described}.items()}
    values |= vocabulary if vocabulary is not None else byte_level()
    values |= {key.replace("__", "."): value for key, value in metadata.items()}
    writer = gguf.GGUFWriter(path, kind, split_max_tensors=tensors_a_file)
    for key, value in values.items():
        _put(writer, key, value)
    for name, array in (weights or random_weights(shapes, seed)).items():
        writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _put(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


def random_weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, np.ndarray]:
    """Weights of a model that opens and closes spans readily."""
    source = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        array = source.normal(size=shape, scale=0.25).astype(np.float32)
        if "norm" in name or name.endswith(("ssm_d", "dt.bias")):
            array = np.ones(shape, dtype=np.float32)
        if name.endswith("ssm_a"):
            array = -np.exp(array)
        weights[name] = array
    head = weights["output.weight"]
    head[[OPEN, CLOSE]] *= 3
    head[[THINK, EOS]] *= 0.7
    return weights


def of_transformers(model: Any) -> dict[str, np.ndarray]:
    """The weights of a Qwen2 model of transformers under llama.cpp's names."""
    renamed = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    weights = {}
    for name, tensor in model.state_dict().items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        weights[name] = tensor.numpy()
    return weights


def _layers(shapes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    whole = {"token_embd.weight": (VOCAB, WIDTH), "output_norm.weight": (WIDTH,)}
    layers = {f"blk.{i}.{name}": shape for i in range(LAYERS) for name, shape in shapes.items()}
    return whole | {"output.weight": (VOCAB, WIDTH)} | layers


def _mixed(
    first: Mapping[str, Sequence[int]],
    second: Mapping[str, Sequence[int]],
    norm: str = "output_norm",
) -> dict[str, Sequence[int]]:
    """Two layers of two kinds; only the second attends, and the first's state can't go back."""
    ends = {"token_embd.weight": (VOCAB, WIDTH), "output.weight": (VOCAB, WIDTH)}
    layers = enumerate((first, second))
    inner = {f"blk.{i}.{name}": shape for i, layer in layers for name, shape in layer.items()}
    return {**ends, f"{norm}.weight": (WIDTH,), **inner}


def _attention(head: int, more: Iterable[str] = ()) -> dict[str, Sequence[int]]:
    return {
        "attn_norm.weight": (WIDTH,),
        "attn_q.weight": (HEADS * head, WIDTH),
        "attn_k.weight": (KV_HEADS * head, WIDTH),
        "attn_v.weight": (KV_HEADS * head, WIDTH),
        "attn_output.weight": (WIDTH, HEADS * head),
        "ffn_norm.weight": (WIDTH,),
        "ffn_gate.weight": (HIDDEN, WIDTH),
        "ffn_up.weight": (HIDDEN, WIDTH),
        "ffn_down.weight": (WIDTH, HIDDEN),
        **{f"{name}_norm.weight": (WIDTH,) for name in more},
    }


_HEAD = WIDTH // HEADS
_BIASES = {
    "attn_q.bias": (HEADS * _HEAD,),
    "attn_k.bias": (KV_HEADS * _HEAD,),
    "attn_v.bias": (KV_HEADS * _HEAD,),
}
_INNER, _STATE, _RANK = 64, 8, 4
_MAMBA = {
    "attn_norm.weight": (WIDTH,),
    "ssm_in.weight": (2 * _INNER, WIDTH),
    "ssm_conv1d.weight": (_INNER, 4),
    "ssm_conv1d.bias": (_INNER,),
    "ssm_x.weight": (_RANK + 2 * _STATE, _INNER),
    "ssm_dt.weight": (_INNER, _RANK),
    "ssm_dt.bias": (_INNER,),
    "ssm_a": (_INNER, _STATE),
    "ssm_d": (_INNER,),
    "ssm_out.weight": (WIDTH, _INNER),
}
_BLOCK = ("ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
_CONVOLUTION = {
    "attn_norm.weight": (WIDTH,),
    "shortconv.conv.weight": (WIDTH, 3),
    "shortconv.in_proj.weight": (3 * WIDTH, WIDTH),
    "shortconv.out_proj.weight": (WIDTH, WIDTH),
    **{f"{name}.weight": _attention(_HEAD)[f"{name}.weight"] for name in _BLOCK},
}
_NORMED = {
    "ssm_dt_norm.weight": (_RANK,),
    "ssm_b_norm.weight": (_STATE,),
    "ssm_c_norm.weight": (_STATE,),
    **{f"{name}.weight": _attention(_HEAD)[f"{name}.weight"] for name in _BLOCK},
}
_QUERIES = {"attn_q_norm.weight": (_HEAD,), "attn_k_norm.weight": (_HEAD,)}
_SCAN = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": _INNER,
    "ssm.state_size": _STATE,
    "ssm.time_step_rank": _RANK,
}
COMMON = {"context_length": 4096, "attention.layer_norm_rms_epsilon": 1e-6}
_WINDOWED = {"attention.key_length": _HEAD, "attention.value_length": _HEAD}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Sequence[int]]]] = {
    "llama": ({**SHAPES, "rope.dimension_count": _HEAD}, _layers(_attention(_HEAD))),
    "qwen2": ({**SHAPES, "rope.freq_base": 10000.0}, _layers({**_attention(_HEAD), **_BIASES})),
    "gemma3": (
        {**SHAPES, **_WINDOWED, "attention.sliding_window": 8, "block_count": LAYERS},
        _layers(
            {
                **_attention(_HEAD, ("post_attention", "post_ffw")),
                "attn_q_norm.weight": (_HEAD,),
                "attn_k_norm.weight": (_HEAD,),
            }
        ),
    ),
    "mamba": (
        {
            "embedding_length": WIDTH,
            "block_count": LAYERS,
            "feed_forward_length": 0,
            "attention.head_count": 0,
            **_SCAN,
        },
        _layers(_MAMBA),
    ),
    "lfm2": (
        {**SHAPES, "attention.head_count_kv": [0, KV_HEADS], "shortconv.l_cache": 3},
        _mixed(_CONVOLUTION, {**_attention(_HEAD), **_QUERIES}, norm="token_embd_norm"),
    ),
    "jamba": (
        {**SHAPES, "attention.head_count_kv": [0, KV_HEADS], **_SCAN},
        _mixed({**_MAMBA, **_NORMED}, _attention(_HEAD)),
    ),
}
