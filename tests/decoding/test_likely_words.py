"""Words are drawn to likely answers: the tree of these against a list, and what it changes."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.decoding.constraint import ConstraintRules
from recallm_core.decoding.likely_tokens import LikelyAnswerTokens, LikelyTokens
from recallm_core.decoding.likely_words import DOUBT, LEFT, LikelyWords
from recallm_core.decoding.spec import ConstraintSpec
from recallm_core.documents.document import Document
from recallm_core.errors import ConstraintError
from recallm_core.prompting.prompt import Prompt
from recallm_core.prompting.recipe import Recipe
from recallm_core.testing import ByteTokenizer, random_walk, scripted_llm

WORDS = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)
DOCUMENTS = [Document("The pier was built in 1889. It is 330 metres long.", "d")]


@st.composite
def likely(draw: st.DrawFn) -> LikelyTokens:
    answers = draw(st.lists(WORDS, min_size=1, max_size=6, unique=True))
    share = 1 / (len(answers) + 1)
    return LikelyTokens(
        tuple(LikelyAnswerTokens(ids, share) for ids in answers),
        closers=frozenset(draw(st.sets(st.integers(3, 6), max_size=2))),
        skipped=frozenset(draw(st.sets(st.integers(0, 8), max_size=2))),
        strength=draw(st.sampled_from([0.5, 2.0])),
        lead=tuple(draw(st.lists(st.integers(0, 2), max_size=3))),
    )


def naive(tokens: LikelyTokens, written: tuple[int, ...]) -> dict[int, float]:
    """How much each token is raised, by going through all answers."""
    size = len(tokens.lead)
    ends = (n for n in range(size, len(written) + 1) if written[n - size : n] == tokens.lead)
    behind = next(ends, None) if size else 0
    if behind is None:
        return {}
    written = written[behind:]
    firsts = {answer.ids[0] for answer in tokens.answers}
    while written and written[0] in tokens.skipped and written[0] not in firsts:
        written = written[1:]
    alike = [a for a in tokens.answers if a.ids[: len(written)] == written]
    whole = sum(a.share for a in alike) if written else 1.0
    shares: dict[int, float] = {}
    for answer in alike:
        if answer.ids != written:
            token = answer.ids[len(written)]
            shares[token] = shares.get(token, 0.0) + answer.share / whole
    for answer in alike:
        for closer in tokens.closers if answer.ids == written else ():
            shares.setdefault(closer, answer.share / whole)
    return {t: tokens.strength * np.log1p(share / DOUBT) for t, share in shares.items()}


@given(likely(), st.lists(st.integers(0, 8), max_size=8))
def test_the_tree_raises_what_the_list_of_answers_does(
    tokens: LikelyTokens, written: list[int]
) -> None:
    words, place = LikelyWords(tokens, 1.0), 0
    for count in range(len(written) + 1):
        tilt = words.tilt(place)
        raised = {} if tilt is None else dict(zip(tilt[0].tolist(), tilt[1].tolist(), strict=True))
        assert tilt is None or len(raised) == len(tilt[0])
        assert raised == pytest.approx(naive(tokens, tuple(written[:count])))
        place = words.step(place, written[count]) if count < len(written) else LEFT


def prepared(answers: tuple[str, ...], recipe: Recipe | None = None) -> Prompt:
    """A prompt that the policy ``first`` rules, with some answers said to be likely."""
    tokenizer = ByteTokenizer()
    llm = scripted_llm("", recipe=recipe or Recipe(), tokenizer=tokenizer)
    asked = [{"role": "user", "content": "When was the pier built?"}]
    prompt = llm.prepare(asked, DOCUMENTS, evidence="first", prior="none")[0]
    assert prompt.spec.evidence is not None
    tokens = LikelyTokens(
        tuple(LikelyAnswerTokens(tuple(a.encode()), 1 / len(answers)) for a in answers),
        closers=frozenset({*prompt.spec.eos, ord('"')}),
        skipped=frozenset(b"a"),
        strength=2.0,
    )
    spec = replace(prompt.spec, likely=tokens)
    rules = ConstraintRules.from_spec(spec, prompt.token_ids)
    return replace(prompt, spec=spec, rules=rules)


@given(st.integers(0, 2**32))
def test_likely_answers_make_nothing_legal_or_illegal(seed: int) -> None:
    prompt = prepared(("in 1889", "1889"))
    plain_spec = replace(prompt.spec, likely=None)
    tilted = prompt.rules.start()
    plain = ConstraintRules.from_spec(plain_spec, prompt.token_ids).start()
    replayed = ConstraintRules.from_spec(
        ConstraintSpec.from_json(prompt.spec.to_json()), prompt.token_ids
    ).start()
    written: list[int] = []
    for token in random_walk(tilted, random.Random(seed), marks=0.5):
        plain.consume(token)
        replayed.consume(token)
        written.append(token)
        ours, theirs, again = tilted.mask(), plain.mask(), replayed.mask()
        for name in ("only", "forbid"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        for name in ("bias", "tilted"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(again, name))
        if len(written) > 60:
            break
    back = random.Random(seed).randint(0, len(written))
    tilted.rollback(back)
    for token in written[len(written) - back :]:
        tilted.consume(token)
    np.testing.assert_array_equal(tilted.mask().tilted, replayed.mask().tilted)


def test_only_the_words_behind_the_evidence_are_drawn() -> None:
    prompt = prepared(("1889",))
    constraint = prompt.rules.start()
    assert constraint.mask().tilted is None
    for token in b"<recall>It is 330 metres long.</recall>":
        constraint.consume(token)
        assert constraint.mask().tilted is None
    while constraint.section == "evidence":
        ahead = constraint.draft(99)
        for token in ahead or [prompt.spec.evidence.lead_in[0]]:  # type: ignore[union-attr]
            constraint.consume(token)
    for token in b"a1889":
        tilted = constraint.mask().tilted
        assert tilted is not None
        assert token in tilted or token == ord("a")
        constraint.consume(token)
    assert set(constraint.mask().tilted.tolist()) == {*prompt.spec.eos, ord('"')}  # type: ignore[union-attr]
    constraint.consume(ord("x"))
    assert constraint.mask().tilted is None


def test_an_answer_that_is_led_to_is_drawn_behind_what_leads_to_it() -> None:
    prompt = prepared(("1889",))
    assert prompt.spec.likely is not None
    led = replace(prompt.spec.likely, lead=tuple(b"So: "), closers=frozenset(prompt.spec.eos))
    spec = replace(prompt.spec, evidence=None, likely=led)
    constraint = ConstraintRules.from_spec(spec, prompt.token_ids).start()
    for token in b"It says so. So So: ":
        assert constraint.mask().tilted is None
        constraint.consume(token)
    for token in b"a1889":
        assert constraint.mask().tilted.tolist() in ([token], [ord("1")])  # type: ignore[union-attr]
        constraint.consume(token)
    assert constraint.mask().tilted.tolist() == list(prompt.spec.eos)  # type: ignore[union-attr]
    constraint.consume(ord("x"))
    for token in b" So: ":
        assert constraint.mask().tilted is None  # an answer begins once
        constraint.consume(token)
    assert constraint.mask().tilted is None


def test_several_articles_are_several_words() -> None:
    constraint = prepared(("1889",)).rules.start()
    while constraint.section == "evidence":
        only = constraint.mask().only
        constraint.consume(ord(".") if only is None else int(only[-1]))
    for token in b"aaa":
        constraint.consume(token)
    assert ord("1") in constraint.mask().tilted  # type: ignore[operator]
    constraint.consume(ord("1"))
    assert constraint.mask().tilted.tolist() == [ord("8")]  # type: ignore[union-attr]


def test_ids_beyond_the_vocabulary_are_refused() -> None:
    prompt = prepared(("1889",))
    assert prompt.spec.likely is not None
    for name in ("skipped", "lead"):
        beyond = replace(prompt.spec.likely, **{name: (prompt.spec.vocab_size,)})
        with pytest.raises(ConstraintError, match="logits' width"):
            replace(prompt.spec, likely=beyond)
