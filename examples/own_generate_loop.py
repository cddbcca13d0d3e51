"""The constraint inside your own ``model.generate``: your loop, your model, provable quotes.

The library builds the prompt and checks what comes out; in between, everything is yours: beams,
sampling, an assistant model, other logits processors.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM

from recallm_core import Document, RecallLogitsProcessor, RecaLLM, Recipe
from recallm_core.backends.local.transformers import TransformersBackend
from recallm_core.models import shipped
from recallm_core.tokenization.tokenizer import HFTokenizer

QUESTION = "When is the lift checked?"
DOCUMENTS = [
    Document("The stairs are cleaned weekly. The lift is checked every May.", "house"),
    Document("The library is open from nine to five.", "library"),
]


def main() -> int:
    """Answers a question with two beams, and checks every quote."""
    folder = shipped("recallm-mini")  # or your own checkpoint
    assert folder is not None
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    backend = TransformersBackend(model)  # tells context length and width; it is never asked here
    tokenizer = HFTokenizer.from_folder(folder, eos_ids=backend.eos_ids)
    llm = RecaLLM(tokenizer, backend, Recipe.load(folder) or Recipe(), name=folder.name)

    prompt, sources = llm.prepare([{"role": "user", "content": QUESTION}], DOCUMENTS)
    ids = torch.tensor(prompt.token_ids, dtype=torch.long)[None]
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        logits_processor=[RecallLogitsProcessor(prompt.rules, ids)],
        max_new_tokens=prompt.params.max_new_tokens,
        num_beams=2,
        do_sample=False,
    )
    answer = llm.checked_answer(prompt, sources, output[0, ids.shape[1] :].tolist())

    print(f"> {QUESTION}\n\n{answer.text}\n")
    for citation in answer.citations:
        text = sources[citation.document_id].text
        assert text[citation.start : citation.end] == citation.text
        print(f"  {citation.document_id}[{citation.start}:{citation.end}] {citation.text!r}")
    llm.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
