"""One writer at a time: a lock of the operating system, which no dead process holds, and who holds it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from melo_store.errors import ProjectLockedError, StorageError
from melo_store.format import file_io, layout

_MAX_NOTE = 4096


@contextmanager
def writing(root: Path, timeout: float) -> Iterator[None]:
    """Hold the writer's lock of a project.

    Args:
        timeout: seconds to wait for another writer; 0 does not wait.

    Raises:
        ProjectLockedError: another process is writing; names its pid, its host and since when.
        StorageError: the lock file cannot be written.
    """
    path = root / layout.LOCK
    lock = FileLock(path, thread_local=False)
    with file_io.refusals(path):
        try:
            lock.acquire(timeout=timeout)
        except Timeout as error:
            raise ProjectLockedError(
                f"the project is locked by {_holder(root)}",
                where=str(root),
                hint="wait for it to finish, or stop it",
            ) from error
    note = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
    target = root / layout.LOCK_HOLDER
    try:
        file_io.replace_file(target, json.dumps(note).encode(), layout.temporary(target))
        try:
            yield
        finally:
            with suppress(StorageError):  # a note that stays behind says nothing once the lock is free
                file_io.remove(target)
    finally:
        lock.release()


def _holder(root: Path) -> str:
    """The holder of the lock, read from the note beside it; the note may be missing for a moment."""
    try:
        with (root / layout.LOCK_HOLDER).open("rb") as file:
            note = json.loads(file.read(_MAX_NOTE))
        return f"process {int(note['pid'])} on {note['host']} since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
