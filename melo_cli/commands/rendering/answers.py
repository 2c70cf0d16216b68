"""One queried prompt: its route, and what both models answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melo_cli.terminal import Block, shortened

if TYPE_CHECKING:
    from melo_cli.querying import QueryAnswer
    from melo_cli.scope.core.rules import Candidate
    from store.project import Project


def query_block(answer: QueryAnswer, project: Project) -> Block:
    """The route in words, and the two answers beside each other."""
    fired, nearest = answer.route.fired, answer.route.nearest
    if fired is not None:
        facts = [("route", _described(fired, project))]
        facts += [("asked", fired.asked)] if fired.asked is not None else []
    elif answer.route.held is not None:
        facts = [("route", f"base, right already: {_described(answer.route.held, project)}")]
    elif nearest is not None:
        facts = [("route", "base"), ("nearest", f"{_described(nearest, project)}: did not fire")]
        facts += [("against", answer.against)] if answer.against is not None else []
    else:
        facts = [("route", "base (the project holds no edit that routes)")]
    return Block(("prompt", answer.prompt), facts, [("base", answer.base), ("edited", answer.edited)])


def query_document(answer: QueryAnswer, project: Project) -> dict[str, Any]:
    """One entry of `melo query --json`."""
    return {
        "prompt": answer.prompt,
        "route": _candidate_document(answer.route.fired, project),
        "nearest": _candidate_document(answer.route.nearest, project),
        "against": answer.against,
        "base": answer.base,
        "edited": answer.edited,
    }


def _described(candidate: Candidate, project: Project) -> str:
    prompt = shortened(project.edit(candidate.edit_id).prompt)
    return f'{candidate.edit_id} "{prompt}", {_sureness(candidate)}'


def _sureness(candidate: Candidate) -> str:
    if candidate.probability is not None:
        return f"{100 * candidate.probability:.0f}% sure that it asks the same"
    if candidate.radius is None:
        return f"distance {candidate.distance:.4g}"
    return f"cluster {candidate.cluster}, distance {candidate.distance:.4g}, radius {candidate.radius:.4g}"


def _candidate_document(candidate: Candidate | None, project: Project) -> dict[str, Any] | None:
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
