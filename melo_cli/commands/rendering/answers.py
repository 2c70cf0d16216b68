"""One queried prompt: its route, and what both models answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melo_cli.terminal import Block, shortened

if TYPE_CHECKING:
    from melo_cli.querying import QueryAnswer
    from store.project import Project
    from store.records import Neighbour


def query_block(answer: QueryAnswer, project: Project) -> Block:
    """The route in words, and the two answers beside each other."""
    fired, nearest = answer.route.fired, answer.route.nearest
    if fired is not None:
        facts = [("route", _described(fired, project))]
    elif answer.route.held is not None:
        facts = [("route", f"base, right already: {_described(answer.route.held, project)}")]
    elif nearest is not None:
        facts = [("route", "base"), ("nearest", f"{_described(nearest, project)}: did not fire")]
    else:
        facts = [("route", "base (the project holds no edit that routes)")]
    return Block(("prompt", answer.prompt), facts, [("base", answer.base), ("edited", answer.edited)])


def query_document(answer: QueryAnswer, project: Project) -> dict[str, Any]:
    """One entry of `melo query --json`."""
    return {
        "prompt": answer.prompt,
        "route": _neighbour_document(answer.route.fired, project),
        "nearest": _neighbour_document(answer.route.nearest, project),
        "base": answer.base,
        "edited": answer.edited,
    }


def _described(neighbour: Neighbour, project: Project) -> str:
    prompt = shortened(project.edit(neighbour.edit_id).prompt)
    place = f"cluster {neighbour.cluster}, distance {neighbour.distance:.4g}, radius {neighbour.radius:.4g}"
    return f'{neighbour.edit_id} "{prompt}", {place}'


def _neighbour_document(neighbour: Neighbour | None, project: Project) -> dict[str, Any] | None:
    if neighbour is None:
        return None
    return {
        "edit_id": neighbour.edit_id,
        "prompt": project.edit(neighbour.edit_id).prompt,
        "block": neighbour.block,
        "cluster": neighbour.cluster,
        "distance": neighbour.distance,
        "radius": neighbour.radius,
        "center_distance": neighbour.center_distance,
    }
