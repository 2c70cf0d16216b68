"""What calibration may look at: edits of its share of the subjects, their rephrases, unrelated prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from melo_cli.datasets import EditRequest
from melo_cli.paraphrase.subject_swaps import asks_of_same_subject, is_hard_locality, normalized

_MOST_OTHERS = 4000
"""Neurons beside the anchors, at most: all distances between them are held in memory."""


@dataclass(frozen=True)
class CalibrationEdit:
    """A prompt as an edit would store it, with the same question in other words.

    Attributes:
        answer: what the edit wants answered; a rephrase is led right where it reaches this answer.
        rephrases: as the data give them; empty where they give none.
        subject: what it is about; None where that is not known.
        hard: prompts that read like it and must not fire, as the data give them.
        same_subject: other questions about its subject, as the data give them.
        group: anchors of one group are about the same thing and are never held against each other.
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
        given: whether the rephrases come from the data; else they are made.
        others: the edits that are no anchors, by their prompts alone; nothing is learned from them.
        neurons: how many edits the project will hold. False fires grow with their number, so `others` fill up
            what is stored while they are counted.
    """

    calibration_edits: tuple[CalibrationEdit, ...]
    unrelated: tuple[str, ...]
    given: bool
    others: tuple[CalibrationEdit, ...]
    neurons: int

    def prompts(self) -> list[str]:
        """Every prompt of the data that calibration learns from or measures, those of `others` left out."""
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
    apart_from: Sequence[EditRequest] = (),
) -> CalibrationData:
    """Take calibration's share of the edits and of the unrelated prompts.

    The share is drawn by subject (by prompt, where an edit names none), from a digest of seed and subject:
    whatever else the data hold, a subject stays on its side. An edit's own locality prompts go with it.

    Args:
        share: of the subjects.
        unrelated_share: of `unrelated`.
        most: anchors at most.
        apart_from: edits that evaluation will measure; anchors of their subjects and prompts are left out.
    """
    measured = {_group(edit) for edit in apart_from} | {normalized(edit.prompt) for edit in apart_from}
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
    apart = {normalized(prompt): prompt for prompt in (*own, *free) if normalized(prompt) not in asked}
    stored = {normalized(edit.prompt): edit for edit in apart_from or edits}
    others = [edit for prompt, edit in stored.items() if prompt not in asked][:_MOST_OTHERS]
    return CalibrationData(
        calibration_edits,
        tuple(apart.values())[: 2 * most],
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
