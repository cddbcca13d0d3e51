"""A reader of a few thousand random weights, for tests; and BERT's kind of tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertConfig, BertForTokenClassification

from recallm_core.train.reader import write_folder

WORDS = "the ferry leaves at nine from pier 7 when does it leave who runs ann lee ? . : , 9 1"


def tokenizer() -> Tokenizer:
    """Words, and single characters for the rest."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys([*WORDS.split(), *letters])]
    pieces += [f"##{letter}" for letter in letters]
    vocab = {piece: n for n, piece in enumerate(pieces)}
    made = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = BertNormalizer()
    made.pre_tokenizer = BertPreTokenizer()
    return made


def config() -> dict[str, int]:
    return {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": tokenizer().get_vocab_size(),
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    }


def write_reader(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = BertForTokenClassification(BertConfig(**config(), num_labels=3))
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    write_folder(weights, config(), tokenizer(), folder)
    return folder
