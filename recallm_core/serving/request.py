"""One request inside a model server's worker: what is legal, from its prompt and output alone.

A worker may forget a request and meet it again, move it, or show it to several ranks. So nothing is
advanced by being called: the state is that of the output that is given, followed from the last one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from recallm_core.backends.vllm.wire import ARGUMENT
from recallm_core.decoding.constraint import Constraint, ConstraintRules, Mask
from recallm_core.decoding.grammar import GrammarEngine
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.errors import ConstraintError, RecallmError
from recallm_core.inputs.model_config import eos_ids
from recallm_core.tokenization.tokenizer import HFTokenizer

Engines = Callable[[ConstraintSpec], GrammarEngine]
Ids = Sequence[int] | NDArray[np.int32]
Binds = Callable[[ConstraintSpec, Ids, GrammarEngine | None], ConstraintRules]

_log = logging.getLogger(__name__)


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


class SharedRules:
    """Specs and their rules, one of each for all requests that are being served.

    The sequences of one prompt come as requests of their own, with the same spec. A spec is bound
    to the one prompt that it was made for, so its rules over that are the same for all of them, and
    so are those over any other prompt, where recall stays closed. Nothing is kept for longer than
    some request holds it.
    """

    def __init__(self) -> None:
        self._specs: WeakValueDictionary[str, ConstraintSpec] = WeakValueDictionary()
        self._rules: WeakValueDictionary[tuple[ConstraintSpec, bool], ConstraintRules]
        self._rules = WeakValueDictionary()

    def read_spec(self, arguments: object) -> ConstraintSpec | None:
        """Returns what ``read_spec`` does.

        Raises:
            ValueError: As there.
        """
        text = arguments.get(ARGUMENT) if isinstance(arguments, dict) else None
        spec = self._specs.get(text) if isinstance(text, str) else None
        if spec is None:
            spec = read_spec(arguments)
            if spec is not None and isinstance(text, str):
                self._specs[text] = spec
        return spec

    def bind(
        self, spec: ConstraintSpec, prompt: Ids, engine: GrammarEngine | None
    ) -> ConstraintRules:
        """Returns what ``ConstraintRules.from_spec`` does; an engine is the same for a spec."""
        ids = np.asarray(prompt, dtype=np.int32)
        key = (spec, spec.is_for(ids))
        rules = self._rules.get(key)
        if rules is None:
            rules = self._rules[key] = ConstraintRules.from_spec(spec, ids, engine)
        return rules


class ServedRow:
    """The masks of one request; never raises after it was made.

    Args:
        spec: The request's constraint.
        engines: Gives the grammar engine of the served model, where a spec needs one.
        binds: Binds the spec to the prompt; requests of the same spec may share what it returns.
    """

    def __init__(
        self,
        spec: ConstraintSpec,
        engines: Engines,
        binds: Binds = ConstraintRules.from_spec,
    ) -> None:
        self.spec = spec
        self._engines = engines
        self._binds = binds
        self._begun = False
        self._rules: ConstraintRules | None = None
        self._state: Constraint | None = None
        self._seen: list[int] = []

    def mask(self, prompt: Ids, output: list[int], width: int) -> Mask | None:
        """Returns what may follow an output; None once the output broke the rules.

        A request whose rules can't be built, or can't be followed, ends at once. A prompt that
        isn't the spec's keeps recall closed (``ConstraintRules.from_spec``). The client notices
        each of these.

        Args:
            prompt: The prompt that the worker has; the same at each call.
            output: All tokens generated so far.
            width: Of the logits.
        """
        try:
            if not self._begun:
                self._begin(prompt, width)
            mask = None if self._rules is None else self._follow(self._rules, output)
            if self._rules is not None and not _leaves_nothing(mask):
                return mask
        except Exception:  # whatever it is: the server goes on with everybody else's requests
            _log.exception("a request ends here, its constraint can't be followed")
            self._rules = None
        return Mask(only=np.array([i for i in self.spec.eos if i < width][:1] or [0]))

    def _begin(self, prompt: Ids, width: int) -> None:
        self._begun = True
        if self.spec.vocab_size > width:
            return
        try:
            self._rules = self._binds(self.spec, prompt, self._engine())
        except RecallmError as error:
            _log.warning("a request ends here, its constraint can't be used: %.300r", error)

    def _engine(self) -> GrammarEngine | None:
        """The engine, once it has compiled the grammar: later that can't go wrong any more."""
        grammar = self.spec.grammar
        if grammar is None:
            return None
        engine = self._engines(self.spec)
        engine.matcher(grammar.text)
        return engine

    def _follow(self, rules: ConstraintRules, output: list[int]) -> Mask | None:
        """Moves from the output seen last to this one."""
        if self._state is None or output[: len(self._seen)] != self._seen:
            self._state, self._seen = rules.start(), []
        try:
            for token in output[len(self._seen) :]:
                self._state.consume(token)
                self._seen.append(token)
        except ConstraintError:  # the state stays at the last legal token
            return None
        return self._state.mask()


def _leaves_nothing(mask: Mask | None) -> bool:
    """Whether no token is legal: a grammar has come to its engine's limits."""
    return mask is not None and mask.only is not None and not mask.only.size


class FolderEngines:
    """Grammar engines over the tokenizer of a model's folder.

    Reading a tokenizer of 150,000 tokens takes seconds, for which no step of everybody's requests
    should wait: it begins here, in a thread that then also compiles the grammars of requests while
    their prompts are read. What an engine allows doesn't depend on when it was ready.

    Args:
        folder: The served model's folder.
        vocab_size: Width of the logits.
    """

    def __init__(self, folder: str, *, vocab_size: int) -> None:
        self._folder = folder
        self._vocab_size = vocab_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recallm-grammars")
        self._engine: Future[GrammarEngine] = self._thread.submit(self._build)

    def _build(self) -> GrammarEngine:
        ends = eos_ids(Path(self._folder))
        tokenizer = HFTokenizer.from_folder(self._folder, eos_ids=ends)
        return GrammarEngine(tokenizer, vocab_size=self._vocab_size)

    def prepare(self, spec: ConstraintSpec) -> None:
        """Begins to compile a spec's grammar; returns at once."""
        if spec.grammar is not None:
            self._thread.submit(self._compile, spec.grammar.text)

    def _compile(self, grammar: str) -> None:
        self._engine.result().matcher(grammar)

    def __call__(self, spec: ConstraintSpec) -> GrammarEngine:
        """Returns the engine for a spec's vocabulary and ends.

        Raises:
            RecallmError: The folder has no usable tokenizer.
        """
        return self._engine.result().for_model(spec.eos, vocab_size=spec.vocab_size)
