"""The data of a calibration: edits of its share of the subjects, their rephrases, and unrelated prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from melo_cli.datasets import EditRequest
from melo_cli.paraphrase.subject_swaps import asks_of_same_subject, is_hard_locality, normalized

_MOST_OTHERS = 4000
"""Largest number of neurons besides the calibration edits: all distances between them are held in memory."""


@dataclass(frozen=True)
class CalibrationEdit:
    """An edit that calibration uses, with its rephrases.

    Attributes:
        prompt: prompt of the edit.
        answer: target of the edit; a rephrase must reach an edit with this answer.
        rephrases: rephrases of the data; empty if there are none.
        subject: what it is about; None if that is not known.
        group: edits of one group have one subject; no edit is a negative of another one of its group.
        hard: hard prompts of the data, which must not fire.
        same_subject: same-subject prompts of the data.
    """

    prompt: str
    answer: str
    rephrases: tuple[str, ...]
    subject: str | None
    group: str
    hard: tuple[str, ...] = ()
    same_subject: tuple[str, ...] = ()


@dataclass(frozen=True)
class CalibrationData:
    """The prompts of one calibration.

    Attributes:
        calibration_edits: the edits to learn from and to measure.
        unrelated: unrelated prompts.
        given: whether the data have rephrases.
        others: the other edits, by their prompts alone; nothing is learned from them.
        neurons: number of edits that the project will hold. False fires grow with it, so `others` are stored
            too while false fires are counted.
    """

    calibration_edits: tuple[CalibrationEdit, ...]
    unrelated: tuple[str, ...]
    given: bool
    others: tuple[CalibrationEdit, ...]
    neurons: int

    def prompts(self) -> list[str]:
        """Every prompt of the data that calibration learns from or measures, without those of `others`."""
        asked = [
            text
            for a in self.calibration_edits
            for text in (a.prompt, *a.rephrases, *a.hard, *a.same_subject)
        ]
        return [*asked, *self.unrelated]


def collect_calibration_data(
    edits: Sequence[EditRequest],
    unrelated: Iterable[str],
    *,
    task: str,
    share: float,
    unrelated_share: float,
    most: int,
    seed: int,
    excluded: Sequence[EditRequest] = (),
) -> CalibrationData:
    """Take calibration's share of the edits and of the unrelated prompts.

    The share is drawn by subject (by prompt, if an edit names no subject) from a digest of seed and subject.
    So a subject stays on its side whatever else the data hold. An edit's own locality prompts go with it.

    Args:
        edits: edits to draw from.
        unrelated: unrelated prompts to draw from.
        task: task of the recipe.
        share: share of the subjects to draw.
        unrelated_share: share of `unrelated` to draw.
        most: largest number of calibration edits.
        seed: seed of the draw.
        excluded: edits that evaluation will measure; calibration edits with their subjects or prompts are
            left out.
    """
    measured = {_group(edit) for edit in excluded} | {normalized(edit.prompt) for edit in excluded}
    chosen: dict[str, EditRequest] = {}
    for edit in edits:
        if _drawn(_group(edit), share, seed) and not {_group(edit), normalized(edit.prompt)} & measured:
            chosen.setdefault(normalized(edit.prompt), edit)
    kept = sorted(chosen.values(), key=lambda edit: _position(_group(edit), seed))[:most]
    calibration_edits = tuple(_calibration_edit(edit, task) for edit in kept)
    asked = {
        normalized(text)
        for a in calibration_edits
        for text in (a.prompt, *a.rephrases, *a.hard, *a.same_subject)
    }
    own = [prompt for edit in kept for prompt, _ in edit.locality]
    free = [prompt for prompt in unrelated if _drawn(normalized(prompt), unrelated_share, seed)]
    others_by_text = {
        normalized(prompt): prompt for prompt in (*own, *free) if normalized(prompt) not in asked
    }
    stored = {normalized(edit.prompt): edit for edit in excluded or edits}
    others = [edit for prompt, edit in stored.items() if prompt not in asked][:_MOST_OTHERS]
    return CalibrationData(
        calibration_edits,
        tuple(others_by_text.values())[: 2 * most],
        any(calibration_edit.rephrases for calibration_edit in calibration_edits),
        tuple(CalibrationEdit(edit.prompt, edit.target, (), edit.subject, _group(edit)) for edit in others),
        len(stored),
    )


def _calibration_edit(edit: EditRequest, task: str) -> CalibrationEdit:
    prompts = [prompt for prompt, _ in edit.locality]
    same = tuple(prompt for prompt in prompts if asks_of_same_subject(edit, prompt))
    hard = tuple(prompt for prompt in prompts if is_hard_locality(edit, prompt, task) and prompt not in same)
    return CalibrationEdit(edit.prompt, edit.target, edit.rephrases, edit.subject, _group(edit), hard, same)


def _group(edit: EditRequest) -> str:
    return normalized(edit.subject) if edit.subject and edit.subject.strip() else normalized(edit.prompt)


def _drawn(group: str, share: float, seed: int) -> bool:
    return _position(group, seed) < share


def _position(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on seed and group alone."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
