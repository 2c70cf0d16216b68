"""`melo` in processes of its own, that a test may watch, interrupt and kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A busy machine, on which each process of a run loads a base.
PATIENCE = 300


class Melo:
    """`melo` in a folder, as processes of their own.

    Args:
        folder: where the recipe `pico.yaml` is, and its projects come to be.
        settings: `OMP_NUM_THREADS` and the like.
    """

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **settings}

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command line."""
        return subprocess.Popen(
            [sys.executable, "-m", "melo_cli", *(str(argument) for argument in arguments)],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object, code: int = 0) -> tuple[str, str]:
        """Run a command line that ends with `code`: what it printed, and its messages."""
        return self.end(self.start(*arguments), code)

    def end(self, process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
        """Wait for the end of a command line."""
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"it does not end: {err}")
        assert process.returncode == code, err
        return out, err

    def until_snapshot(self, project: str, number: int, process: subprocess.Popen[str]) -> None:
        """Wait until a run has committed the snapshot of this number."""
        snapshot = self.folder / project / "snapshots" / f"{number:06d}.json"
        while not snapshot.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
