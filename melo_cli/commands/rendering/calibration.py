"""A calibration as people read it: what was learnt from, and what is expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melo_cli.terminal import Table, Terminal

if TYPE_CHECKING:
    from melo_cli.calibration import Calibration

_KINDS = {
    "rephrase": "the question in other words",
    "noisy": "the same within other text, or with typos",
    "same_subject": "another question about the subject",
    "hard": "the question about another subject",
    "unrelated": "something else",
}
_ASKING = ("rephrase", "noisy")
_NOTE = (
    "in %: prompts that reach their edit, and prompts that an edit answers wrongly. corpus: invented "
    "questions of kinds that the measured model did not learn; own: this project's data, on edits that it "
    "did not learn"
)


def show_calibration(terminal: Terminal, found: Calibration) -> None:
    """What an edit answers for from now on, as far as it was measured."""
    terminal.table(_table(found))
    terminal.note(_NOTE)
    terminal.fields(
        [
            ("scope", "each edit's own prompt alone" if found.strictest else "verified"),
            ("read by", "the sentence encoder" if found.encoder is not None else "the base model"),
            ("learnt from", "the corpus and this project's data" if found.moved else "the corpus"),
        ]
    )


def calibration_document(project: str, found: Calibration) -> dict[str, Any]:
    """`melo calibrate --json`."""
    return {"project": project, **found.report()}


def _table(found: Calibration) -> Table:
    columns = ("should", "corpus", "own", "own prompts")
    rows = [
        (
            words,
            "reach" if kind in _ASKING else "not fire",
            _percent(found.corpus.get(kind)),
            _percent(found.own.get(kind)),
            str(found.counts.get(kind, 0)),
        )
        for kind, words in _KINDS.items()
    ]
    return Table(("prompt", *columns), rows, right=frozenset(columns[1:]))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
