"""Small tokenizers of each family that matters, trained on local text, with real chat templates."""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

GPT_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FOREIGN = """\
东京塔高三百三十三米。图书馆九点开门。 القطار يغادر في الساعة التاسعة. हिन्दी में एक वाक्य। ภาษาไทยไม่มีช่องว่าง
한국어 문장입니다. Ελληνικά και Кириллица. naïve café, Straße, œuvre. 👩‍💻 🇫🇷 👍🏽 — “quotes” … ½ ﬁ ①
"""  # noqa: E501

QWEN = """\
{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{%- set content = message.content %}
{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""  # noqa: E501

LLAMA3 = """\
{{- bos_token }}{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""  # noqa: E501

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""  # noqa: E501

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}{%- set system_message = messages[0]["content"] %}
{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}{%- for message in loop_messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate') }}{%- endif %}
{%- if message["role"] == "user" %}
{%- if loop.last and system_message is defined %}{{- " [INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
{%- else %}{{- " [INST] " + message["content"] + " [/INST]" }}{%- endif %}
{%- else %}{{- " " + message["content"] | trim + eos_token }}{%- endif %}{%- endfor %}"""  # noqa: E501

CONTROLS = ("<|start_recall|>", "<|end_recall|>", "<think>", "</think>", "<tool_call>")
SPECIALS = {
    "qwen": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
}


def local_text() -> list[str]:
    """Words, code, foreign scripts and what a keyboard types; fixed until this file changes."""
    here = Path(__file__).resolve()
    files = (here.parent.parent / "LICENSE", here)
    typed = " ".join(string.printable[:94])
    return [*(f.read_text(encoding="utf-8") for f in files), f"{typed}\n" * 20, FOREIGN * 20]


def _finish(
    backend: Tokenizer,
    special: tuple[str, ...] = (),
    template: str | None = None,
    **named: str,
) -> PreTrainedTokenizerFast:
    """Adds control tokens, special ones and others, and wraps the lot."""
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in CONTROLS])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    wrapped.chat_template = template
    return wrapped


def _byte_level(pre: Any, vocab: int = 700, **model: Any) -> Tokenizer:
    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = pre
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=alphabet, show_progress=False, max_token_length=24
    )
    backend.train_from_iterator(local_text(), trainer)
    return backend


def _split() -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GPT_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def gpt2() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose one special token is also its unknown token; no template."""
    backend = _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))
    end = "<|endoftext|>"
    return _finish(backend, (end,), bos_token=end, eos_token=end, unk_token=end)


def qwen() -> PreTrainedTokenizerFast:
    """Byte-level BPE that normalises to NFC."""
    backend = _byte_level(_split())
    backend.normalizer = normalizers.NFC()
    return _finish(
        backend, SPECIALS["qwen"], QWEN, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def llama3() -> PreTrainedTokenizerFast:
    """Byte-level BPE that looks whole words up before merging."""
    backend = _byte_level(_split(), ignore_merges=True)
    names = SPECIALS["llama3"]
    wrapped = _finish(backend, names, LLAMA3, bos_token=names[0], eos_token=names[3])
    begin = wrapped.convert_tokens_to_ids(names[0])
    wrapped.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names[0]} $A", special_tokens=[(names[0], begin)]
    )
    return wrapped


def _commonest(texts: Iterable[str], most: int) -> list[str]:
    """The texts in their commonest characters; a trainer's own limit breaks ties by chance."""
    given = list(texts)
    counts = Counter("".join(given))
    kept = set(sorted(counts, key=lambda c: (-counts[c], c))[:most])
    return ["".join(c for c in text if c in kept) for text in given]


def _learnt(texts: list[str], size: int, normalizer: Any, splitter: Any) -> list[str]:
    """The pieces of a BPE, the commonest first; trainers of other models differ from run to run."""
    backend = Tokenizer(models.BPE())
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    ranks = backend.get_vocab()
    return sorted(ranks, key=lambda piece: ranks[piece])


def _pieces(vocab: int = 500, **settings: Any) -> dict[str, Any]:
    """A SentencePiece-like BPE with byte fallback, as its JSON state."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=vocab, show_progress=False)
    backend.train_from_iterator(_commonest(local_text(), 110), trainer)
    state: dict[str, Any] = json.loads(backend.to_str())
    learnt = [t for t, _ in sorted(state["model"]["vocab"].items(), key=lambda p: p[1])]
    spelled = [f"<0x{b:02X}>" for b in range(256)]
    names = ["<unk>", "<s>", "</s>", *spelled, "\n", "\n\n", "▁▁", *learnt]
    numbers = {name: n for n, name in enumerate(dict.fromkeys(names))}
    state["model"].update(vocab=numbers, byte_fallback=True, fuse_unk=True, **settings)
    state["added_tokens"] = []
    return state


def _from(state: dict[str, Any]) -> Tokenizer:
    backend = Tokenizer.from_str(json.dumps(state))
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return backend


_SENTENCEPIECE = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def llama2() -> PreTrainedTokenizerFast:
    """SentencePiece BPE with byte fallback; a dummy space comes from the normaliser."""
    backend = _from(_pieces())
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return _finish(backend, ("<unk>", "<s>", "</s>"), MISTRAL, **_SENTENCEPIECE)


def metaspace() -> PreTrainedTokenizerFast:
    """The same, the dummy space from a Metaspace pre-tokenizer."""
    backend = _from(_pieces())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return _finish(backend, ("<unk>", "<s>", "</s>"), MISTRAL, **_SENTENCEPIECE)


def gemma() -> PreTrainedTokenizerFast:
    """SentencePiece BPE, no dummy space, white space and HTML tags among the added tokens."""
    backend = _from(_pieces())
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    plain = [AddedToken(t, special=False, normalized=False) for t in ("\n\n", "▁▁", "<h1>")]
    backend.add_tokens(plain)
    special = ("<unk>", "<s>", "</s>", *SPECIALS["gemma"])
    return _finish(backend, special, GEMMA, **_SENTENCEPIECE)


def unigram() -> PreTrainedTokenizerFast:
    """Lossy Unigram: NFKC, runs of spaces collapsed, control tokens among its pieces."""
    names = ("<unk>", "<s>", "</s>")
    normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    splitter = pre_tokenizers.Metaspace(prepend_scheme="always")
    learnt = _learnt(local_text(), 600, normalizer, splitter)
    scored = [(piece, -math.log(rank + 2)) for rank, piece in enumerate(learnt)]
    backend = Tokenizer(models.Unigram([*((name, 0.0) for name in names), *scored], unk_id=0))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return _finish(backend, names, QWEN, **_SENTENCEPIECE)


def wordpiece() -> PreTrainedTokenizerFast:
    """Lossy WordPiece: lower case, no accents, unknown words."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    learnt = _learnt(_commonest(local_text(), 120), 350, normalizer, splitter)
    spelled = dict.fromkeys([*names, *learnt, *(f"##{piece}" for piece in learnt)])
    numbers = {piece: n for n, piece in enumerate(spelled)}
    backend = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = decoders.WordPiece()
    return _finish(
        backend, tuple(names), QWEN, unk_token="[UNK]", eos_token="[SEP]", pad_token="[PAD]"
    )


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt2": gpt2,
    "qwen": qwen,
    "llama3": llama3,
    "llama2": llama2,
    "metaspace": metaspace,
    "gemma": gemma,
    "unigram": unigram,
    "wordpiece": wordpiece,
}
