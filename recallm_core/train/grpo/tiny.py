"""Tiny checkpoints of the classes that users train, with a real tokenizer; no download."""

from __future__ import annotations

import random
from pathlib import Path

from recallm_core.models.create import create
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.train.tasks.curriculum import GENERATED

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_checkpoint(folder: Path, kind: str, *, tied: bool, width: int = 32) -> Path:
    """Writes a random base model, and the trainable checkpoint that is made of it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

    rng = random.Random(0)
    texts = []
    for _ in range(60):
        for make in GENERATED.values():
            example = make(rng, size=300)
            texts += [example.question, *(text for _, text in example.passages)]
            texts += [part for part in example.thinking if isinstance(part, str)]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    base = folder / f"{kind}-base"
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    out = create(base, folder / f"{kind}-recall")
    trained_recipe(system="").save(out)  # the usual words are most of a tiny model's work
    return out
