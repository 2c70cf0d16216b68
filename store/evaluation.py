"""The last evaluation of a project, kept for people: no commit names it, and nothing depends on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from melo_store.errors import DamagedProjectError
from melo_store.format import file_io, layout
from melo_store.records import JSON


def keep_evaluation(root: Path, figures: Mapping[str, JSON]) -> None:
    """Keep the figures of an evaluation, in place of those of the one before.

    Args:
        root: the project's folder.
        figures: the figures; the store does not interpret them, and adds `evaluated_at`.

    Raises:
        StorageError: the file system refused.
    """
    document = {**figures, "evaluated_at": datetime.now(UTC).isoformat()}
    path = layout.inside(root, layout.EVALUATION)
    file_io.replace_file(path, json.dumps(document, indent=1).encode(), layout.temporary(path))


def last_evaluation(root: Path) -> Mapping[str, JSON] | None:
    """The figures that `keep_evaluation` kept; None if there are none.

    Raises:
        DamagedProjectError: the file is broken.
    """
    path = layout.inside(root, layout.EVALUATION)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(document, dict):
        raise _damaged(path)
    return document


def _damaged(path: Path) -> DamagedProjectError:
    return DamagedProjectError(
        "the figures of the last evaluation cannot be read",
        where=str(path),
        hint="run `melo eval` again",
    )
