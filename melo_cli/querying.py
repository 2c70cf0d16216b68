"""`melo query`: where a prompt goes, and what base and edited model answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melo_cli.loading import OpenProject
from store.records import Neighbour, Route


@dataclass(frozen=True)
class QueryAnswer:
    """One prompt's route and the two answers.

    Attributes:
        edit_prompt: the prompt of the nearest edit, fired or not; None in a project without edits.
    """

    prompt: str
    route: Route
    edit_prompt: str | None
    base: str
    edited: str


def query(
    opened: OpenProject, prompts: Sequence[str], max_new_tokens: int | None = None
) -> list[QueryAnswer]:
    """Ask every prompt of the base and of the edited model, greedily.

    Raises:
        PromptError: a prompt is empty or too long.
    """
    asker = opened.asker
    encoded = [opened.encoder.prompt(prompt) for prompt in prompts]
    lengths = [max_new_tokens or opened.recipe.generation.max_new_tokens] * len(prompts)
    routes = asker.routes(encoded)
    base = asker.answers(encoded, [None] * len(prompts), lengths)
    edited = [*base]
    fired = [index for index, route in enumerate(routes) if route.fired is not None]
    blocks = [_block(routes[index]) for index in fired]
    answers = asker.answers([encoded[i] for i in fired], blocks, [lengths[i] for i in fired])
    for index, answer in zip(fired, answers, strict=True):
        edited[index] = answer
    return [
        QueryAnswer(prompts[i], routes[i], _edit_prompt(opened, routes[i].nearest), base[i], edited[i])
        for i in range(len(prompts))
    ]


def _block(route: Route) -> str | None:
    return route.fired.block if route.fired is not None else None


def _edit_prompt(opened: OpenProject, neighbour: Neighbour | None) -> str | None:
    return opened.project.edit(neighbour.edit_id).prompt if neighbour is not None else None
