"""What a prompt's index, boundary and character tables cost, beside tokenizing its passages.

The tables are everything that building a prompt does but for the tokenizer's own work: offsets from
bytes, word and character boundaries, runs, the recall index, the rules. A byte-level BPE is trained
on the text itself. Prose comes from RECALLM_DATA (default ../shared/data), else from this
repository.

Run: python benchmarks/prompt_tables.py [tokens]
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from recallm_core.documents.document import Passage
from recallm_core.prompting.builder import PromptBuilder
from recallm_core.prompting.params import GenerationParams
from recallm_core.prompting.recipe import trained_recipe
from recallm_core.tokenization.tokenizer import HFTokenizer

ROUNDS = 5
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def prose(characters: int) -> str:
    """Returns prose, repeated where there isn't enough."""
    root = Path(__file__).resolve().parent.parent
    data = Path(os.environ.get("RECALLM_DATA", root.parent / "shared" / "data"))
    source = data / "wiki_passages.jsonl.gz"
    if source.is_file():
        with gzip.open(source, "rt", encoding="utf-8") as lines:
            text = "\n\n".join(str(json.loads(line)["text"]) for line in lines)
    else:
        print(f"no {source}; using this repository's own files")
        text = "\n\n".join(p.read_text(encoding="utf-8") for p in sorted(root.rglob("*.py"))[:200])
    return (text * (characters // len(text) + 1))[:characters]


def tokenizer(text: str) -> HFTokenizer:
    """Returns a byte-level BPE in the manner of Qwen2, trained on a text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=16_000, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([text[:1_000_000]], trainer)
    marks = ("<|start_recall|>", "<|end_recall|>", "<think>", "</think>", "<|eos|>")
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    return HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|eos|>"))


def timed(run: Callable[[], Any]) -> float:
    """Returns milliseconds of this thread."""
    start = time.thread_time()
    run()
    return 1000 * (time.thread_time() - start)


def measure(seam: HFTokenizer, pack: list[Passage], prior: str) -> tuple[int, float, float, float]:
    """Tokens, and ms to tokenize, to build the first prompt, and to build the second one."""
    params = GenerationParams(prior=prior)  # type: ignore[arg-type]
    recipe = trained_recipe()
    ask = [{"role": "user", "content": "Where does the river rise?"}]
    again = [{"role": "user", "content": "Who built the bridge?"}]
    pieces = [text for p in pack for text in _pieces(p, recipe.document)]
    times = []
    for _ in range(ROUNDS):
        builder = PromptBuilder(seam, recipe, vocab_size=seam.vocab_size)
        builder.build(ask, (), params)
        alone = timed(lambda: [seam._plain.encode(t, add_special_tokens=False).ids for t in pieces])
        first = timed(lambda b=builder: b.build(ask, pack, params))
        second = timed(lambda b=builder: b.build(again, pack, params))
        times.append((alone, first, second))
    alone, first, second = (median(column) for column in zip(*times, strict=True))
    return len(builder.build(ask, pack, params).token_ids), alone, first, second


def _pieces(passage: Passage, wording: str) -> tuple[str, str, str]:
    """What a passage adds to the prompt, as the tokenizer gets it."""
    return wording, passage.title or "", passage.text


def main() -> None:
    """Prints the table."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 128_000
    text = prose(8 * wanted)
    seam = tokenizer(text)
    share = len(seam.encode_plain(text[:200_000]).ids) / len(text[:200_000])
    text = text[: int(wanted / share)]
    foreign = text.replace("e", "é")
    print("                         tokens  tokenize     build    tables   share  2nd build")
    for name, body, count, prior in (
        ("one document", text, 1, "none"),
        ("200 passages", text, 200, "none"),
        ("200, not ASCII", foreign, 200, "none"),
        ("5,000 passages", text, 5000, "none"),
        ("200, with a prior", text, 200, "sentences"),
    ):
        step = -(-len(body) // count)
        cuts = [body[at : at + step] for at in range(0, len(body), step)]
        pack = [Passage(f"d{n}", 0, len(cut), cut, f"Part {n}") for n, cut in enumerate(cuts)]
        size, alone, first, second = measure(seam, pack, prior)
        row = f"{name:<20}{size:>11,}{alone:>8.1f}ms{first:>8.1f}ms{first - alone:>8.1f}ms"
        print(row + f"{(first - alone) / alone:>8.1%}{second:>9.1f}ms")


if __name__ == "__main__":
    main()
