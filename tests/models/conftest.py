from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recallm_core.models.writing import copy_beside

CORPUS = [
    "Parental leave is 16 weeks. The service listens on port 8443 in Frankfurt.",
    "The ferry leaves from Port Hallow four times a day; a ticket costs 14 euros.",
    "Quote exactly what the document says, then think step by step before the answer.",
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Base = Callable[..., Path]


def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    backend.train_from_iterator(CORPUS * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


@pytest.fixture
def make_base(tmp_path: Path) -> Base:
    """Writes a tiny random base model of one family, with a real tokenizer."""

    def make(kind: str = "qwen2", *, tied: bool = True, name: str = "base") -> Path:
        import torch
        from transformers import CONFIG_MAPPING, AutoModelForCausalLM

        torch.manual_seed(0)
        tokenizer = tiny_tokenizer()
        config = CONFIG_MAPPING[kind](
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=4096,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = AutoModelForCausalLM.from_config(config)
        folder = tmp_path / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def write_adapter() -> Callable[..., Any]:
    """Saves what peft makes of random adapters and rows; returns the model with them in it."""
    peft = pytest.importorskip("peft", reason="needs the extra grpo")

    def write(checkpoint: Path, folder: Path, *, tied: bool, **settings: Any) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_pretrained(checkpoint)
        size = model.get_input_embeddings().weight.shape[0]
        ids = list(range(size - 4, size))
        tables = {"embed_tokens": ids} if tied else {"embed_tokens": ids, "lm_head": ids}
        options = {"r": 2, "lora_alpha": 6, "target_modules": "all-linear"} | settings
        config = peft.LoraConfig(task_type="CAUSAL_LM", trainable_token_indices=tables, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # old names that peft still uses
            adapted = peft.get_peft_model(model, config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.3)
        adapted.save_pretrained(folder, save_embedding_layers=False)
        copy_beside(checkpoint, folder)
        return adapted.merge_and_unload()

    return write


@pytest.fixture
def parts(
    make_base: Base, write_adapter: Callable[..., Any], tmp_path: Path
) -> tuple[Path, Path, Any]:
    """A base without the recall tokens, an adapter with them, and both as peft merges them."""
    from recallm_core.models.create import create

    base = make_base("llama")
    checkpoint = create(base, tmp_path / "created")
    merged = write_adapter(checkpoint, tmp_path / "adapter", tied=True)
    return base, tmp_path / "adapter", merged
