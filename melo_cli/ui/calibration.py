"""A calibration as people read it: what was learnt from, and what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from melo_cli.ui.elements import Table
from melo_cli.ui.terminal import Terminal

if TYPE_CHECKING:
    from melo_cli.calibration import Calibration

_KINDS = {
    "rephrase": "the question in other words",
    "noisy": "the same within other text, or with typos",
    "same_subject": "another question about the subject",
    "hard": "the question about another subject",
    "unrelated": "something else",
}
_SHORT = ("other words", "other text", "same subj.", "other subj.", "else")
"""The kinds as heads of narrow columns."""
_BASE, _ENCODER = "the base model", "the sentence encoder"
_ASKING = ("rephrase", "noisy")
_OTHERS = (
    "in %, on the corpus, for each reader that has learnt it: the first two columns reach their edit, an "
    "edit answers the others wrongly. melo calibrate --set key.encoder=READER takes another; null is the "
    "base model"
)
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
            ("read by", _ENCODER if found.encoder is not None else _BASE),
            ("learnt from", "the corpus and this project's data" if found.adapted else "the corpus"),
        ]
    )
    if found.others:
        terminal.table(_readers(found))
        terminal.note(_OTHERS)


def _readers(found: Calibration) -> Table:
    """What each reader at hand gives on the corpus."""
    in_use = _ENCODER if found.encoder is not None else _BASE
    readers = [(f"{in_use}, now", found.corpus)]
    readers += [
        (_BASE if other.encoder is None else Path(other.encoder).name, other.corpus) for other in found.others
    ]
    rows = [(name, *(_percent(corpus.get(kind)) for kind in _KINDS)) for name, corpus in readers]
    return Table(("read by", *_SHORT), rows, right=frozenset(_SHORT))


def calibration_document(project: str, found: Calibration) -> dict[str, Any]:
    """`melo calibrate --json`."""
    others = [{"encoder": other.encoder, "corpus": other.corpus} for other in found.others]
    return {"project": project, **found.report(), "other_readers": others}


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
