"""The two protocols of `melo eval`, what each measures, and the published figures of each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STRICT = "strict"
PAPER = "paper"
PROTOCOLS = (STRICT, PAPER)

_PUBLISHED = "as published (arXiv 2312.11795, Sec. 4): "
_PAPER = {
    "zsre": _PUBLISHED + "F1 of words between greedy answer and target, on the edits, their rephrases and "
    "unrelated questions; it credits answers that are partly right",
    "scotus": _PUBLISHED + "accuracy on the edits and on unrelated documents",
    "hallucination": _PUBLISHED + "perplexity (lower is better) of the edits' targets, of unrelated text "
    "and of accurate text (ARR); weighted by token and routed by the prompt alone, unlike there",
}
_TEACHER_FORCED = (
    "teacher-forced accuracy on edits, rephrases and unrelated prompts, as the literature reports it (the "
    "paper has no such task); the model is given the target's tokens so far, which flatters"
)


MADE = {
    "same_subject": "another edit's question, asked about this edit's subject, of which no edit asks it",
    "hard": "an edit's own question, asked about another edit's subject, of which no edit asks it",
}
"""How prompts that must stay are made where the data give none. Calibration makes none of these: its
negatives are of the corpus, and the data's own prompts as they stand."""


def measured(protocol: str, task: str) -> str:
    """What a protocol measures, in one line."""
    if protocol == PAPER:
        return _PAPER.get(task, _TEACHER_FORCED)
    return (
        "after all edits, every prompt asked alone: greedy answers that match exactly, rephrases that "
        "calibration has not seen, agreement with the unedited model on other questions about an edit's "
        "subject, on its question about other subjects (hard) and on unrelated prompts"
    )


def published(task: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The published measure of a task, from METRICS.

    Returns:
        `measure` (F1, accuracy, perplexity, or teacher-forced accuracy where the paper has no such task),
        `edit_success`, `generality`, `locality` and `arr`, each null where the task has none.
    """
    names = {"edit_success": "edit_success", "generality": "generality", "locality": "locality_truth"}
    if task == "hallucination":
        return {
            "measure": "perplexity",
            "edit_success": figures["perplexity_edits"],
            "generality": None,
            "locality": figures["perplexity_unrelated"],
            "arr": figures["arr"],
        }
    measure, part = {"zsre": ("F1", "f1"), "scotus": ("accuracy", "generation")}.get(
        task, ("teacher-forced accuracy", "teacher_forced")
    )
    shares = {name: figures[metric] for name, metric in names.items()}
    return {
        "measure": measure,
        **{name: share[part] if share is not None else None for name, share in shares.items()},
        "arr": None,
    }


def unfired(figures: Mapping[str, Any]) -> str:
    """What of the agreement of prompts that no edit answered was measured; nothing where none was asked."""
    checked, agree = figures["unfired_checked"], figures["unfired_agree"]
    if not checked:
        return ""
    return (
        "a prompt that no edit answers is answered by the same weights in both models, and so agrees by "
        f"construction; {checked} of them were asked again, in batches with prompts that edits answer, and "
        f"{agree} of these were answered as before"
    )
