"""The side effects of a new edit: what else it answers, and what it leaves alone."""

from __future__ import annotations

from dataclasses import dataclass

from melo_cli.datasets import EditRequest
from melo_cli.paraphrase.paraphraser import Paraphraser
from melo_cli.runtime.loading import OpenProject

_KINDS = 8
"""Kinds of questions of the corpus that are asked about the edit's subject, the nearest first."""
_SHOWN = 3


@dataclass(frozen=True)
class SideEffects:
    """Prompts beside an edit's own, by what became of them.

    Attributes:
        answered: questions that the edit answers too.
        left: questions that it leaves alone.
        moved: prompts that were to stay and that an edit answers.
    """

    answered: tuple[str, ...]
    left: tuple[str, ...]
    moved: tuple[str, ...]


def side_effects_of(
    opened: OpenProject, request: EditRequest, edit_id: str, paraphraser: Paraphraser
) -> SideEffects:
    """Route what people may ask near an edit: questions of the corpus about its subject, and its locality.

    Args:
        opened: at the snapshot that has the edit.
    """
    router = opened.routed.router
    (record,) = router.records([request.prompt], [request.subject])
    near = paraphraser.questions_about(request.subject, router.recorder.question(record), _KINDS)
    own = {request.prompt, *request.rephrases}
    near = [text for text in near if text not in own]
    stay = [prompt for prompt, _ in request.locality]
    routes = opened.inference.routes([*near, *stay])
    fired = [route.fired is not None and route.fired.edit_id == edit_id for route in routes[: len(near)]]
    return SideEffects(
        tuple(text for text, fires in zip(near, fired, strict=True) if fires)[:_SHOWN],
        tuple(text for text, fires in zip(near, fired, strict=True) if not fires)[:_SHOWN],
        tuple(text for text, route in zip(stay, routes[len(near) :], strict=True) if route.fired is not None),
    )
