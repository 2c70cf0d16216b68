"""`melo query`: where a prompt goes, and what base and edited model answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melo_cli.loading import OpenProject
from melo_cli.scope.core.rules import Candidate, Route, Verified
from melo_cli.scope.explaining import against


@dataclass(frozen=True)
class QueryAnswer:
    """One prompt's route and the two answers.

    Attributes:
        edit_prompt: the prompt of the nearest edit, fired or not; None in a project without edits.
        against: what speaks against the nearest edit, where it did not fire under the rule `verified`.
    """

    prompt: str
    route: Route
    edit_prompt: str | None
    base: str
    edited: str
    against: str | None = None


def query(
    opened: OpenProject, prompts: Sequence[str], max_new_tokens: int | None = None
) -> list[QueryAnswer]:
    """Ask every prompt of the base and of the edited model, greedily.

    Raises:
        PromptError: a prompt is empty or too long.
    """
    encoded = [opened.encoder.prompt(prompt) for prompt in prompts]
    length = max_new_tokens or opened.recipe.generation.max_new_tokens
    routes = opened.asker.routes(prompts)
    fired = {at: route.fired.block for at, route in enumerate(routes) if route.fired is not None}
    # Base and edited answers together: a batch may mix blocks, and costs little more than one of them.
    asked = [*encoded, *(encoded[at] for at in fired)]
    blocks = [*[None] * len(encoded), *fired.values()]
    answers = opened.asker.answers(asked, blocks, [length] * len(asked))
    base = answers[: len(encoded)]
    edited = dict(zip(fired, answers[len(encoded) :], strict=True))
    return [
        QueryAnswer(
            prompt,
            route,
            _edit_prompt(opened, route.nearest),
            base[at],
            edited.get(at, base[at]),
            _against(opened, prompt, route),
        )
        for at, (prompt, route) in enumerate(zip(prompts, routes, strict=True))
    ]


def _against(opened: OpenProject, prompt: str, route: Route) -> str | None:
    rule = opened.routed.router.rule
    if route.held is not None or route.nearest is None or not isinstance(rule, Verified):
        return None
    edit = opened.project.edit(route.nearest.edit_id).record
    asked = route.nearest.asked or prompt
    return against(asked, edit.prompt, edit.subject, rule.model.vocabulary)


def _edit_prompt(opened: OpenProject, neighbour: Candidate | None) -> str | None:
    return opened.project.edit(neighbour.edit_id).prompt if neighbour is not None else None
