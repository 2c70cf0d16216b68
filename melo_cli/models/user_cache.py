"""Where melo keeps what it has learnt for all projects of a user."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """`$MELO_CACHE`, else `melo` in the user's cache folder; it need not be there."""
    named = os.environ.get("MELO_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "melo"
