"""The only code that changes the disk: write, fsync, rename, unlink, make a folder.

`disk` is for crash tests: replace it by another `Disk` to count the operations, or to stop at
one of them. An `OSError` leaves here as a `StorageError` that says what to do.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from melo_store.errors import StorageError

_HINTS = {
    errno.ENOSPC: ("the disk is full", "free some space and run the command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the command again"),
    errno.EROFS: ("the file system is read-only", "copy the project to a folder that can be written"),
    errno.EACCES: ("permission is denied", "change the permissions, or copy the project"),
    errno.EPERM: ("permission is denied", "change the permissions, or copy the project"),
}

_COPY_BYTES = 1 << 22
_GATHER_BYTES = 1 << 18


class Disk:
    """The operations that change a disk, one system call each."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

    def write(self, handle: int, data: memoryview) -> int:
        return os.write(handle, data)

    def fsync(self, handle: int) -> None:
        os.fsync(handle)

    def replace(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def remove_folder(self, path: Path) -> None:
        shutil.rmtree(path)


disk = Disk()


@dataclass(frozen=True, slots=True)
class Written:
    """Size in bytes and sha256 of a file just written."""

    size: int
    sha256: str


class Sink:
    """A writable file that knows how many bytes went into it and their sha256; small writes are gathered."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._hash = hashlib.sha256()
        self._gathered = bytearray()
        self.size = 0
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        part = memoryview(data).cast("B")
        self._hash.update(part)
        self.size += part.nbytes
        if len(self._gathered) + part.nbytes < _GATHER_BYTES:
            self._gathered += part
        else:
            self.flush()
            self._write_out(part)
        return part.nbytes

    def flush(self) -> None:
        """Write the gathered bytes."""
        gathered, self._gathered = self._gathered, bytearray()
        self._write_out(memoryview(gathered))

    def _write_out(self, rest: memoryview) -> None:
        while rest.nbytes:
            rest = rest[disk.write(self._handle, rest) :]

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        self.closed = True

    def written(self) -> Written:
        return Written(self.size, self._hash.hexdigest())


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a `StorageError`.

    Raises:
        StorageError: naming the file, the reason and what to do.
    """
    try:
        yield
    except OSError as error:
        what, hint = _HINTS.get(
            error.errno or 0, (error.strerror or str(error), "check the disk and try again")
        )
        raise StorageError(what, where=str(path), hint=hint) from error


def write_file(path: Path, produce: Callable[[Sink], object]) -> Written:
    """Write a whole file and force it to the disk; its name is durable only after `sync_folder`.

    Raises:
        StorageError: the file system refused.
    """
    with refusals(path):
        handle = disk.create(path)
        try:
            sink = Sink(handle)
            produce(sink)
            sink.flush()
            disk.fsync(handle)
        finally:
            os.close(handle)
    return sink.written()


def replace_file(path: Path, content: bytes, temporary: Path) -> Written:
    """Put new content under a name so that readers see all of the old or all of the new, even after a crash.

    Raises:
        StorageError: the file system refused; the old content stands.
    """
    written = write_file(temporary, lambda sink: sink.write(content))
    rename(temporary, path)
    return written


def copy(source: Path, target: Path) -> None:
    """Write a copy of a file and force it to the disk.

    Raises:
        StorageError: the file system refused.
    """

    def produce(sink: Sink) -> None:
        with source.open("rb") as file:
            while part := file.read(_COPY_BYTES):
                sink.write(part)

    write_file(target, produce)


def rename(source: Path, target: Path) -> None:
    """Rename within a project, and make the new name durable.

    Raises:
        StorageError: the file system refused.
    """
    with refusals(target):
        disk.replace(source, target)
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Force to the disk a file that another library wrote.

    Raises:
        StorageError: the file system refused.
    """
    with refusals(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            disk.fsync(handle)
        finally:
            os.close(handle)


def require_size(path: Path, size: int) -> None:
    """Make sure that a library that reports no write errors wrote all of a file.

    Raises:
        StorageError: it is shorter, as on a full disk.
    """
    if path.stat().st_size != size:
        raise StorageError(
            "the file could not be written completely",
            where=str(path),
            hint="free some space and run the command again",
        )


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        StorageError: the file system refused.
    """
    sync_file(path)


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are missing.

    Raises:
        StorageError: the file system refused.
    """
    with refusals(path):
        disk.make_folder(path)


def remove(path: Path) -> None:
    """Remove a file; one that is gone already is no error.

    Raises:
        StorageError: the file system refused.
    """
    with refusals(path):
        disk.unlink(path)


def size_on_disk(folder: Path) -> int:
    """Bytes of all files in a folder; a file that is removed meanwhile counts nothing.

    Raises:
        StorageError: the folder cannot be read.
    """
    total = 0
    with refusals(folder):
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size if path.is_file() else 0
    return total


def fingerprint(path: Path) -> Written:
    """Size and sha256 of a file on the disk.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    with refusals(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return Written(file.tell(), digest.hexdigest())


def remove_folder(path: Path, aside: Path) -> None:
    """Remove a folder and its content. It is renamed first; after a crash, a rest may be left under the new
    name.

    Raises:
        StorageError: the file system refused.
    """
    with refusals(path):
        disk.replace(path, aside)
        disk.remove_folder(aside)
