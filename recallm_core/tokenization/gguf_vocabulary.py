"""The tokenizer that stands in a GGUF file, made without transformers and without its weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from recallm_core.errors import RecallmError, TokenizerError
from recallm_core.inputs.gguf_header import GgufHeader
from recallm_core.tokenization.chat_template import render
from recallm_core.tokenization.pre_tokenizers import PATTERNS, WHOLE_WORDS_FIRST
from recallm_core.tokenization.tokenizer import HFTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_CONTROLS = (UNKNOWN, CONTROL, UNUSED)
_BYTE_LEVEL, _PIECES, _PIECES_MERGED = "gpt2", "llama", "gemma4"
_SPACE = "▁"
_ROLES = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


def tokenizer_of(
    header: GgufHeader, *, controls: Collection[int], ends: Collection[int], begins: bool
) -> HFTokenizer:
    """Returns the tokenizer of a GGUF file.

    Args:
        header: What the file says.
        controls: Ids that text must not produce, beside those that the file marks as such.
        ends: Ids that end an output, beside the one that the file names.
        begins: Whether the first token of a text is the one that the file names for beginnings.

    Raises:
        TokenizerError: It is of a kind that isn't known here, or contradicts itself.
    """
    kind = header.text("tokenizer.ggml.model")
    if kind not in (_BYTE_LEVEL, _PIECES, _PIECES_MERGED):
        raise TokenizerError(
            f"the tokenizer in {header.path} is of the kind {kind!r}; known are byte-level ones "
            f"('{_BYTE_LEVEL}') and those of pieces ('{_PIECES}'): give the model's own tokenizer "
            "with tokenizer=FOLDER"
        )
    try:
        return HFTokenizer(FileTokenizer(header, controls, begins=begins), eos_ids=ends)
    except RecallmError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise TokenizerError(
            f"the tokenizer in {header.path} can't be used: {type(error).__name__}: {error}; give "
            "the model's own with tokenizer=FOLDER"
        ) from error


@dataclass(frozen=True, slots=True)
class _AddedToken:
    content: str
    special: bool


class FileTokenizer:
    """A tokenizer of a GGUF file with the names that ``HFTokenizer`` asks a fast one by."""

    is_fast = True

    def __init__(self, header: GgufHeader, controls: Collection[int], *, begins: bool) -> None:
        tokens = header.texts("tokenizer.ggml.tokens")
        kinds = _kinds(header, len(tokens), controls)
        self.added_tokens_decoder = {
            number: _AddedToken(tokens[number], special=kind in _CONTROLS)
            for number, kind in enumerate(kinds)
            if kind in (*_CONTROLS, USER_DEFINED)
        }
        self.backend_tokenizer = _tokenizer(header, kinds)
        self._add()
        self._ids = {
            role: number
            for role, key in _ROLES.items()
            if (number := header.number(key)) is not None and 0 <= number < len(tokens)
        }
        self.special_tokens_map = {role: tokens[number] for role, number in self._ids.items()}
        self.all_special_tokens = [
            t.content for t in self.added_tokens_decoder.values() if t.special
        ]
        self.chat_template = header.text("tokenizer.chat_template")
        self._begins = begins and "bos_token" in self._ids

    def _add(self) -> None:
        """Tells the library of the tokens that stand outside the merges."""
        from tokenizers import AddedToken

        self.backend_tokenizer.add_tokens(
            [
                AddedToken(token.content, special=token.special, normalized=False)
                for token in self.added_tokens_decoder.values()
            ]
        )

    @property
    def bos_token_id(self) -> int | None:
        """The token at the beginning of a text."""
        return self._ids.get("bos_token")

    @property
    def bos_token(self) -> str | None:
        """Its spelling."""
        return self.special_tokens_map.get("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The token at the end of an output."""
        return self._ids.get("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """The token that fills up."""
        return self._ids.get("pad_token")

    def get_vocab(self) -> dict[str, int]:
        """All tokens by their spelling."""
        vocab: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return vocab

    def __call__(self, text: str) -> SimpleNamespace:
        """Encodes a text as the model's makers do, with what they put before it."""
        before = [self._ids["bos_token"]] if self._begins else []
        return SimpleNamespace(input_ids=[*before, *self.backend_tokenizer.encode(text).ids])

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """Decodes ids, without control tokens."""
        return str(self.backend_tokenizer.decode(list(ids), skip_special_tokens=True))

    def get_chat_template(self, *_: Any) -> str:
        """The file's chat template.

        Raises:
            ValueError: It has none.
        """
        if not self.chat_template:
            raise ValueError("the file has no chat template")
        return self.chat_template

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **_: Any) -> str:
        """Writes a finished conversation by the chat template, within its bounds."""
        return render(
            self.get_chat_template(),
            messages,
            add_generation_prompt=False,
            tools=None,
            documents=None,
            **self.special_tokens_map,
        )


def _kinds(header: GgufHeader, count: int, controls: Collection[int]) -> list[int]:
    """What each token is: the file's word, and what is control whatever it says."""
    listed = header.numbers("tokenizer.ggml.token_type").tolist() or [NORMAL] * count
    for number in controls:
        if listed[number] not in _CONTROLS:
            listed[number] = CONTROL
    return [int(kind) for kind in listed]


def _tokenizer(header: GgufHeader, kinds: Sequence[int]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokens = header.texts("tokenizer.ggml.tokens")
    vocab = {token: number for number, token in enumerate(tokens)}
    model = header.text("tokenizer.ggml.model")
    if model == _BYTE_LEVEL:
        name = header.text("tokenizer.ggml.pre") or ""
        merges = list(_merges(header, vocab))
        tokenizer = Tokenizer(
            models.BPE(vocab=vocab, merges=merges, ignore_merges=name in WHOLE_WORDS_FIRST)
        )
        parts = [*_splits(header, name), pre_tokenizers.ByteLevel(False, use_regex=False)]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer
    merged = model == _PIECES_MERGED
    merges = list(_merges(header, vocab) if merged else _merges_by_score(header, kinds, vocab))
    unknown = header.number("tokenizer.ggml.unknown_token_id")
    unknown = 0 if unknown is None else unknown
    spelled = tokens[unknown] if 0 <= unknown < len(tokens) else None
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=spelled, fuse_unk=True, byte_fallback=True)
    )
    prefix = not merged and header.metadata.get("tokenizer.ggml.add_space_prefix", True)
    before = [normalizers.Prepend(_SPACE)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", _SPACE)])
    if merged:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_splits(header, _PIECES_MERGED))
    stripped = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    )
    return tokenizer


def _splits(header: GgufHeader, name: str) -> list[Any]:
    from tokenizers import Regex, pre_tokenizers

    if name not in PATTERNS:
        raise TokenizerError(
            f"{header.path} cuts its texts by {name!r} before it encodes them, which isn't known "
            "here; give the model's own tokenizer with tokenizer=FOLDER"
        )
    return [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[name]]


def _merges(header: GgufHeader, vocab: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The merges that the file lists, but for those that make no token."""
    for written in header.texts("tokenizer.ggml.merges"):
        at = written.find(" ", 1)
        first, second = written[:at], written[at + 1 :]
        if at > 0 and first in vocab and second in vocab and first + second in vocab:
            yield first, second


def _merges_by_score(
    header: GgufHeader, kinds: Sequence[int], vocab: Mapping[str, int]
) -> list[tuple[str, str]]:
    """Every way to make a token of two others; the token of the highest score comes first."""
    scores = header.numbers("tokenizer.ggml.scores").tolist() or [0.0] * len(vocab)
    scored = [
        (-scores[number], number, token)
        for token, number in vocab.items()
        if kinds[number] == NORMAL and len(token) > 1
    ]
    scored.sort()
    return [
        (token[:at], token[at:])
        for _, _, token in scored
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    ]
