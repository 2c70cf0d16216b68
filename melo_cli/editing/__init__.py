"""Making edits: plan, train, check, commit."""

from melo_cli.editing.editor import EditOutcome
from melo_cli.editing.run import EditSummary, edit_dataset, edit_single

__all__ = ["EditOutcome", "EditSummary", "edit_dataset", "edit_single"]
