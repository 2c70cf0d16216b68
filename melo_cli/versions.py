"""The versions that a commit was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version

_LIBRARIES = ("melo-cli", "torch", "transformers", "peft", "numpy", "pyarrow", "hnswlib")


def library_versions() -> dict[str, str]:
    """Versions of melo, Python and the libraries that edits depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}
