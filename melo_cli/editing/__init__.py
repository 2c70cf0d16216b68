"""Making edits: plan, train, check, commit."""

from melo_cli.editing.contradictions import Contradiction
from melo_cli.editing.editor import EditOutcome
from melo_cli.editing.project_setup import calibrate_again
from melo_cli.editing.run import EditSummary, edit_dataset, edit_first, edit_opened, edit_single

__all__ = [
    "Contradiction",
    "EditOutcome",
    "EditSummary",
    "calibrate_again",
    "edit_dataset",
    "edit_first",
    "edit_opened",
    "edit_single",
]
