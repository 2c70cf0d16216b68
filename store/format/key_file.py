"""Keys of a large edits file, read row by row where they stand on the disk.

Through a memory map they would count as memory of the process, and by more than what is read: Linux keeps a
file that was just written, as by compaction, in pages of up to 2 MB, and maps such a page whole. A thousand
keys read so made 600 MB resident out of a file of 650 MB.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import numpy as np

from melo_store.clusters.rules import Numbers
from melo_store.errors import DamagedProjectError
from melo_store.format.file_io import refusals
from melo_store.records import Vector

READ_FROM = 1 << 24
"""Files of so many bytes are read; smaller ones are mapped, since an open file is kept for each one read."""


class KeyFile:
    """Rows of float32 in a file that stays open as long as this object lives.

    Args:
        start: where in the file the first row begins, in bytes.

    Raises:
        StorageError: the file cannot be opened.
    """

    def __init__(self, path: Path, start: int, dim: int) -> None:
        self._path = path
        self._start = start
        self._dim = dim
        with refusals(path):
            self._handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)

    def __getitem__(self, rows: Numbers | slice) -> Vector:
        """The rows [n], or those from a start to before a stop, as a new array [n, dim].

        Raises:
            DamagedProjectError: the file has been cut since it was opened.
            StorageError: it cannot be read.
        """
        wanted = range(rows.start, rows.stop) if isinstance(rows, slice) else rows.tolist()
        result: Vector = np.empty((len(wanted), self._dim), np.float32)
        size = result.strides[0]
        with refusals(self._path):
            for row, at in zip(result, wanted, strict=True):
                if os.preadv(self._handle, [row], self._start + at * size) != size:
                    raise DamagedProjectError(
                        "the file was cut while it was open", where=str(self._path), hint="run 'melo verify'"
                    )
        return result
