"""melo's errors: one root (`MeloError`), a branch for each thing a user hands in."""

from __future__ import annotations

from store.errors import (
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


class PromptError(MeloError):
    """A prompt is empty or longer than the model takes."""


class ExportError(MeloError):
    """An artefact cannot be written as asked."""


class ArtefactError(MeloError):
    """An artefact was written and does not hold what it was to hold."""

    exit_code = 1


__all__ = [
    "ArtefactError",
    "BaseMismatchError",
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
    "StorageError",
    "UnknownEditError",
]
