"""Writes an artefact to a temporary folder and renames it when it is complete."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melo_cli.errors import ExportError


@dataclass(frozen=True)
class ExportSummary:
    """What one export wrote.

    Attributes:
        format: `peft`, `gguf`, `routed` or `merged`.
        figures: for a merge, METRICS of `base`, `routed` and `merged`; empty otherwise.
        method: how a merge was made.
        seconds: time to find and write the weights of a merge.
    """

    format: str
    folder: Path
    files: int
    bytes: int
    blocks: int
    figures: dict[str, dict[str, Any]]
    method: str | None = None
    seconds: float | None = None


# Marks a folder that melo wrote, and says from which project; `--overwrite` replaces only such a folder.
RECORD = "melo_export.json"


def export_record(folder: Path) -> dict[str, Any] | None:
    """The `format`, `project`, `snapshot` and `base` of an artefact; None of a folder that is none."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "format" in record else None


@contextmanager
def new_folder(target: Path, *, overwrite: bool, record: Mapping[str, str | int]) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` at the end, or removed if anything fails.

    Args:
        target: the folder of the artefact.
        overwrite: replace a folder that melo exported.
        record: description of the artefact, written into it as `melo_export.json`.

    Raises:
        ExportError: `target` exists and may not be overwritten, or cannot be written.
    """
    _require_free(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ExportError(
            f"the folder cannot be written ({error.strerror})", where=str(target.parent)
        ) from error
    try:
        yield work
        (work / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        _replace(work, target)
    except OSError as error:
        raise ExportError(
            f"the folder cannot be written ({error.strerror or error})", where=str(target)
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def summary(
    format_name: str, folder: Path, blocks: int, figures: dict[str, dict[str, Any]], **merge: Any
) -> ExportSummary:
    """The summary of an artefact in `folder`, with its files counted; `merge` gives the fields of a merge."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return ExportSummary(format_name, folder, len(files), size, blocks, figures, **merge)


def _require_free(target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise ExportError(
            "the folder exists already", where=str(target), hint="choose another folder or add --overwrite"
        )
    if not (target / RECORD).is_file():
        raise ExportError(
            "melo did not export this folder, so it is not overwritten",
            where=str(target),
            hint="choose another folder",
        )


def _replace(work: Path, target: Path) -> None:
    work.chmod(0o755)
    if not target.exists():
        work.rename(target)
        return
    # A folder cannot be renamed onto one that has files, so the old one is moved away first.
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    target.rename(aside / target.name)
    try:
        work.rename(target)
    except OSError:
        (aside / target.name).rename(target)
        raise
    finally:
        shutil.rmtree(aside)
