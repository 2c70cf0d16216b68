"""melo's errors: one root (`MeloError`), and a class for each kind of input and output."""

from __future__ import annotations

from melo_store.errors import (
    BaseMismatchError,
    DamagedProjectError,
    FormatVersionError,
    KeyShapeError,
    MeloError,
    ProjectError,
    ProjectExistsError,
    ProjectLockedError,
    ProjectNotFoundError,
    StorageError,
    UnknownEditError,
)


class RecipeError(MeloError):
    """A recipe has an unknown key, a wrong type or a value that does not fit."""


class DatasetError(MeloError):
    """A data file is missing, unreadable, or has a row that is no edit."""


class ModelError(MeloError):
    """A model cannot be loaded, or does not fit the task or the recipe."""


class TrustError(ModelError):
    """A model needs permission that is not given: its weights are pickled, or it has its own code.

    Args:
        setting: the key of a recipe's `model` section that gives the permission.
        hint: with `{switch}` for what to add to the command line: the recipe's key, unless the command has no
            recipe and calls `name_option`.
    """

    def __init__(self, what: str, *, where: str, setting: str, hint: str) -> None:
        super().__init__(what, where=where, hint=hint.format(switch=f"--set model.{setting}=true"))
        self._option = hint.format(switch=f"--{setting.replace('_', '-')}")

    def name_option(self) -> None:
        """Name the command's own option (`--allow-pickle` for `allow_pickle`), not the recipe's key."""
        self.hint = self._option


class RoomError(MeloError):
    """A run needs more memory or disk than there is."""


class PromptError(MeloError):
    """A prompt is empty or longer than the model takes."""


class ServeError(MeloError):
    """A server cannot be started as asked."""


class ClusterError(MeloError):
    """Workers on a Ray cluster cannot do their part."""


class ExportError(MeloError):
    """An artefact cannot be written as asked."""


class ArtefactError(MeloError):
    """An artefact was written, but does not answer or keep what it must."""

    exit_code = 1


__all__ = [
    "ArtefactError",
    "BaseMismatchError",
    "ClusterError",
    "DamagedProjectError",
    "DatasetError",
    "ExportError",
    "FormatVersionError",
    "KeyShapeError",
    "MeloError",
    "ModelError",
    "ProjectError",
    "ProjectExistsError",
    "ProjectLockedError",
    "ProjectNotFoundError",
    "PromptError",
    "RecipeError",
    "RoomError",
    "ServeError",
    "StorageError",
    "TrustError",
    "UnknownEditError",
]
