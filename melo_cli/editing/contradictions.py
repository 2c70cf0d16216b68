"""Edits that ask the same in other words, and have another answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melo_cli.runtime.inference import same_answer
from melo_cli.scope.core.router import Router
from melo_cli.scope.core.rules import Near, Neurons, Query
from melo_store.project import Project


@dataclass(frozen=True)
class Contradiction:
    """An edit that would answer the prompt of a newer one if that were not there, and not as it does.

    Both edits stay: each answers its own prompt and what is nearest to it.
    """

    edit_id: str
    prompt: str
    target: str


def contradiction_of(router: Router, query: Query, edit_id: str, project: Project) -> Contradiction | None:
    """The edit that contradicts another one.

    Args:
        router: the project's.
        query: the prompt of the edit.
        edit_id: the edit.
        project: the snapshot that has it.

    Returns:
        None where no other edit reaches the prompt, or the surest that does has the same answer.
    """
    (route,) = router.rule.routes([query], _Others(project, edit_id))
    if route.held is None:
        return None
    other, own = project.edit(route.held.edit_id), project.edit(edit_id)
    if same_answer(other.target, own.target):
        return None
    return Contradiction(other.edit_id, other.prompt, other.target)


@dataclass(frozen=True)
class _Others:
    """All neurons but that of one edit."""

    neurons: Neurons
    edit_id: str

    def nearest(self, keys: NDArray[np.float32], k: int) -> list[Sequence[Near]]:
        found = self.neurons.nearest(keys, k + 1)
        return [[near for near in some if near.edit_id != self.edit_id][:k] for some in found]

    def tokens(self, edit_ids: Sequence[str]) -> Sequence[NDArray[np.float16] | None]:
        return self.neurons.tokens(edit_ids)

    def keys(self, edit_ids: Sequence[str]) -> NDArray[np.float32]:
        return self.neurons.keys(edit_ids)

    def prompts(self, edit_ids: Sequence[str]) -> Sequence[str]:
        return self.neurons.prompts(edit_ids)
