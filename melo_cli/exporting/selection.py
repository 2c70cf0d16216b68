"""Chooses what goes into an export: the project as it would be had it never had the other edits."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from melo_cli.errors import UnknownEditError
from melo_cli.runtime.inference import Inference
from melo_cli.runtime.loading import OpenProject
from melo_cli.runtime.routed_model import RoutedModel
from melo_cli.scope.core.router import Router
from melo_cli.versions import library_versions
from melo_store.project import Project
from melo_store.records import number_of
from melo_store.writer import open_writer


@contextmanager
def chosen(
    opened: OpenProject, edit_ids: Collection[str], block_ids: Collection[str], beside: Path
) -> Iterator[OpenProject]:
    """Give the project with the named edits and the edits of the named blocks alone; all where none is named.

    It is a copy in which the others are reverted, so its clusters are those that the chosen edits make.

    Args:
        beside: the folder in which the copy stands while it is needed.

    Raises:
        UnknownEditError: there is no such edit or block, or it answers nothing any more.
    """
    if not edit_ids and not block_ids:
        yield opened
        return
    live = [edit for edit in opened.project.edits() if edit.status == "live"]
    _require_live(opened, edit_ids, block_ids)
    kept = {edit.edit_id for edit in live if edit.edit_id in edit_ids or edit.block in block_ids}
    others = [edit.edit_id for edit in opened.project.edits() if edit.edit_id not in kept]
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".melo-chosen-", dir=beside) as place:
        copy = Path(place) / "project"
        opened.project.copy_to(copy)
        with open_writer(Project.open(copy)) as writer:
            writer.revert(others, versions=library_versions(), command="melo export")
        yield _over(opened, Project.open(copy))


def _require_live(opened: OpenProject, edit_ids: Collection[str], block_ids: Collection[str]) -> None:
    for edit_id in edit_ids:
        edit = opened.project.edit(edit_id)
        if edit.status != "live":
            raise UnknownEditError(f"it is {edit.status} and answers nothing", where=edit_id)
    answering = set(opened.live_blocks())
    for block_id in block_ids:
        number_of(block_id, "b")
        if block_id not in answering:
            raise UnknownEditError("no live edit leads to this block", where=block_id)


def _over(opened: OpenProject, project: Project) -> OpenProject:
    """The same model with another project's routes and blocks."""
    router = Router(opened.routed.router.recorder, opened.routed.router.rule, project)
    routed = RoutedModel(opened.routed.base, opened.routed.tuner, router, project)
    return replace(opened, project=project, routed=routed, inference=Inference(routed, opened.encoder))
