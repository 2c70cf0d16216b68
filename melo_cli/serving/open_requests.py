"""Open requests in a chat: facts of edits stand with the user's last message, whichever engine answers."""

from __future__ import annotations

from dataclasses import replace

from melo_cli.runtime.told import with_facts
from melo_cli.serving.engines.engine import Prompt, Question, Routed
from melo_cli.serving.openai_schema import ChatCompletionRequest, ChatMessage, CompletionRequest


def question(request: CompletionRequest | ChatCompletionRequest, prompt: Prompt, routed: Routed) -> Question:
    """A prompt as an engine is asked it.

    The facts of a route stand with the last message, if it is the user's and text alone. Otherwise no edit is
    told, and the base model answers the prompt as it is.
    """
    if not routed.facts:
        return Question(request, prompt, routed)
    messages = [each for each in prompt if isinstance(each, ChatMessage)]
    last = messages[-1] if messages else None
    if last is None or last.role != "user" or last.text is None:
        return Question(request, prompt, Routed(replace(routed.route, told=()), routed.block))
    asked = last.model_copy(update={"content": with_facts(last.text, routed.facts)})
    return Question(request, [*messages[:-1], asked], routed)
