"""What the evidence reader learns from points at its answers, and a few steps of it learn."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import BertConfig, BertForTokenClassification

from recallm_core.cli.train import main
from recallm_core.errors import CheckpointError, RecallmError
from recallm_core.evidence.reader import EvidenceReader
from recallm_core.models import shipped
from recallm_core.train.reader.base import Base, write_folder
from recallm_core.train.reader.examples import (
    BATCH_TOKENS,
    NearPassages,
    Row,
    RowSource,
    amid,
    batches,
)
from recallm_core.train.reader.train import (
    Masters,
    Round,
    Run,
    _set_dropout,
    export,
    loss_of,
    rate,
    tensors,
    watch,
)
from recallm_core.train.tasks.datasets import Fact, Hops, Pool
from recallm_core.train.tasks.traces import Example

EXPORTED = (shipped("recallm-mini") or Path()).parent / "evidence-reader"
TEXT = (
    "The harbour was built in 1904. The ferry to Skerry leaves at 9:30. A ticket costs 14 euros. "
    "Ann Lee runs the harbour. She lives in Oslo."
)
FACTS = [
    ("When was the harbour built?", "1904"),
    ("When does the ferry leave?", "9:30"),
    ("What does a ticket cost?", "14 euros"),
    ("Who runs the harbour?", "Ann Lee"),
]


def pool() -> Pool:
    facts = tuple(Fact("Skerry", TEXT, q, a, TEXT.index(a)) for q, a in FACTS)
    missing = (Fact("Skerry", TEXT, "Who founded Rome?", "", -1),)
    passages = tuple(
        (f"Page {n}", f"The ferry {n} leaves from pier {n}. It was built by Bo.") for n in range(9)
    )
    sentence = "Ann Lee runs the harbour."
    first, last = TEXT.index(sentence), TEXT.index("She lives in Oslo.")
    at = TEXT.index("Oslo")
    hop = Hops(
        (("Skerry", TEXT), ("Other", "Nothing here. Nothing there.")),
        "Where does she who runs the harbour live?",
        ((0, first, first + len(sentence)), (0, last, len(TEXT))),
        (0, at, at + 4),
    )
    return Pool(facts, missing, (hop,), passages, (), 0)


@pytest.fixture(scope="module")
def source() -> RowSource:
    return RowSource(pool(), Tokenizer.from_file(str(EXPORTED / "tokenizer.json")))


def spelt(source: RowSource, ids: list[int]) -> str:
    return str(source._tokenizer.decode(ids)).replace(" ", "")


def asked_in(source: RowSource, row: Row) -> str:
    """The words of a row's question, which ends where the first mark [SEP] stands."""
    return spelt(source, row.ids[: row.ids.index(source._maker.sep)])


@pytest.mark.parametrize(("question", "answer"), FACTS)
def test_a_fact_row_points_at_its_answer(source: RowSource, question: str, answer: str) -> None:
    fact = Fact("Skerry", TEXT, question, answer, TEXT.index(answer))
    row = next(iter(source.of_fact(fact, random.Random(1))))
    assert spelt(source, row.ids[row.start : row.end + 1]) == answer.casefold().replace(" ", "")
    begin = row.heads[row.evidence]
    after = [*row.heads, len(row.ids)][row.evidence + 1]
    assert begin <= row.start <= row.end < after


@given(st.integers(0, 2**32))
def test_every_drawn_row_is_whole(source: RowSource, seed: int) -> None:
    for row in source.draw(random.Random(seed)):
        assert len(row.ids) == len(row.kinds)
        assert list(row.heads) == sorted(row.heads)
        assert 0 < row.heads[0] <= row.heads[-1] < len(row.ids) - 1
        assert -1 <= row.evidence < len(row.heads)
        inside = range(row.heads[0], len(row.ids) - 1)
        assert (row.start, row.end) in ((0, 0), (-1, -1)) or row.start in inside
        assert row.start <= row.end
        assert row.evidence >= 0 or row.start == 0


def test_the_first_hop_has_evidence_and_no_answer_and_the_second_both(source: RowSource) -> None:
    hop = pool().hops[0]
    example = Example(hop.passages, hop.question, hop.evidence, hop.answer, "hops")
    rows = [row for row in source.of_example(example, random.Random(0)) if row.evidence >= 0]
    first, second = rows
    assert (first.start, first.end) == (-1, -1)
    assert spelt(source, second.ids[second.start : second.end + 1]) == "oslo"
    assert len(second.ids) > len(first.ids)  # it reads what was recalled, too


def test_a_fact_is_asked_again_after_its_evidence_was_recalled(source: RowSource) -> None:
    fact = Fact("Skerry", TEXT, *FACTS[1], TEXT.index("9:30"))
    drawn = [next(iter(source.of_fact(fact, random.Random(n)))) for n in range(200)]
    told = [row for row in drawn if spelt(source, row.ids).count("9:30") == 2]
    assert 0 < len(told) < 80
    for row in told:
        assert spelt(source, row.ids[row.start : row.end + 1]) == "9:30"
        assert row.start > row.heads[0]  # in the window, not in what was recalled


def test_a_question_about_another_thing_is_not_answered_where_it_nearly_is() -> None:
    text = "In 1904 the harbour of Skerry was built. Its ferry leaves at 9:30."
    other = "Some say that Rome is old, that Bergen rains and Paris waits."
    facts = (
        Fact("", text, "When was the harbour of Skerry built?", "1904", text.index("1904")),
        Fact("", other, "Which city is old?", "Rome", other.index("Rome")),
    )
    drawn = RowSource(
        Pool(facts, pool().missing, pool().hops, pool().passages, (), 0),
        Tokenizer.from_file(str(EXPORTED / "tokenizer.json")),
    )
    rng = random.Random(1)
    rows = [row for _ in range(400) for row in drawn.draw(rng)]
    asked = [(spelt(drawn, row.ids), row) for row in rows]
    near = [
        row
        for words, row in asked
        if "harbourof" in asked_in(drawn, row)
        if text[:20].casefold().replace(" ", "") in words
    ]
    right = [row for row in near if "skerry" in asked_in(drawn, row)]
    assert right
    assert len(near) > len(right)
    for row in near:
        assert (row.evidence >= 0) == (row in right)
        assert (row.start > 0) == (row in right)


def test_an_exported_reader_is_a_base_again(tmp_path: Path) -> None:
    base = Base(EXPORTED, is_reader=True)
    model = base.model()
    write_folder(dict(model.named_parameters()), base.config(), base.tokenizer(), tmp_path)
    again = Base(tmp_path, is_reader=True).model()
    for (name, was), value in zip(model.named_parameters(), again.parameters(), strict=True):
        most = was.float().abs().amax(-1, keepdim=True) / 60  # 8 bits a row, and 16 twice
        assert ((was.float() - value.float()).abs() <= most).all(), name
        assert was.requires_grad == value.requires_grad == ("word_embeddings" not in name)


def test_a_folder_of_something_else_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="teacher's folder"):
        Base(tmp_path).model()
    with pytest.raises(CheckpointError, match="config"):
        Base(tmp_path, is_reader=True).model()


def test_a_few_steps_learn(source: RowSource) -> None:
    torch.manual_seed(0)
    vocabulary = source._tokenizer.get_vocab_size()
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForTokenClassification(config).to(torch.bfloat16).train()
    masters = Masters(model, 3e-3)
    rows = [row for fact in pool().facts for row in source.of_fact(fact, random.Random(3))]
    losses = []
    for step in range(1, 121):
        batch = tensors(rows)
        total, parts = loss_of(model(**batch).logits, rows, batch["attention_mask"])
        torch.autograd.backward(total)
        masters.step(rate(step, 120, 3e-3))
        losses.append(float(total.detach()))
        assert set(parts) == {"start", "end", "evidence"}
    assert losses[-1] < losses[0] / 3
    seen = watch(model, rows)
    assert seen["evidence"] > 0.5
    assert model.training


def test_batches_are_no_larger_than_said_and_follow_from_the_seed(source: RowSource) -> None:
    one, two = (batches(source, random.Random(5)) for _ in range(2))
    assert one == two
    for rows in one:
        assert len(rows) == 1 or len(rows) * max(len(r.ids) for r in rows) <= BATCH_TOKENS


def test_rates_rise_and_fall() -> None:
    rates = [rate(step, 100, 1.0) for step in range(1, 101)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < rates[4] > rates[50] > rates[-1] == 0.0


def test_a_run_without_a_checkpoint_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(RecallmError, match="no checkpoint"):
        export(Base(tmp_path), tmp_path / "run", tmp_path / "out")


def test_the_command_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reader", "--out", str(tmp_path)]) == 1
    assert "--teacher" in capsys.readouterr().err
    config = tmp_path / "none.toml"
    config.write_text("[[phases]]\nfrom_step = 0\nbatch_tokens = 9\nsizes = {}\n")
    command = ["reader", "--out", str(tmp_path), "--reader-from", "shipped", "--config"]
    assert main([*command, str(config)]) == 1
    assert "[[reader]]" in capsys.readouterr().err


def tiny_base(folder: Path) -> Base:
    """A reader of one narrow layer."""
    torch.manual_seed(0)
    exported = Base(EXPORTED, is_reader=True)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = exported.config() | sizes | {"intermediate_size": 8}
    model = BertForTokenClassification(BertConfig(**config, num_labels=3))
    write_folder(dict(model.named_parameters()), config, exported.tokenizer(), folder)
    return Base(folder, is_reader=True)


def weights_of(run: Path) -> list[torch.Tensor]:
    state = torch.load(run / "run.pt", map_location="cpu", weights_only=True)
    return list(state["copies"])


def test_a_round_ends_with_the_share_of_where_it_began_also_when_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_TELL_EVERY", "_WATCH_EVERY"):
        monkeypatch.setattr(f"recallm_core.train.reader.train.{name}", 1)
    base, learn = tiny_base(tmp_path / "base"), Run._learn
    started = Masters(base.model(), 1e-2).copies
    Run(base, tmp_path / "plain", [Round(3, 1e-2)], data=False).train()
    ended = weights_of(tmp_path / "plain")

    def stop(run: Run, rows: Sequence[Row], plan: Round) -> dict[str, float]:
        if run._step == 2:
            raise KeyboardInterrupt
        return learn(run, rows, plan)

    averaged = [Round(3, 1e-2, average=0.25)]
    monkeypatch.setattr(Run, "_learn", stop)
    with pytest.raises(KeyboardInterrupt):
        Run(base, tmp_path / "averaged", averaged, data=False).train()
    monkeypatch.setattr(Run, "_learn", learn)
    Run(base, tmp_path / "averaged", averaged, data=False).train()
    for first, last, mean in zip(started, ended, weights_of(tmp_path / "averaged"), strict=True):
        torch.testing.assert_close(mean, 0.25 * first + 0.75 * last)
    assert any((first != last).any() for first, last in zip(started, ended, strict=True))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("name", ["average", "dropout"])
def test_what_is_no_share_is_refused(name: str, share: float) -> None:
    with pytest.raises(RecallmError, match=f"{name} should be a share from 0 to below 1"):
        Round(1, 1e-4, **{name: share})


def test_a_fact_amid_other_passages_has_its_answer_at_the_same_words(source: RowSource) -> None:
    fact = Fact("Skerry", TEXT, *FACTS[1], TEXT.index("9:30"))
    for seed in range(50):
        page = amid(fact, ["Bo is old. Al is not. It rains.", ""], random.Random(seed))
        assert TEXT in page.text
        assert page.text[page.start : page.start + 4] == "9:30"
    assert any(len(amid(fact, ["Bo."], random.Random(n)).text) > len(TEXT) for n in range(3))


def test_passages_near_a_question_are_others_that_share_its_words() -> None:
    near = NearPassages(pool(), count=3).of(pool().facts[1])
    assert near
    assert all("ferry" in text and text != TEXT for _, text in near)


def test_no_passage_that_answers_a_question_is_near_it() -> None:
    """A fact whose answer was swapped has its first passage nearest, and that isn't without one."""
    question, text = "Who built the pier of Skerry?", "The pier of Skerry was built by Bo Olsen."
    fact = Fact("", text, question, "Bo Olsen", text.index("Bo Olsen"))
    swapped = replace(fact, text=text.replace("Bo Olsen", "Cy Young"), answer="Cy Young")
    told = ("Piers", "Bo Olsen built piers. His best is the pier of Skerry.")
    others = tuple((f"{n}", f"Pier {n} of Skerry was built of stone.") for n in range(9))
    near = NearPassages(Pool((fact, swapped), (), (), (told, *others), (), 0))
    for asked in (fact, swapped, replace(fact, text="A page with it amid others.")):
        assert {title for title, _ in near.of(asked)} <= {f"{n}" for n in range(9)}
        assert len(near.of(asked)) == 8


def test_a_round_without_dropout_draws_none() -> None:
    model = Base(EXPORTED, is_reader=True).model().train()
    parts = [part for part in model.modules() if isinstance(part, torch.nn.Dropout)]
    for share in (0.0, 0.1):
        _set_dropout(model, share)
        assert {part.p for part in parts} == {share}


def test_no_window_without_the_answer_shows_it(source: RowSource) -> None:
    """Whatever else is read beside a fact, where the answer isn't said to stand, it doesn't."""
    for seed in range(200):
        fact = Fact("Skerry", TEXT, *FACTS[1], TEXT.index("9:30"))
        for row in source.of_fact(fact, random.Random(seed)):
            text = spelt(source, row.ids[row.heads[0] :])
            assert (row.start > 0) == ("9:30" in text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_short_run_learns_in_two_rounds_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two layers of the shipped reader under fresh outputs, on generated tasks alone."""
    monkeypatch.setattr("recallm_core.train.reader.train._TELL_EVERY", 10)
    base, kept = Base(tmp_path / "base", is_reader=True), Base(EXPORTED, is_reader=True)
    torch.manual_seed(0)
    config = kept.config() | {"num_hidden_layers": 2}
    fresh = BertForTokenClassification(BertConfig(**config, num_labels=3))
    whole = kept.model().state_dict()
    known = {name: whole[name] for name in fresh.state_dict() if not name.startswith("classifier")}
    fresh.load_state_dict(known, strict=False)
    write_folder(dict(fresh.named_parameters()), config, kept.tokenizer(), base.folder)
    rounds = (Round(30, 1e-3), Round(30, 5e-4, seed=2))
    run = Run(base, tmp_path / "run", rounds, data=False)
    run.train()
    again = Run(base, tmp_path / "run", rounds, data=False)
    again.train()  # nothing is left to do
    lines = (tmp_path / "run" / "curve.jsonl").read_text().splitlines()
    points = [json.loads(line) for line in lines]
    assert [(p["round"], p["step"]) for p in points] == [
        (number, step) for number in (1, 2) for step in (10, 20, 30)
    ]
    losses = [p["start"] + p["end"] + p["evidence"] for p in points]
    assert losses[-1] < 0.9 * losses[0]
    export(base, tmp_path / "run", tmp_path / "out")
    EvidenceReader(tmp_path / "out").read("Who?", [], [])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_command_trains_model_and_reader(tmp_path: Path) -> None:
    command = ["mini", "--config", "mini-smoke", "--out", str(tmp_path), "--workers", "0"]
    assert main([*command, "--reader-from", "shipped"]) == 0
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["plain"] < 0.8 * curve[0]["plain"]
    assert curve[-1]["copy_head"] < curve[0]["copy_head"]
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert (tmp_path / "evidence-reader" / "model.safetensors").is_file()
    assert (tmp_path / "reader" / "curve.jsonl").is_file()
