"""The processor in both runners' hands against a model that works out each row from nothing.

Requests come, are preempted and come back with an output, move, swap, share steps with others, are
read in pieces, break the rules, and leave without a word.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from recallm_core.backends.vllm.wire import ARGUMENT
from recallm_core.decoding.constraint import ConstraintRules, Mask
from recallm_core.decoding.spec import ConstraintSpec, GrammarSpec
from recallm_core.serving import slot_tokens

SLOTS, MOST_IDS = 5, 4000
MACHINE = settings(max_examples=10, stateful_step_count=20, deadline=None)


@dataclass(eq=False)
class Asked:
    """A request, and what the naive model needs to know of it."""

    prompt: list[int]
    spec: ConstraintSpec | None
    lost: bool = False  # its rules can't be built
    bare: bool = False  # the first runner knows no prompt: it came as embeddings
    output: list[int] = field(default_factory=list)

    @property
    def params(self) -> Any:
        given = None if self.spec is None else {ARGUMENT: self.spec.to_json()}
        return SimpleNamespace(extra_args=given)


class Naive:
    """Requests of every kind, and the row that each should get."""

    def __init__(self, kit: Any) -> None:
        self.kit = kit
        self.prompts = [
            *(kit.prepared(kind) for kind in ("trained", "prompted")),
            kit.prepared("trained", prior="sentences"),
            kit.prepared("trained", output=kit.RULES),
            kit.prepared("trained", max_thinking_tokens=6, max_span_tokens=3),
        ]
        self.width = self.prompts[0].spec.vocab_size + 3

    def request(self, source: random.Random) -> Asked:
        prompt = source.choice(self.prompts)
        ids, spec = prompt.token_ids.tolist(), prompt.spec
        kind = source.choice(["good"] * 8 + ["free", "free", "other", "wide", "broken", "bare"])
        if kind == "free":
            return Asked(ids, None)
        if kind == "other":
            return Asked(ids[:-1], spec)
        if kind == "wide":
            return Asked(ids, replace(spec, vocab_size=self.width + 1), lost=True)
        if kind == "broken":
            return Asked(ids, replace(spec, grammar=GrammarSpec(answer="start: (")), lost=True)
        return Asked(ids, spec, bare=kind == "bare")

    def mask(self, asked: Asked, prompt: list[int]) -> Mask | None:
        spec = asked.spec
        if spec is None:
            return None
        if asked.lost:
            return Mask(only=np.array(spec.eos[:1]))
        engine = self.kit.engines(spec) if spec.grammar else None
        state = ConstraintRules.from_spec(spec, prompt, engine).start()
        for token in asked.output:
            if not 0 <= token < spec.vocab_size or not state.mask().allows(token):
                return None
            state.consume(token)
        return state.mask()

    def check(
        self, asked: Asked, prompt: list[int], before: torch.Tensor, after: torch.Tensor
    ) -> None:
        mask = self.mask(asked, prompt)
        size = self.width if asked.spec is None or asked.lost else asked.spec.vocab_size
        assert torch.equal(after, self.kit.expected_row(before, mask, size))

    def sampled(self, asked: Asked, row: torch.Tensor, source: random.Random) -> int:
        """A token, with a liking for marks; now and then one that isn't legal."""
        spec = asked.spec
        if spec is not None and source.random() < 0.4:
            marks = [tag.ids[0] for tag in spec.tags] + [spec.eos[0]]
            legal = [i for i in marks if torch.isfinite(row[i])]
            if legal:
                return source.choice(legal)
        legal = torch.isfinite(row).nonzero().flatten().tolist()
        if not legal or source.random() < 0.02:
            return source.randrange(self.width)
        return int(source.choice(legal))


class Runner(RuleBasedStateMachine):
    """A scheduler; each step is drawn from one seed."""

    def __init__(self, naive: Naive, module: Any) -> None:
        super().__init__()
        self.naive = naive
        self.source = random.Random()
        model = SimpleNamespace(tokenizer="folder", get_vocab_size=lambda: naive.width)
        self.config = SimpleNamespace(speculative_config=None, model_config=model)
        self.module = module
        self.preempted: list[Asked] = []

    def some(self, what: list[Any], share: float) -> list[Any]:
        return [each for each in what if self.source.random() < share]

    def incoming(self, room: int) -> list[Asked]:
        """New requests, and preempted ones with what they had written."""
        found = []
        for _ in range(self.source.randint(0, room)):
            if self.preempted and self.source.random() < 0.5:
                asked = self.preempted.pop()
                asked.output = list(asked.output)
            else:
                asked = self.naive.request(self.source)
            found.append(asked)
        return found

    def leave(self, asked: Asked) -> None:
        if self.source.random() < 0.5:
            self.preempted.append(asked)

    def logits(self, rows: int) -> torch.Tensor:
        found = torch.randn(rows, self.naive.width)
        if self.source.random() < 0.1:
            found[self.source.randrange(rows)] = -torch.inf  # others forbade everything
        return found

    @rule(seed=st.integers(0, 2**32))
    def step(self, seed: int) -> None:
        self.source.seed(seed)
        torch.manual_seed(seed)
        self.run_step()

    def run_step(self) -> None:
        raise NotImplementedError


class First(Runner):
    """Rows in a dense batch; changes are told, outputs are live lists."""

    def __init__(self, naive: Naive, module: Any) -> None:
        super().__init__(naive, module)
        self.processor = module.RecallProcessor(self.config, torch.device("cpu"), False)
        self.rows: list[Asked | None] = []

    def run_step(self) -> None:
        self.processor.update_state(self.changed())
        rows = [each for each in self.rows if each is not None]
        if not rows:
            return
        before = self.logits(len(rows))
        after = self.processor.apply(before.clone())
        for index, asked in enumerate(rows):
            self.naive.check(asked, [] if asked.bare else asked.prompt, before[index], after[index])
            if asked.output or self.source.random() < 0.7:  # else its prompt is still being read
                asked.output.append(self.naive.sampled(asked, after[index], self.source))

    def changed(self) -> Any:
        removed = self.some(list(range(len(self.rows))), 0.2)
        for index in removed:
            self.leave(self.rows[index])
            self.rows[index] = None
        added = []
        for asked in self.incoming(SLOTS - len(self.rows) + len(removed)):
            index = removed.pop(0) if removed else len(self.rows)
            self.rows[index : index + 1] = [asked]
            prompt = None if asked.bare else asked.prompt
            added.append((index, asked.params, prompt, asked.output))
        moved = self.condensed() + self.swapped()
        if not removed and not added and not moved:
            return None
        return SimpleNamespace(removed=removed[::-1], added=added, moved=moved)

    def condensed(self) -> list[tuple[int, int, bool]]:
        """The last rows move into holes."""
        moved = []
        while None in self.rows:
            last = self.rows.pop()
            if last is not None:
                hole = self.rows.index(None)
                self.rows[hole] = last
                moved.append((len(self.rows), hole, False))
        return moved

    def swapped(self) -> list[tuple[int, int, bool]]:
        if len(self.rows) < 2 or self.source.random() < 0.6:
            return []
        one, other = self.source.sample(range(len(self.rows)), 2)
        self.rows[one], self.rows[other] = self.rows[other], self.rows[one]
        return [(one, other, True)]


class OnDevice:
    """A buffer that can't be looked at while the forward pass runs."""

    def __init__(self, *shape: int) -> None:
        self._values = torch.zeros(shape, dtype=torch.int32)
        self.busy = False

    @property
    def gpu(self) -> torch.Tensor:
        assert not self.busy, "the host would wait for the forward pass"
        return self._values


class LateDown:
    """Copies of a device that is busy: begun in order, there only once they were waited for."""

    def __init__(self, device: torch.device) -> None:
        self.begun: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.marked = 0

    def begin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.begun.append((torch.full_like(tensor, -7), tensor.clone()))
        return self.begun[-1][0]

    def mark(self) -> None:
        self.marked = len(self.begun)

    def finish(self) -> None:
        for found, value in self.begun[: self.marked]:
            found.copy_(value)
        del self.begun[: self.marked]
        self.marked = 0


class Second(Runner):
    """Slots that are used again without notice; all ids in buffers of the device."""

    def __init__(self, naive: Naive, module: Any) -> None:
        super().__init__(naive, module)
        self.ids, self.total = OnDevice(SLOTS, MOST_IDS), OnDevice(SLOTS)
        self.prompt_len, self.prefill_len = np.zeros(SLOTS, np.int32), np.zeros(SLOTS, np.int32)
        states = SimpleNamespace(
            device=torch.device("cpu"),
            max_num_reqs=SLOTS,
            vocab_size=naive.width,
            all_token_ids=self.ids,
            total_len=self.total,
            prompt_len=SimpleNamespace(np=self.prompt_len),
            prefill_len=SimpleNamespace(np=self.prefill_len),
        )
        self.processor = module.RecallProcessor(self.config, states)
        self.free = list(range(SLOTS))
        self.active: dict[int, Asked] = {}
        self.read: dict[int, int] = {}
        self.wanted: dict[int, bool] = {}

    def run_step(self) -> None:
        for slot in self.some(list(self.active), 0.15):
            self.leave(self.active.pop(slot))
            self.free.append(slot)
        for asked in self.incoming(len(self.free)):
            self.add(self.free.pop(), asked)
        self.processor.apply_staged_writes()
        slots = self.some(list(self.active), 0.7)
        self.source.shuffle(slots)
        if not slots:
            return
        for slot in slots:
            self.advance(slot)
        before = self.logits(len(slots))
        after = self.applied(before, slots)
        for row, slot in enumerate(slots):
            self.settle(slot, before[row], after[row])

    def add(self, slot: int, asked: Asked) -> None:
        ids = asked.prompt + asked.output
        self.ids.gpu[slot, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        self.total.gpu[slot] = self.prefill_len[slot] = len(ids)
        self.prompt_len[slot] = len(asked.prompt)
        self.active[slot], self.read[slot] = asked, 0
        self.wanted[slot] = self.processor.add_request(slot, asked.params)
        assert self.wanted[slot] == (asked.spec is not None)

    def advance(self, slot: int) -> None:
        """The forward pass reads a piece of the prompt, or the newest token."""
        left = int(self.total.gpu[slot]) - self.read[slot]
        self.read[slot] += left if self.source.random() < 0.6 else self.source.randint(1, left)

    def applied(self, before: torch.Tensor, slots: list[int]) -> torch.Tensor:
        if not any(self.wanted[slot] for slot in slots):
            return before  # the runner doesn't call processors that nobody needs
        lengths = [self.read[slot] for slot in slots] + [0] * self.source.randint(0, 2)
        ctx = SimpleNamespace(
            idx_mapping_np=np.array(slots), seq_lens_upper_bound_np=np.array(lengths, np.int32)
        )
        self.ids.busy = self.total.busy = True
        with self.naive.kit.NoWaiting():
            after: torch.Tensor = self.processor.apply(before.clone(), ctx)
        self.ids.busy = self.total.busy = False
        return after

    def settle(self, slot: int, before: torch.Tensor, after: torch.Tensor) -> None:
        """The row is checked, and a token sampled where the prompt has been read."""
        asked = self.active[slot]
        if self.read[slot] < self.prefill_len[slot]:
            assert torch.equal(before, after)
            return
        self.naive.check(asked, asked.prompt, before, after)
        asked.output.append(self.naive.sampled(asked, after, self.source))
        self.ids.gpu[slot, self.read[slot]] = asked.output[-1]
        self.total.gpu[slot] += 1


@pytest.mark.parametrize("runner", [First, Second])
def test_each_row_is_what_its_request_alone_would_get(
    runner: type[Runner], kit: Any, vllm_processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_tokens, "HostCopies", LateDown)
    naive = Naive(kit)
    run_state_machine_as_test(lambda: runner(naive, vllm_processor), settings=MACHINE)
