"""A calibration: what it learnt from, and what is expected of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from melo_cli.ui.elements import Element, Fields, Note, Table, View

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
_OTHERS_NOTE = (
    "in %, on the corpus, for each reader that has learnt it: the first two columns reach their edit, an "
    "edit answers the others wrongly. melo calibrate --set key.encoder=READER takes another; null is the "
    "base model"
)
_ENCODER_NOTES = (
    "a sentence encoder often takes more of the questions in other words:",
    "melo calibrate --set key.encoder=sentence-transformers/all-MiniLM-L6-v2",
)
_NOTE = (
    "in %: prompts that reach their edit, and prompts that an edit answers wrongly. corpus: invented "
    "questions of kinds that the measured model did not learn; own: this project's data, on edits that it "
    "did not learn"
)

_TUNED_NOTE = (
    "the encoder reads as melo has tuned it, on kinds of the corpus among others: the corpus's figures are "
    "some points too good"
)


def calibration_view(project: str, calibration: Calibration) -> View:
    """`melo calibrate`."""
    others = [{"encoder": other.encoder, "corpus": other.corpus} for other in calibration.others]
    document = {"project": project, **calibration.report(), "other_readers": others}
    return View(calibration_elements(calibration), document)


def calibration_elements(calibration: Calibration) -> list[Element]:
    """What an edit answers for from now on, as far as it was measured."""
    facts = Fields(
        [
            ("scope", "each edit's own prompt alone" if calibration.strictest else "verified"),
            ("read by", _ENCODER if calibration.encoder is not None else _BASE),
            ("learnt from", "the corpus and this project's data" if calibration.adapted else "the corpus"),
        ]
    )
    elements: list[Element] = [_kinds_table(calibration), Note(_NOTE), facts]
    if calibration.model.tuning.parts:
        elements.insert(2, Note(_TUNED_NOTE))
    if calibration.others:
        elements += [_readers_table(calibration), Note(_OTHERS_NOTE)]
    elif calibration.encoder is None:
        elements += [Note(line) for line in _ENCODER_NOTES]
    return elements


def _readers_table(calibration: Calibration) -> Table:
    """What each reader at hand gives on the corpus."""
    in_use = _ENCODER if calibration.encoder is not None else _BASE
    readers = [(f"{in_use}, now", calibration.corpus)]
    readers += [
        (_BASE if other.encoder is None else Path(other.encoder).name, other.corpus)
        for other in calibration.others
    ]
    rows = [(name, *(_percent(corpus.get(kind)) for kind in _KINDS)) for name, corpus in readers]
    return Table(("read by", *_SHORT), rows, right=frozenset(_SHORT))


def _kinds_table(calibration: Calibration) -> Table:
    """What prompts of each kind do, on the corpus and on the project's own data."""
    columns = ("should", "corpus", "own", "own prompts")
    rows = [
        (
            words,
            "reach" if kind in _ASKING else "not fire",
            _percent(calibration.corpus.get(kind)),
            _percent(calibration.own.get(kind)),
            str(calibration.counts.get(kind, 0)),
        )
        for kind, words in _KINDS.items()
    ]
    return Table(("prompt", *columns), rows, right=frozenset(columns[1:]))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
