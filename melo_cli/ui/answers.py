"""Queried prompts: the route of each, and what both models answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from melo_cli.ui.elements import Block, View
from melo_cli.ui.text import shortened

if TYPE_CHECKING:
    from melo_cli.runtime.querying import QueryAnswer
    from melo_cli.scope.core.rules import Candidate, Route
    from melo_store.project import Project


def answers_view(answers: Sequence[QueryAnswer], project: Project) -> View:
    """`melo query`."""
    return View(
        [_query_block(answer, project) for answer in answers],
        [_query_document(answer, project) for answer in answers],
    )


def _query_block(answer: QueryAnswer, project: Project) -> Block:
    """The route in words, and the two answers beside each other."""
    facts = route_facts(answer.route, answer.against, project)
    return Block(("prompt", answer.prompt), facts, [("base", answer.base), ("edited", answer.edited)])


def route_facts(route: Route, against: str | None, project: Project) -> list[tuple[str, str]]:
    """A route in named lines: the edit that answers and how sure that is, the edits that are told, or why the
    nearest does not answer."""
    fired, nearest = route.fired, route.nearest
    if fired is not None:
        facts = [("route", described(fired, project))]
        return [*facts, ("asked", fired.asked)] if fired.asked is not None else facts
    if route.held is not None:
        return [("route", f"base, right already: {described(route.held, project)}")]
    if route.told:
        told = [("told", named(edit_id, project)) for edit_id in route.told]
        return [("route", "base, asked with the facts of edits"), *told]
    if nearest is None:
        return [("route", "base (the project holds no edit that routes)")]
    facts = [("route", "base"), ("nearest", f"{described(nearest, project)}: did not fire")]
    return [*facts, ("against", against)] if against is not None else facts


def _query_document(answer: QueryAnswer, project: Project) -> dict[str, Any]:
    return {
        "prompt": answer.prompt,
        "route": candidate_document(answer.route.fired, project),
        "nearest": candidate_document(answer.route.nearest, project),
        "told": list(answer.route.told),
        "against": answer.against,
        "base": answer.base,
        "edited": answer.edited,
    }


def described(candidate: Candidate, project: Project, length: int | None = None) -> str:
    """An edit by its id and prompt, and how near it is; of a longer prompt the beginning."""
    return f"{named(candidate.edit_id, project, length)}, {_sureness(candidate)}"


def named(edit_id: str, project: Project, length: int | None = None) -> str:
    """An edit by its id and prompt; of a longer prompt the beginning."""
    prompt = project.edit(edit_id).prompt
    shown = shortened(prompt) if length is None else shortened(prompt, length)
    return f'{edit_id} "{shown}"'


def _sureness(candidate: Candidate) -> str:
    if candidate.probability is not None:
        return f"{100 * candidate.probability:.0f}% sure that it asks the same"
    if candidate.radius is None:
        return f"distance {candidate.distance:.4g}"
    return f"cluster {candidate.cluster}, distance {candidate.distance:.4g}, radius {candidate.radius:.4g}"


def candidate_document(candidate: Candidate | None, project: Project) -> dict[str, Any] | None:
    """A candidate in JSON; null where there is none."""
    if candidate is None:
        return None
    return {
        "edit_id": candidate.edit_id,
        "prompt": project.edit(candidate.edit_id).prompt,
        "block": candidate.block,
        "probability": candidate.probability,
        "asked": candidate.asked,
        "distance": candidate.distance,
        "cluster": candidate.cluster,
        "radius": candidate.radius,
        "center_distance": candidate.center_distance,
    }
