"""Chooses the edits of an export: a copy of the project in which all other edits are reverted."""

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
    """The project with the named edits and the edits of the named blocks alone; with none named, all of it.

    The copy has the clusters that the chosen edits alone would form.

    Args:
        opened: the project, opened.
        edit_ids: ids of edits.
        block_ids: ids of blocks.
        beside: folder for the temporary copy.

    Raises:
        UnknownEditError: there is no such edit or block, or it is no longer live.
    """
    if not edit_ids and not block_ids:
        yield opened
        return
    live = [edit for edit in opened.project.edits() if edit.status == "live"]
    _require_live(opened, edit_ids, block_ids)
    kept = {edit.edit_id for edit in live if edit.edit_id in edit_ids or edit.block in block_ids}
    others = [edit.edit_id for edit in opened.project.edits() if edit.edit_id not in kept]
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".melo-chosen-", dir=beside) as scratch:
        copy = Path(scratch) / "project"
        opened.project.copy_to(copy)
        with open_writer(Project.open(copy)) as writer:
            writer.revert(others, versions=library_versions(), command="melo export")
        yield _over(opened, Project.open(copy))


def _require_live(opened: OpenProject, edit_ids: Collection[str], block_ids: Collection[str]) -> None:
    for edit_id in edit_ids:
        edit = opened.project.edit(edit_id)
        if edit.status != "live":
            raise UnknownEditError(f"the edit is {edit.status}, not live", where=edit_id)
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
