"""What the tests of the LangChain package share: scripted models, and the check of every quote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage

from langchain_recallm import ChatRecaLLM, message_citations
from recallm_core.testing import scripted_llm

FERRY = Document(
    id="ferry",
    page_content="The ferry leaves Port Hallow at 9:30. A ticket costs 14 euros.",
    metadata={"source": "https://example.org/ferry", "title": "Ferry"},
)
LEAVE = Document(
    id="leave", page_content="Parental leave is 16 weeks, paid in full. \U0001f476\r\nAsk Ines."
)
SCRIPT = (
    "I look. <|start_recall|>The ferry leaves Port Hallow at 9:30<|end_recall|> and "
    "<|start_recall|>A ticket costs 14 euros<|end_recall|>, then "
    "<|start_recall|>Parental leave is 16 weeks<|end_recall|>.</think>"
    "Answer: It leaves at <|start_recall|>9:30<|end_recall|>, for "
    "<|start_recall|>14 euros<|end_recall|>; leave is 16 weeks."
)


class Kit:
    """Documents, a script that quotes them, and checks."""

    ferry, leave, script = FERRY, LEAVE, SCRIPT
    documents = (FERRY, LEAVE)

    def chat(self, script: Any = SCRIPT, **settings: Any) -> ChatRecaLLM:
        backend = {k: settings.pop(k) for k in ("window", "tokens_per_chunk") if k in settings}
        return ChatRecaLLM(model=scripted_llm(script, **backend), **settings)

    def check(
        self, message: BaseMessage, documents: Sequence[Document], *, least: int = 1
    ) -> list[dict[str, Any]]:
        """Every quote of a message is the slice that it claims to be; returns the citations."""
        citations = message_citations(message)
        assert len(citations) >= least
        for citation in citations:
            extras = citation["extras"]
            self.check_range(extras, citation["cited_text"], documents)
            assert 0 <= citation["start_index"] < citation["end_index"] <= len(message.text)
            for place in extras.get("occurrences", ()):
                self.check_range(place, citation["cited_text"], documents)
        for block in message.content_blocks:
            for recall in block.get("extras", {}).get("recalls", ()):
                self.check_range(recall, recall["cited_text"], documents)
                said = block["reasoning"][recall["start_index"] : recall["end_index"]]
                assert said == recall["cited_text"]
        return citations

    def check_range(self, place: dict[str, Any], text: str, documents: Sequence[Document]) -> None:
        document = documents[place["document_index"]]
        start, end = place["start_char_index"], place["end_char_index"]
        assert document.page_content[start:end] == text


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Version 3 streams and loading are in beta in langchain-core, which warns at first use."""
    beta = "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(beta))


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers with a real tokenizer, driven by text marks."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_end|>", "<think>", "</think>"],
    )
    bpe.train_from_iterator([FERRY.page_content, LEAVE.page_content], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
