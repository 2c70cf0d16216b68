"""Checks whether the base model is still that of the project, from its files, without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melo_cli.errors import BaseMismatchError, DamagedProjectError
from melo_cli.models.fingerprint import fingerprint
from melo_cli.models.hub_cache import cached_checkpoint, is_hub_id
from melo_cli.recipe import ModelSection
from melo_store.format.manifest import read_head, read_snapshot
from melo_store.maintenance.verify import Finding
from melo_store.records import BaseReference


@dataclass(frozen=True)
class BaseCheck:
    """The result of the check.

    Attributes:
        folder: where the base model's files lie; None where they were not found.
        unchecked: why it was not checked; None where it was.
        finding: how it is another base than the project's; None where it is the same or was not checked.
    """

    folder: Path | None
    unchecked: str | None = None
    finding: Finding | None = None


QUICK = BaseCheck(None, "--quick reads no files")
"""The base model is left alone."""


def check_base(root: Path, given: str | None) -> BaseCheck:
    """Compare a project's base model with its fingerprint, if the base model is on this machine.

    Nothing is downloaded: a model of the hub is looked for in the hub's local cache.

    Args:
        given: folder or hub id of the base model; None is what the project names.

    Raises:
        ModelError: the folder holds no checkpoint.
    """
    try:
        head = read_head(root)
        reference = head.base
        model = read_snapshot(root, head.newest).info.recipe.get("model")
    except DamagedProjectError:
        return BaseCheck(None, "the project's manifest, which names it, is broken")
    gguf_file = str(model["gguf_file"]) if isinstance(model, dict) and model.get("gguf_file") else None
    section = ModelSection(name_or_path=reference.name_or_path, gguf_file=gguf_file)
    section = section.at(given) if given is not None else section
    named = BaseReference(section.name_or_path, reference.revision, {})
    folder = Path(named.name_or_path).expanduser()
    if not folder.is_dir():
        if not is_hub_id(named.name_or_path):
            return BaseCheck(None, f"there is no folder {folder} here; name it with --base")
        cached = cached_checkpoint(named.name_or_path, named.revision)
        if cached is None:
            what = f"{named.describe()} is no folder here, and not whole in the hub's local cache"
            return BaseCheck(None, f"{what}; name a folder with --base")
        folder = cached
    try:
        reference.require_same(BaseReference(str(folder), None, fingerprint(folder, section.gguf_file)))
    except BaseMismatchError as error:
        lost = "every answer of an edit, until the base model is back"
        return BaseCheck(folder, finding=Finding(str(folder), error.what, lost))
    return BaseCheck(folder)
