"""The mini's tokenizer: byte-level BPE, digits one by one, nothing normalised, nothing unknown."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from recallm_core.train.tasks.traces import RECALL, STRUCTURAL


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains the tokenizer; ``vocab_size`` counts all tokens, the control tokens too.

    Every one of the 256 bytes has a token, so any text round-trips. Control tokens come first.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(n, special=True, normalized=False) for n in (*STRUCTURAL, *RECALL)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=added,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    described = json.loads(tokenizer.to_str())
    for token in described["added_tokens"]:  # the trainer makes all of them special
        token["special"] = token["content"] in STRUCTURAL
    return Tokenizer.from_str(json.dumps(described))
