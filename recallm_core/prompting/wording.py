"""A conversation over documents in words: trusted wording, placeholders for all other text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from recallm_core.decoding.grammar import OutputRules
from recallm_core.documents.document import Passage
from recallm_core.errors import TokenizerError
from recallm_core.prompting.conversation import (
    Fields,
    Turn,
    call_with_placeholders,
    render,
    tool_with_placeholders,
)
from recallm_core.prompting.prompt import MESSAGE
from recallm_core.prompting.recipe import JSON_ANSWER, Recipe
from recallm_core.tokenization.tokenizer import Tokenizer

_LABEL = re.compile(r"\{(index|title|id|text)\}")


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a conversation may be quoted, and how.

    Attributes:
        suffix: Of the marks around a quote (``variant``); None: nothing may be quoted.
        messages: Whether the user's messages may be.
    """

    suffix: str | None
    messages: bool = False


class Wording:
    """Puts conversations into the words of one model.

    Args:
        tokenizer: Has the model's chat template.
        recipe: How the model is driven.
    """

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._labels = _LABEL.split(recipe.document)

    def render(
        self,
        turns: Sequence[Turn],
        passages: Sequence[Passage],
        scope: Scope,
        output: OutputRules | None,
    ) -> tuple[str, Fields]:
        """Returns the conversation as the template renders it, and the texts to be put into it.

        Args:
            turns: As ``conversation.checked`` returned them.
            passages: What stands in the first message of the user.
            scope: What may be quoted.
            output: Tools or a schema, where the answer isn't just words.

        Raises:
            TokenizerError: The chat template can't render the conversation, or its tools.
        """
        fields = Fields()
        content = self._contents(turns, passages, fields, scope)
        if output is not None and output.schema is not None:
            _ask_for_json(content, output.schema, fields)
        tools = _template_tools(output, fields)
        return self._with_thinking_opened(self._render_content(content, fields, tools)), fields

    def free_suffix(self, quotable: Sequence[str]) -> str:
        """Returns the first suffix of the marks that stands in no text; control tokens need none.

        Args:
            quotable: The texts.
        """
        if self._recipe.mode == "trained":
            return ""
        marks = (self._recipe.open, self._recipe.close)
        either = "|".join(f"{re.escape(m[:-1])}([0-9]*){re.escape(m[-1])}" for m in marks)
        pattern = re.compile(either)
        taken = {a or b for text in quotable for a, b in pattern.findall(text)}
        return next(s for n in count(1) if (s := "" if n == 1 else str(n)) not in taken)

    def label_parts(self, index: int) -> list[str]:
        """Returns the wording of a passage's label, around what is filled in.

        Args:
            index: The passage's number.
        """
        wording = self._recipe.document.replace("{index}", str(index))
        return re.split(r"\{(?:title|id|text)\}", wording)

    def _contents(
        self, turns: Sequence[Turn], passages: Sequence[Passage], fields: Fields, scope: Scope
    ) -> list[Turn]:
        """The turns with wording in place and placeholders for everything untrusted."""
        out = self._system_turn(turns, fields, scope)
        questions = 0
        for turn in turns:
            if turn["role"] == "user":
                text = turn["content"]
                message = Passage(f"{MESSAGE}{questions}", 0, len(text), text)
                content = self._user_content(
                    message, () if questions else passages, fields, scope.messages
                )
                questions += 1
            elif turn["role"] != "system":
                content = fields.put(turn["content"], varies=True)
            else:
                continue
            out.append({"role": turn["role"], "content": content})
            if "tool_calls" in turn:
                out[-1]["tool_calls"] = _calls(turn["tool_calls"], fields)
        return out

    def _system_turn(self, turns: Sequence[Turn], fields: Fields, scope: Scope) -> list[Turn]:
        system = "" if scope.suffix is None else self._system_text(scope.suffix)
        if system:
            system = fields.put("") + system  # shows whether the template renders system turns
        theirs = [fields.put(m["content"]) for m in turns if m["role"] == "system"]
        pieces = [piece for piece in (system, *theirs) if piece]
        return [{"role": "system", "content": "\n\n".join(pieces)}] if pieces else []

    def _system_text(self, suffix: str) -> str:
        if not suffix:
            return self._recipe.system_text()
        opened, closed = variants(self._recipe, suffix)
        return replace(self._recipe, open=opened, close=closed).system_text()

    def _user_content(
        self, message: Passage, passages: Sequence[Passage], fields: Fields, quotable: bool
    ) -> str:
        """A message, and the documents where the layout wants them; it is quotable once."""
        layout = self._recipe.layout if passages else "question-last"
        out = []
        if layout != "question-last":
            out.append(self._question(message, fields, quotable and layout == "question-first"))
            out.append("\n\n")
        if passages:
            out.append(self._documents(passages, fields))
        if layout != "question-first":
            out.append(self._question(message, fields, quotable))
        return "".join(out)

    def _question(self, message: Passage, fields: Fields, quotable: bool) -> str:
        if quotable:
            place = fields.put_passage(message, varies=True)
        else:
            place = fields.put(message.text, varies=True)
        return self._recipe.question.replace("{question}", place)

    def _documents(self, passages: Sequence[Passage], fields: Fields) -> str:
        out = [self._recipe.documents_open]
        for index, passage in enumerate(passages, start=1):
            for place, part in enumerate(self._labels):
                if place % 2 == 0:
                    out.append(part)
                elif part == "index":
                    out.append(str(index))
                elif part == "text":
                    out.append(fields.put_passage(passage))
                else:
                    label = passage.title if part == "title" else passage.document_id
                    out.append(fields.put(label or ""))
        out.append(self._recipe.documents_close)
        return "".join(out)

    def _render_content(
        self, content: Sequence[Turn], fields: Fields, tools: Sequence[Mapping[str, Any]]
    ) -> str:
        try:
            return render(self._tokenizer, content, fields, tools)
        except TokenizerError as error:
            if not tools:
                raise
            raise TokenizerError(
                "the model's chat template can't show tools to it; use a model whose template has "
                f"a branch for tools, or ask without them ({error})"
            ) from error

    def _with_thinking_opened(self, rendered: str) -> str:
        opening = self._recipe.think_open
        if opening and not rendered.rstrip().endswith(opening):
            rendered += opening if self._recipe.mode == "trained" else opening + "\n"
        return rendered


def variants(recipe: Recipe, suffix: str) -> tuple[str, str]:
    """Returns a recipe's two marks with a suffix: ``<recall>`` with suffix 2 is ``<recall2>``."""
    return _variant(recipe.open, suffix), _variant(recipe.close, suffix)


def _variant(mark: str, suffix: str) -> str:
    return f"{mark[:-1]}{suffix}{mark[-1]}" if suffix else mark


def _calls(calls: Sequence[Mapping[str, Any]], fields: Fields) -> list[dict[str, Any]]:
    """Earlier tool calls, their texts as placeholders."""
    functions = (call_with_placeholders(call["function"], fields) for call in calls)
    return [{"type": "function", "function": function} for function in functions]


def _template_tools(output: OutputRules | None, fields: Fields) -> list[dict[str, Any]]:
    """The tools as templates expect them, their texts as placeholders."""
    tools = [tool.to_function() for tool in output.offered_tools] if output else []
    return [tool | {"function": tool_with_placeholders(tool["function"], fields)} for tool in tools]


def _ask_for_json(content: list[Turn], schema: Any, fields: Fields) -> None:
    """Tells the model, in the last user turn, what its answer has to fit."""
    last = next(turn for turn in reversed(content) if turn["role"] == "user")
    shape = fields.put(json.dumps(schema, ensure_ascii=False), varies=True)
    last["content"] += JSON_ANSWER.replace("{schema}", shape)
