"""The base model as a project holds it: by reference."""

from __future__ import annotations

from melo_cli.models.base_model import BaseModel
from melo_store.records import BaseReference


def base_reference(base: BaseModel) -> BaseReference:
    """What the project of a base model records of it, and is compared with when it is opened again."""
    of = base.reference
    return BaseReference(of.name_or_path, of.revision, of.fingerprint)
