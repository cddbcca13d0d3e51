from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from recallm_core.evidence import reader as readers
from recallm_core.evidence.array_encoder import ArrayEncoder, _gelu, shapes
from recallm_core.evidence.reader import BUILT_IN, EvidenceReader, read_config

TEXT = "The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros. Ask Ines at the pier. "


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> EvidenceReader:
    monkeypatch.setattr(readers, "torch_is_loaded", lambda: False)
    return EvidenceReader()


def test_without_torch_a_reader_reads_the_same(
    plain: EvidenceReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "torch_is_loaded", lambda: True)
    monkeypatch.setattr(readers, "computes_in_16_bits", lambda: False)
    reader = EvidenceReader()
    texts, question = [TEXT, TEXT * 3], "What does a ticket cost?"
    windows = reader.windows(texts)
    assert isinstance(plain._model, ArrayEncoder)
    for one, other in zip(
        reader.read(question, windows, ["Ferry", None]),
        plain.read(question, windows, ["Ferry", None]),
        strict=True,
    ):
        for name in ("start", "end", "evidence"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=2e-3)


def test_a_reader_is_no_reason_to_load_torch() -> None:
    script = (
        "import sys; from recallm_core.evidence.reader import EvidenceReader as Reader; "
        "reader = Reader(); reader.read('Who?', reader.windows(['Ines is at the pier.']), [None]); "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_it_is_made_of_what_the_file_holds() -> None:
    """The names and shapes are BERT's, as transformers has them."""
    from transformers import BertConfig, BertForTokenClassification

    config = read_config(BUILT_IN / "config.json")
    with torch.device("meta"):
        model = BertForTokenClassification(BertConfig(**config, num_labels=3))
    theirs = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes(config) == theirs


def test_the_activation_is_exact_to_32_bits() -> None:
    values = np.linspace(-12, 12, 4001, dtype=np.float32)
    exact = [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in values.tolist()]
    np.testing.assert_allclose(_gelu(values), exact, atol=1e-6)


def test_damaged_weights_are_refused_without_torch_too(
    plain: EvidenceReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(BUILT_IN / "config.json") | {"num_hidden_layers": 7}
    with pytest.raises(readers.CheckpointError, match=r"no usable bert\.encoder\.layer\.6"):
        readers._array_model(config, BUILT_IN / "model.safetensors")
