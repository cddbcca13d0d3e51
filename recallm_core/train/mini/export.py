"""A trained mini as a folder that any Llama backend loads.

The class is Llama with attention biases, not Qwen2: for the latter transformers 5 replaces the
folder's tokenizer by Qwen2's own, with another normaliser and one id more than the weights have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from recallm_core.prompting.recipe import Recipe
from recallm_core.train.mini.model import MiniShape
from recallm_core.train.tasks.traces import (
    ABSTAIN,
    DOC,
    END_RECALL,
    END_THINK,
    EOS,
    PAD,
    QUESTION,
    START_RECALL,
    TEXT,
    THINK,
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|eos|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<think>{% endif %}"
)
ADVICE = (
    "recallm-mini has 4 million weights: it finds and copies short facts in small documents; for "
    "real questions load an instruct model, for instance "
    'RecaLLM.load("Qwen/Qwen3-1.7B", mode="prompted")'
)
_NAMES = {
    "input_norm": "input_layernorm.weight",
    "post_norm": "post_attention_layernorm.weight",
    "q.weight": "self_attn.q_proj.weight",
    "k.weight": "self_attn.k_proj.weight",
    "v.weight": "self_attn.v_proj.weight",
    "q.bias": "self_attn.q_proj.bias",
    "k.bias": "self_attn.k_proj.bias",
    "v.bias": "self_attn.v_proj.bias",
    "o.weight": "self_attn.o_proj.weight",
    "gate.weight": "mlp.gate_proj.weight",
    "up.weight": "mlp.up_proj.weight",
    "down.weight": "mlp.down_proj.weight",
}


def mini_recipe() -> Recipe:
    """Returns how the mini is driven: the prompt that it was trained with."""
    return Recipe(
        mode="trained",
        open=START_RECALL,
        close=END_RECALL,
        think_open=THINK,
        think_close=END_THINK,
        system="",
        document=f"{DOC}{{title}}{TEXT}{{text}}",
        documents_open="",
        documents_close="",
        question=f"{QUESTION}{{question}}",
        answer_prefix="",
        abstain=(ABSTAIN,),
        prior="reader",
        prior_weight=1.0,
        min_support=0.25,
        min_answerable=0.02,
        pack_tokens=3072,
        sampling={
            "temperature": 0.0,
            "max_new_tokens": 512,
            "max_spans": 6,
            "max_span_tokens": 384,  # a long sentence is recalled whole
            "answer_form": "quote",
        },
        advice=ADVICE,
    )


def hf_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the mini's weights to those of LlamaForCausalLM."""
    renamed = {}
    for name, value in weights.items():
        if name == "embed":
            new = "model.embed_tokens.weight"
        elif name == "norm":
            new = "model.norm.weight"
        else:
            _, layer, rest = name.split(".", 2)
            new = f"model.layers.{layer}.{_NAMES[rest]}"
        renamed[new] = value.detach().to("cpu", torch.float16).contiguous()
        if new.endswith("q_proj.bias"):  # Llama has a bias there as well
            renamed[new.replace("q_proj", "o_proj")] = torch.zeros_like(renamed[new])
    return renamed


def hf_config(shape: MiniShape, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns config.json."""
    end, pad = tokenizer.token_to_id(EOS), tokenizer.token_to_id(PAD)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "initializer_range": 0.02,
        "intermediate_size": shape.hidden,
        "max_position_embeddings": shape.context_length,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }


def export(
    weights: dict[str, Tensor], shape: MiniShape, tokenizer: Tokenizer, folder: Path
) -> None:
    """Writes weights, configs, tokenizer and recipe; the model card is written by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(hf_weights(weights), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    end, pad = tokenizer.token_to_id(EOS), tokenizer.token_to_id(PAD)
    generation = {"do_sample": False, "eos_token_id": end, "pad_token_id": pad}
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": shape.context_length,
        "chat_template": CHAT_TEMPLATE,
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, value in (
        ("config.json", hf_config(shape, tokenizer)),
        ("generation_config.json", generation),
        ("tokenizer_config.json", described),
    ):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    mini_recipe().save(folder)
