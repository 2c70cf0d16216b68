"""`melo export --format routed`: base model and edits in one folder that `melo_cli.load` opens."""

from __future__ import annotations

from pathlib import Path

from melo_cli.exporting.card import routed_card
from melo_cli.exporting.folder import ExportSummary, new_folder, summary
from melo_cli.fingerprint import weight_files
from melo_cli.loading import OpenProject
from melo_cli.projects import EXPORTED_PROJECT
from melo_cli.reporter import Reporter


def export_routed(
    opened: OpenProject, folder: Path, reporter: Reporter, *, overwrite: bool = False
) -> ExportSummary:
    """Copy the base checkpoint as it is, and the project's snapshot beside it.

    Raises:
        ExportError: the folder exists already, or cannot be written.
    """
    base = opened.routed.base
    weights = weight_files(base.folder)
    files = [*weights, *(path for path in base.folder.iterdir() if path.is_file() and _belongs(path))]
    with new_folder(folder, overwrite=overwrite, record=opened.describe("routed")) as work:
        with reporter.progress("copying", sum(path.stat().st_size for path in files), "bytes") as progress:
            for path in files:
                # Hub caches hold links: copy what they lead to.
                (work / path.name).write_bytes(path.read_bytes())
                progress.advance(path.stat().st_size)
        base.tokenizer.save_pretrained(work)
        opened.project.copy_to(work / EXPORTED_PROJECT)
        (work / "README.md").write_text(routed_card(opened), encoding="utf-8")
    return summary("routed", folder, len(opened.project.block_ids()), {})


def _belongs(path: Path) -> bool:
    """Whether a file goes with the weights: settings, tokenizer, code, and no second copy of them."""
    return path.suffix in {".json", ".txt", ".model", ".py", ".jinja"}
