"""The root of every error that melo raises on purpose, and the store's own branch of it."""

from __future__ import annotations


class MeloError(Exception):
    """An error that the user can fix: one line that says what is wrong, where, and what to do about it.

    Args:
        what: what is wrong, a clause without a final stop.
        where: the file, recipe path or command that it is wrong in.
        hint: what to do about it, a clause without a final stop.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line}; {self.hint}" if self.hint else line
        return " ".join(line.split())


class ProjectError(MeloError):
    """A project cannot be read or written as asked."""


class ProjectNotFoundError(ProjectError):
    """There is no project at the path given."""


class ProjectExistsError(ProjectError):
    """The folder of a new project holds a project already."""


class ProjectLockedError(ProjectError):
    """Another process is writing to the project."""


class FormatVersionError(ProjectError):
    """The project was written by a newer melo than this one."""


class DamagedProjectError(ProjectError):
    """A file of the project is missing, cut short or changed."""


class StorageError(ProjectError):
    """The file system refused a read or write: disk full, read-only, no permission."""


class BaseMismatchError(ProjectError):
    """The project was made on another base model than the one given."""


class UnknownEditError(ProjectError):
    """No edit, block or snapshot of that name is in the project."""


class KeyShapeError(ProjectError):
    """A key or token vector has another size than those that the project holds, or is not finite."""


class InvalidEditError(ProjectError):
    """An edit or block handed to the store lacks something, or contradicts itself."""


class StaleWriteError(ProjectError):
    """Staged edits no longer fit the newest snapshot."""


class StoreWarning(UserWarning):
    """A fault that was repaired without the user, such as a rebuilt index."""
