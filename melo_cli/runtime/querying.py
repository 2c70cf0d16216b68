"""`melo query`: the route of a prompt, and the answers of base and edited model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melo_cli.errors import PromptError
from melo_cli.models.encoding import Encoder, Message
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope import explanation
from melo_cli.scope.core.rules import Candidate, Route


@dataclass(frozen=True)
class QueryAnswer:
    """One prompt's route and the two answers.

    Attributes:
        route: the route, with the edits whose facts stood beside the prompt for the edited answer.
        edit_prompt: the prompt of the nearest edit, fired or not; None in a project without edits.
        against: why the nearest edit did not fire, under the scope rule `verified`; None if it fired.
    """

    prompt: str
    route: Route
    edit_prompt: str | None
    base: str
    edited: str
    against: str | None = None


def query(
    opened: OpenProject,
    asked: Sequence[str | Sequence[Message]],
    max_new_tokens: int | None = None,
    system: str | None = None,
) -> list[QueryAnswer]:
    """Ask every prompt of the base and of the edited model, greedily.

    Args:
        opened: the project, opened.
        asked: prompts, or conversations that end with a user's turn, which alone decides the route.
        max_new_tokens: tokens of each answer at most; None is the recipe's number.
        system: stands before each prompt as the system's message.

    Returns:
        One answer for each prompt, in order.

    Raises:
        PromptError: a prompt is empty or too long, or the model is not asked through a chat template.
    """
    conversations = [_conversation(each, system) for each in asked]
    prompts = [messages[-1]["content"] for messages in conversations]
    encoded = [encode(opened.encoder, messages) for messages in conversations]
    length = max_new_tokens or opened.recipe.generation.max_new_tokens
    routes = opened.routes(prompts)
    # What the edited model is asked otherwise than the base: with a block, or with facts.
    own = {
        at: (encode(opened.encoder, asked_with(opened, conversations[at], route)), route.fired)
        for at, route in enumerate(routes)
        if route.fired is not None or route.told
    }
    # Base and edited answers together: a batch may mix blocks, and costs little more than one of them.
    every = [*encoded, *(ids for ids, _ in own.values())]
    blocks = [
        *[None] * len(encoded),
        *(fired.block if fired is not None else None for _, fired in own.values()),
    ]
    answers = opened.inference.answers(every, blocks, [length] * len(every))
    base = answers[: len(encoded)]
    edited = dict(zip(own, answers[len(encoded) :], strict=True))
    return [
        QueryAnswer(
            prompt,
            route,
            _edit_prompt(opened, route.nearest),
            base[at],
            edited.get(at, base[at]),
            speaks_against(opened, prompt, route),
        )
        for at, (prompt, route) in enumerate(zip(prompts, routes, strict=True))
    ]


def encode(encoder: Encoder, messages: Sequence[Message]) -> tuple[int, ...]:
    """Tokens of a conversation that ends with a user's turn; a turn alone needs no chat template.

    Raises:
        PromptError: as `Encoder.prompt` and `Encoder.conversation`.
    """
    return encoder.prompt(messages[0]["content"]) if len(messages) == 1 else encoder.conversation(messages)


def asked_with(opened: OpenProject, messages: Sequence[Message], route: Route) -> list[Message]:
    """A conversation as the edited model is asked it: facts stand with its last turn.

    Args:
        opened: the project, opened.
        messages: a conversation that ends with a user's turn.
        route: the route of that turn.
    """
    *before, request = messages
    return [*before, {**request, "content": opened.told.asked(request["content"], route)}]


def _conversation(asked: str | Sequence[Message], system: str | None) -> list[Message]:
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked)
    if not messages or messages[-1].get("role") != "user":
        raise PromptError(
            "the conversation does not end with a user's message",
            where=repr(messages[-1:]),
            hint='end it with {"role": "user", "content": "..."}',
        )
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def speaks_against(opened: OpenProject, prompt: str, route: Route) -> str | None:
    """What speaks against the nearest edit, where it did not fire under the rule `verified`.

    Args:
        opened: the project, opened.
        prompt: what was asked.
        route: its route.

    Returns:
        Words for people; None where an edit fired, none is near, or the rule is `radius`.
    """
    if route.nearest is None:
        return None
    edit = opened.project.edit(route.nearest.edit_id).record
    return explanation.speaks_against(opened.routed.router.rule, route, prompt, edit.prompt, edit.subject)


def _edit_prompt(opened: OpenProject, neighbour: Candidate | None) -> str | None:
    return opened.project.edit(neighbour.edit_id).prompt if neighbour is not None else None
