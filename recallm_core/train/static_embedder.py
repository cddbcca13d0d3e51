"""Trains the static embedding table that ships with the library: one vector per word piece.

A text's vector is the sum of its pieces' rows, normalised. The rows are fitted so that texts look
alike to the table where they look alike to the teacher (all-MiniLM-L6-v2, Apache-2.0), and so that
a question lies near the passage that answers it. Run it as::

    python -m recallm_core.train.static_embedder --teacher FOLDER --data FOLDER --out FOLDER

``--teacher`` is a folder with the teacher's ``model.safetensors``, ``tokenizer.json`` and
``config.json``; their hashes are checked before anything is loaded.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from torch.nn.functional import cross_entropy, normalize

from recallm_core.errors import CheckpointError

Floats = npt.NDArray[np.float32]

TEACHER_HASHES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
SEED = 20251107
DIM = 256
WORDS = 60  # of a passage, so that the teacher reads about 75 pieces


@dataclass(frozen=True, slots=True)
class TrainingText:
    """What the teacher reads, and (question, passage) pairs that belong together."""

    passages: tuple[str, ...]
    questions: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def verify_teacher(folder: Path) -> None:
    """Raises unless the teacher's files are the pinned ones.

    Raises:
        CheckpointError: A file is missing or has another SHA-256.
    """
    for name, expected in TEACHER_HASHES.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"the teacher's folder {folder} has no {name}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != expected:
            raise CheckpointError(
                f"{name} of the teacher has SHA-256 {digest}, expected {expected}; "
                "get all-MiniLM-L6-v2 at revision 1110a243"
            )


class Teacher:
    """The sentence encoder that the table imitates: mean-pooled, normalised, 384 numbers."""

    def __init__(self, folder: Path) -> None:
        verify_teacher(folder)
        from tokenizers import Tokenizer
        from transformers import BertModel

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        # bfloat16 gives the same vectors to a cosine of 1.000 at twice the speed.
        self._model = BertModel.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def encode(self, texts: Sequence[str], *, label: str) -> Floats:
        """Returns one normalised vector per text."""
        rows = [encoding.ids[:128] for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        vectors = np.zeros((len(rows), 384), np.float32)
        for at in range(0, len(order), 64):
            batch = order[at : at + 64]
            vectors[batch] = self._encode_batch([rows[n] for n in batch])
            if at % 2048 == 0:
                _say(f"{label}: {at:,} of {len(rows):,}")
        return vectors

    def _encode_batch(self, rows: Sequence[Sequence[int]]) -> Floats:
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row)
        mask = (torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])).long()
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        pooled = (hidden * mask[..., None]).sum(1)
        vectors: Floats = normalize(pooled, dim=1).numpy()
        return vectors


def training_text(data: Path, generator: random.Random) -> TrainingText:
    """Returns the training text: nothing from an evaluation file."""
    squad = [(row["question"], row["context"]) for row in _rows(data, "squad1_train_sample")]
    natural = [
        (row["question"], row["gold"]["title"] + ". " + row["gold"]["text"])
        for row in _rows(data, "nq_oracle_train")
    ]
    wiki = [f"{row['title']}. {row['text']}" for row in _rows(data, "wiki_passages")]
    manuals = [row["text"] for row in _rows(data, "docs_18f_handbook")]
    # Only PEPs with an even number: the others are left to evaluation.
    peps = [row["text"] for n, row in enumerate(_rows(data, "docs_peps")) if n % 2 == 0]
    hops = [
        paragraph["title"] + ". " + paragraph["text"]
        for row in _rows(data, "musique_train_sample")
        for paragraph in row["paragraphs"]
    ]
    hops += [
        paragraph["title"] + ". " + " ".join(paragraph["sentences"])
        for row in _rows(data, "hotpotqa_train_sample")
        for paragraph in row["paragraphs"]
    ]
    contexts = sorted({context for _, context in squad + natural})
    counts = ((wiki, 7000), (peps, 3500), (manuals, 1000), (hops, 1500), (contexts, 3000))
    passages = [window for texts, n in counts for window in _windows(texts, n, generator)]
    questions = [question for question, _ in squad[:3500] + natural]
    pairs = squad + natural + list(_cloze_pairs(wiki + peps + manuals, 12000, generator))
    return TrainingText(tuple(passages), tuple(questions), tuple(pairs))


def _rows(data: Path, name: str) -> list[dict[str, Any]]:
    path = data / f"{name}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _windows(texts: Sequence[str], count: int, generator: random.Random) -> Iterator[str]:
    """Yields ``count`` random stretches of at most ``WORDS`` words."""
    for text in generator.choices(texts, weights=[len(text) for text in texts], k=count):
        words = text.split()
        start = generator.randrange(max(1, len(words) - WORDS + 1))
        yield " ".join(words[start : start + WORDS])


def _cloze_pairs(
    texts: Sequence[str], count: int, generator: random.Random
) -> Iterator[tuple[str, str]]:
    """Yields pairs of a dozen words and the text around them, mostly without those words."""
    for window in _windows(texts, count, generator):
        words = window.split()
        start = generator.randrange(max(1, len(words) - 12))
        part, rest = words[start : start + 12], words[:start] + words[start + 12 :]
        yield " ".join(part), " ".join(words if generator.random() < 0.3 else rest)


class Table:
    """The rows being fitted, over the teacher's word pieces."""

    def __init__(self, tokenizer: Any, start: Floats) -> None:
        self._tokenizer = tokenizer
        self.rows = torch.nn.Parameter(torch.from_numpy(start))

    def pieces(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Returns the piece ids of each text, without special tokens."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [torch.tensor(encoding.ids[:256] or [100]) for encoding in encoded]

    def vectors(self, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns the normalised sum of the rows of each text."""
        offsets = torch.tensor([0, *(len(ids) for ids in pieces)]).cumsum(0)[:-1]
        bag = torch.nn.functional.embedding_bag(
            torch.cat(list(pieces)), self.rows, offsets, mode="sum"
        )
        return normalize(bag, dim=1)


def first_rows(teacher: Teacher, projection: Floats) -> Floats:
    """Returns the rows to start from: the teacher's vector of each piece, rare pieces heavier."""
    vocabulary = teacher.tokenizer.get_vocab()
    pieces = [piece.removeprefix("##") for piece in sorted(vocabulary, key=vocabulary.__getitem__)]
    vectors = teacher.encode(pieces, label="pieces")
    # The vocabulary is sorted by frequency, so Zipf's law gives a smooth inverse frequency.
    frequency = 1.0 / np.arange(2, len(pieces) + 2)
    weight = 1e-3 / (1e-3 + frequency / frequency.sum())
    rows: Floats = (vectors @ projection * weight[:, None]).astype(np.float32)
    return rows


def fit(
    table: Table,
    text: TrainingText,
    targets: tuple[Floats, Floats],
    *,
    steps: int,
    projection: Floats,
) -> None:
    """Fits the rows: imitate the teacher's vectors and similarities, find the right passage."""
    known = [*text.passages, *text.questions]
    teacher = torch.from_numpy(np.concatenate(targets))
    goals = normalize(teacher @ torch.from_numpy(projection), dim=1)
    pieces = table.pieces(known)
    questions = table.pieces([question for question, _ in text.pairs])
    contexts = table.pieces([context for _, context in text.pairs])
    optimizer = torch.optim.Adam([table.rows], lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    generator = np.random.default_rng(SEED)
    for step in range(steps):
        picked = generator.choice(len(known), 512, replace=False)
        ours = table.vectors([pieces[n] for n in picked])
        imitation = (1 - (ours * goals[picked]).sum(1)).mean()
        similar = teacher[picked]
        relation = ((ours @ ours.T - similar @ similar.T) ** 2).mean()
        sample = generator.choice(len(text.pairs), 384, replace=False)
        question_vectors = table.vectors([questions[n] for n in sample])
        context_vectors = table.vectors([contexts[n] for n in sample])
        retrieval = cross_entropy(
            question_vectors @ context_vectors.T / 0.05, torch.arange(len(sample))
        )
        loss = imitation + 10 * relation + 0.15 * retrieval
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            _say(f"step {step}: {imitation:.3f} {relation:.4f} {retrieval:.3f}")


def write_table(rows: Floats, tokenizer: Any, out: Path) -> None:
    """Writes int8 rows with one scale each, and the tokenizer without pieces that mean nothing."""
    definition = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = definition["model"]["vocab"]
    pieces = [
        piece
        for piece in sorted(vocabulary, key=lambda piece: vocabulary[piece])
        if (not piece.startswith("[") or piece == "[UNK]" or len(piece) == 1)
        and max(piece) < "\u0530"  # of other scripts the teacher knows single characters only
    ]
    old = np.array([vocabulary[piece] for piece in pieces])
    definition["model"]["vocab"] = {piece: n for n, piece in enumerate(pieces)}
    definition["truncation"] = definition["padding"] = definition["post_processor"] = None
    definition["added_tokens"] = []
    scale = np.maximum(np.abs(rows[old]).max(axis=1), 1e-9) / 127.0
    table = np.rint(rows[old] / scale[:, None]).astype(np.int8)
    table[pieces.index("[UNK]")] = 0
    out.mkdir(parents=True, exist_ok=True)
    save_file({"rows": table, "scales": scale.astype(np.float32)}, out / "model.safetensors")
    (out / "tokenizer.json").write_text(json.dumps(definition, ensure_ascii=False), "utf-8")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _teach(teacher: Teacher, text: TrainingText, cache: Path) -> tuple[Floats, Floats]:
    """The teacher's vectors of the training text, kept in a file so that a second run is cheap."""
    digest = hashlib.sha256("\0".join(text.passages + text.questions).encode()).hexdigest()[:16]
    path = cache / f"teacher-{digest}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        passages = teacher.encode(text.passages, label="passages")
        questions = teacher.encode(text.questions, label="questions")
        np.savez(path, passages=passages, questions=questions)
    with np.load(path, allow_pickle=False) as saved:
        return saved["passages"], saved["questions"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the table and writes it; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/static-embedder"))
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    text = training_text(options.data, random.Random(SEED))
    teacher = Teacher(options.teacher)
    targets = _teach(teacher, text, options.cache)
    # Without centring: projected vectors keep the teacher's dot products as well as DIM allows.
    _, _, basis = np.linalg.svd(targets[0][::4], full_matrices=False)
    projection = np.ascontiguousarray(basis[:DIM].T, dtype=np.float32)
    start_path = options.cache / "pieces.npy"
    if not start_path.exists():
        np.save(start_path, first_rows(teacher, projection))
    table = Table(teacher.tokenizer, np.load(start_path, allow_pickle=False))
    fit(table, text, targets, steps=options.steps, projection=projection)
    write_table(table.rows.detach().numpy(), teacher.tokenizer, options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
