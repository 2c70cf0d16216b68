"""The interface of a baseline: settings, and an editor that uses them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from melo_cli.models.encoding import EncodedEdit
from melo_cli.reporter import Progress
from melo_cli.runtime.loading import OpenProject


@dataclass(frozen=True)
class EditedModel:
    """A project's base model after another editor's work.

    Attributes:
        opened: asks the model.
        settings: what it was trained with, nothing left to be looked up.
        stored_bytes: what keeping its edits takes beside the base model.
    """

    opened: OpenProject
    settings: dict[str, Any]
    stored_bytes: int


class Baseline(BaseModel):
    """Another editor; the fields of a subclass are its settings.

    Attributes:
        name: as `--baseline` names it.
        routes: whether it has a router of its own, which an evaluation then asks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    routes: ClassVar[bool] = False

    @abstractmethod
    def edited(
        self,
        opened: OpenProject,
        batches: Sequence[Sequence[EncodedEdit]],
        edit_ids: Sequence[str],
        progress: Progress,
    ) -> AbstractContextManager[EditedModel]:
        """Inside the `with` statement the base model has the edits; afterwards it is as before.

        Args:
            opened: the project whose base model is edited.
            batches: the edits, encoded.
            edit_ids: of all edits, in the order of the batches.
            progress: advances by the edits that are made.
        """
