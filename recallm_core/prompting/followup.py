"""What a conversation asks last, in words that can be searched for.

A follow-up question leaves out what was just spoken of ("and who built it?"). It gets the content
words of the turns before it; a question that stands by itself stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recallm_core.text.lexical import terms
from recallm_core.text.scripts import UNSPACED

_FEW_WORDS = 2  # content words of a question that may lack its subject
_FEW_CHARACTERS = 8  # the same in scripts without spaces
_LONGEST = 40  # characters of a word, which in scripts without spaces is a stretch of text
_TURNS = 6  # earlier messages that are looked at
_MOST = 8  # words that are added, for the nearest turn; half as many for each one before it

_BACK = {
    "en": "he him his she her hers it its they them their theirs this these those",
    "de": """er ihn ihm sie ihr ihre ihren ihrer ihrem dessen deren dies diese dieser dieses
        diesem diesen dort davon darin damit dazu dabei darüber daran dafür""",
    "fr": "il elle ils elles lui leur leurs son sa ses cet cette ces celui celle ceux cela ça",
    "es": """él ella ellos ellas su sus este esta estos estas ese esa esos esas esto eso aquel
        aquella allí ahí""",
}
_OPENERS = {
    "en": "and but or also so then",
    "de": "und aber oder auch dann",
    "fr": "et mais ou aussi alors",
    "es": "y e pero o también entonces",
}
_IDLE = {  # function words, which say nothing of the subject; English ones are no terms at all
    "en": """that there one ones many much long old high far big often happened happen mean tell
        explain know go give example name called year day reason way""",
    "de": """der die das den dem des ein eine einen einem einer und oder aber auch ist sind war
        waren wird wurde wurden hat haben hatte wer wen wem was wann wo wie warum wieso weshalb
        welche welcher welches woher wohin viel viele lange alt hoch groß in im an am auf aus bei
        mit nach von vom vor zu zum zur für über um bis denn dann nicht noch man gibt es""",
    "fr": """le la les l un une des du de d et ou mais aussi est sont était étaient a ont avait
        être fut qui que quoi qu quand où comment pourquoi quel quelle quels quelles combien dans
        en à au aux par pour sur avec sans ne pas n c ce s t se alors il y""",
    "es": """el la los las un una unos unas y e o pero también es son era eran fue fueron está ha
        han había ser quién quiénes que qué cuándo dónde cómo cuál cuáles por cuánto cuánta cuántos
        cuántas en a al de del con para sobre sin no se entonces hay lo le les""",
}
_DEFINED = re.compile(  # "What is osmosis?": all of its subject, in a word
    r"(?:what|who|where|was|wer|wo|que|qui|qué|quién|dónde) "
    r"(?:is|are|was|were|ist|sind|war|est|sont|es|son|era) (?:an? |une? |eine? |una? )?"
    r"(?!the |der |die |das |le |la |les |el |los |las |l['\u2019])"
    r"[^\W_]+(?:[ -][^\W_]+)?\W*",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_ELIDED = re.compile(r"^(?:[ldcnsjmt]|qu)['\u2019](?=\w)", re.IGNORECASE)
_UNSPACED = re.compile(f"[{UNSPACED}]")
_BACK_UNSPACED = re.compile(
    "[他她它]|这|那|這|該|其中|其他|此|それ|これ|あれ|その|この|彼|มัน|เขา|เธอ|นั้น|นี้"
)


def _all(words: Mapping[str, str]) -> frozenset[str]:
    return frozenset(" ".join(words.values()).split())


_REFERRING, _OPENING, _EMPTY = _all(_BACK), _all(_OPENERS), _all(_IDLE)


def search_question(messages: Sequence[Mapping[str, Any]]) -> str:
    """Returns the last question of a conversation, with what it is about where it leaves that out.

    Deterministic, without a model. A question that stands by itself is returned unchanged. To one
    that refers back, or has few words of its own, the content words of the user's earlier turns
    and of the answers come before it, fewer from further back.

    Args:
        messages: ``{"role": ..., "content": ...}``; at least one from the user.

    Raises:
        ValueError: There is no message of the user.
    """
    of_user = [n for n, message in enumerate(messages) if message.get("role") == "user"]
    if not of_user:
        raise ValueError("a conversation needs a user message to search for, got none")
    question = str(messages[of_user[-1]].get("content") or "")
    earlier = _earlier(messages[: of_user[-1]])
    if not earlier or not is_followup(question):
        return question
    added = _missing_words(question, earlier)
    return f"{' '.join(added)}\n{question}" if added else question


def is_followup(question: str) -> bool:
    """Returns whether a question leaves out what it is about, as far as its words show."""
    letters = sum(character.isalpha() for character in question)
    unspaced = len(_UNSPACED.findall(question))
    if unspaced * 2 > letters:
        return unspaced <= _FEW_CHARACTERS or bool(_BACK_UNSPACED.search(question))
    words = _words(question)
    if _refers_back(words):
        return True
    telling = sum(_tells(word) for word in words)
    if telling > _FEW_WORDS or _DEFINED.fullmatch(question.lstrip(" \u00bf")):
        return False
    opens = bool(words) and words[0].casefold() in _OPENING
    return opens or not any(_is_name(word) for word in words[1:])


def _refers_back(words: Sequence[str]) -> bool:
    """Whether a pronoun comes before anything in the question that it could stand for."""
    before = 0
    for number, word in enumerate(words):
        if word.casefold() in _REFERRING:
            return True
        if _tells(word):
            before += _FEW_WORDS if number and _is_name(word) else 1
        if before >= _FEW_WORDS:
            return False
    return False


def _words(text: str) -> list[str]:
    return [_ELIDED.sub("", word) for word in _WORD.findall(text)]


def _tells(word: str) -> bool:
    """Whether a word says something of a subject."""
    folded = word.casefold()
    return folded not in _EMPTY and folded not in _REFERRING and bool(terms(word))


def _is_name(word: str) -> bool:
    """Whether a word, not the first of a question, looks like a name or a number."""
    return (word[0].isupper() or word[0].isdigit()) and _tells(word)


def _earlier(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of the turns before the question, the nearest first; an answer after its question.

    What was asked says what a conversation is about better than what was answered.
    """
    spoken = [m for m in messages if m.get("role") in ("user", "assistant") and m.get("content")]
    turns: list[str] = []
    for message in reversed(spoken[-_TURNS:]):
        text = str(message["content"])
        if message["role"] == "user" and len(turns) % 2:
            turns.insert(len(turns) - 1, text)
        else:
            turns.append(text)
    return turns


def _missing_words(question: str, earlier: Iterable[str]) -> list[str]:
    """The content words of earlier turns that the question lacks, in their order."""
    known = set(terms(question))
    out: list[str] = []
    for age, text in enumerate(earlier):
        room = _MOST >> (age // 2)
        for word in _words(text):
            word = word[:_LONGEST]
            fresh = set(terms(word)) - known
            if room and fresh and _tells(word):
                known |= fresh
                out.append(word)
                room -= 1
    return out
