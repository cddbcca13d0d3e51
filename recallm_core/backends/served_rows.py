"""One request inside a model server's worker: what is legal, from its prompt and output alone.

A worker may forget a request and meet it again, move it, or show it to several ranks. So nothing is
advanced by being called: the state is that of the output that is given, followed from the last one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recallm_core.backends.wire import ARGUMENT
from recallm_core.constraint import Constraint, ConstraintRules, Mask
from recallm_core.constraint_spec import ConstraintSpec
from recallm_core.errors import ConstraintError, RecallmError
from recallm_core.grammar import GrammarEngine
from recallm_core.tokenizer import HFTokenizer

Engines = Callable[[ConstraintSpec], GrammarEngine]


def read_spec(arguments: object) -> ConstraintSpec | None:
    """Returns the constraint among a request's extra arguments; None where there is none.

    Raises:
        ValueError: It isn't a constraint spec of this version.
    """
    if not isinstance(arguments, dict) or arguments.get(ARGUMENT) is None:
        return None
    try:
        return ConstraintSpec.from_json(arguments[ARGUMENT])
    except ConstraintError as error:
        raise ValueError(f"the argument {ARGUMENT!r} can't be used: {error}") from error


class ServedRow:
    """The masks of one request; never raises after it was made.

    Args:
        spec: The request's constraint.
        engines: Gives the grammar engine of the served model, where a spec needs one.
    """

    def __init__(self, spec: ConstraintSpec, engines: Engines) -> None:
        self.spec = spec
        self._engines = engines
        self._begun = False
        self._rules: ConstraintRules | None = None
        self._state: Constraint | None = None
        self._seen: list[int] = []

    def mask(self, prompt: Sequence[int], output: Sequence[int], width: int) -> Mask | None:
        """Returns what may follow an output; None once the output broke the rules.

        A request whose rules can't be built ends at once. A prompt that isn't the spec's keeps
        recall closed (``ConstraintRules.from_spec``). The client notices each of the three.

        Args:
            prompt: The prompt that the worker has; the same at each call.
            output: All tokens generated so far.
            width: Of the logits.
        """
        if not self._begun:
            self._begin(prompt, width)
        if self._rules is None:
            return Mask(only=np.array([i for i in self.spec.eos if i < width][:1] or [0]))
        return self._follow(list(output))

    def _begin(self, prompt: Sequence[int], width: int) -> None:
        self._begun = True
        if self.spec.vocab_size > width:
            return
        try:
            engine = None if self.spec.grammar is None else self._engines(self.spec)
            self._rules = ConstraintRules.from_spec(self.spec, prompt, engine)
        except RecallmError:
            return
        self._state = self._rules.start()

    def _follow(self, output: list[int]) -> Mask | None:
        """Moves from the output seen last to this one."""
        assert self._rules is not None
        if self._state is None or output[: len(self._seen)] != self._seen:
            self._state, self._seen = self._rules.start(), []
        for token in output[len(self._seen) :]:
            if not 0 <= token < self.spec.vocab_size or not self._state.mask().allows(token):
                return None  # the state stays at the last legal token
            self._state.consume(token)
            self._seen.append(token)
        return self._state.mask()


class FolderEngines:
    """Grammar engines over the tokenizer of a model's folder, made when first needed.

    Args:
        folder: The served model's folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._made: dict[tuple[Any, ...], GrammarEngine] = {}
        self._lock = threading.Lock()

    def __call__(self, spec: ConstraintSpec) -> GrammarEngine:
        """Returns the engine for a spec's vocabulary and ends.

        Raises:
            RecallmError: The folder has no usable tokenizer.
        """
        key = (spec.eos, spec.vocab_size)
        with self._lock:
            if key not in self._made:
                tokenizer = HFTokenizer.from_folder(self._folder, eos_ids=spec.eos)
                self._made[key] = GrammarEngine(tokenizer, vocab_size=spec.vocab_size)
            return self._made[key]
