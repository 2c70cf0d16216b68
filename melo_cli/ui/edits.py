"""What a run of `melo edit` did, and one edit as `melo show` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from melo_cli.ui.calibration import calibration_elements
from melo_cli.ui.elements import Element, Fields, Message, Note, Table, View
from melo_cli.ui.text import shortened, to_the_second
from melo_cli.units import human_bytes

if TYPE_CHECKING:
    from melo_cli.editing import Contradiction, EditOutcome, EditSummary
    from melo_store.records import ClusterInfo, EditView

_ROWS_SHOWN = 10
_OUTCOMES = {
    "solved": "made",
    "already_right": "right already: the model answers so without an edit",
    "failed": "failed: no training made the model answer so",
    "superseded": "superseded",
}
_TO_TRY = (
    "to try these again: the same command with more steps (--set training.max_steps=...), "
    "a higher rank (lora.rank), smaller batches (training.batch_size)"
)
_BOTH_STAY = (
    "both edits stay, and each answers what is nearest to its own words; to change the other one too, "
    "edit its prompt (melo edit --prompt ... --target ...), or take it back (melo revert)"
)


def edits_view(summary: EditSummary, superseded: int) -> View:
    """`melo edit` with many edits: their calibration, the counts, and the edits that failed."""
    elements = calibration_elements(summary.calibration) if summary.calibration is not None else []
    elements.append(Fields(_counts(summary, superseded)))
    if summary.failures:
        elements += [_failures_table(summary), Note(_TO_TRY)]
    if summary.contradictions:
        elements += [_contradictions_table(summary), Note(_BOTH_STAY)]
    return View(elements, _summary_document(summary, superseded))


def single_edit_view(summary: EditSummary, superseded: int, view: EditView) -> View:
    """`melo edit` with one edit: the answers before and after, and what is near it."""
    (outcome,) = summary.outcomes
    near = summary.side_effects
    elements: list[Element] = [
        Fields(
            [
                ("edit", f"{outcome.edit_id}, {_OUTCOMES[outcome.status]}"),
                ("prompt", outcome.prompt),
                *([("subject", view.record.subject)] if view.record.subject else []),
                *([("supersedes", ", ".join(view.record.supersedes))] if view.record.supersedes else []),
                *([("contradicts", contradicted(outcome.contradicts))] if outcome.contradicts else []),
                ("before", outcome.before),
                ("now", outcome.answer),
                *(("also answers", text) for text in (near.answered if near else ())),
                *(("leaves alone", text) for text in (near.left if near else ())),
                ("snapshot", str(summary.snapshot)),
            ]
        )
    ]
    elements += [Message(_moved(text), warning=True) for text in (near.moved if near else ())]
    if outcome.status == "failed":
        elements.append(Note(_TO_TRY))
    if outcome.contradicts:
        elements.append(Note(_BOTH_STAY))
    return View(elements, _summary_document(summary, superseded))


def contradicted(other: Contradiction) -> str:
    """An edit that contradicts another one, in a line."""
    return f'{other.edit_id} "{shortened(other.prompt)}", which answers "{shortened(other.target)}"'


def _moved(prompt: str) -> str:
    return f"{prompt!r} was to stay as it is, and an edit answers it now; `melo query` says which"


def _counts(summary: EditSummary, superseded: int) -> list[tuple[str, str]]:
    pairs = [
        ("made", str(summary.count("solved"))),
        ("already right", str(summary.count("already_right"))),
        ("failed", str(summary.count("failed"))),
        ("superseded", str(superseded) if superseded else ""),
        ("contradicting", str(len(summary.contradictions)) if summary.contradictions else ""),
        ("in the project before", str(summary.recorded_before) if summary.recorded_before else ""),
        ("still to do", str(summary.left) if summary.left else ""),
        ("seconds", f"{summary.seconds:.1f}"),
        ("edits/s", f"{_rate(summary):.2f}"),
        ("store", human_bytes(summary.store_bytes)),
        ("snapshot", str(summary.snapshot)),
    ]
    return [(name, value) for name, value in pairs if value]


def _summary_document(summary: EditSummary, superseded: int) -> dict[str, Any]:
    return {
        "project": summary.project,
        "path": str(summary.path),
        "snapshot": summary.snapshot,
        "made": summary.count("solved"),
        "already_right": summary.count("already_right"),
        "failed": summary.count("failed"),
        "superseded": superseded,
        "recorded_before": summary.recorded_before,
        "left": summary.left,
        "seconds": summary.seconds,
        "edits_per_second": _rate(summary),
        "store_bytes": summary.store_bytes,
        "edits": [outcome_document(outcome) for outcome in summary.outcomes],
        "near": None if summary.side_effects is None else asdict(summary.side_effects),
    }


def outcome_document(outcome: EditOutcome) -> dict[str, Any]:
    """What became of one edit."""
    return {
        "edit_id": outcome.edit_id,
        "status": outcome.status,
        "prompt": outcome.prompt,
        "target": outcome.target,
        "before": outcome.before,
        "answer": outcome.answer,
        "contradicts": None if outcome.contradicts is None else asdict(outcome.contradicts),
    }


def stored_edit_view(view: EditView) -> View:
    """`melo show`."""
    return View([Fields(_edit_fields(view))], _edit_document(view))


def _edit_fields(view: EditView) -> list[tuple[str, str]]:
    """One edit in named lines; what it does not have is left out."""
    record, cluster = view.record, view.cluster
    pairs = [
        ("edit", record.edit_id),
        ("status", view.status),
        ("prompt", record.prompt),
        ("target", record.target),
        *(("rephrase", text) for text in record.rephrases),
        *(
            ("unrelated", prompt if truth is None else f"{prompt} -> {truth}")
            for prompt, truth in record.locality
        ),
        ("subject", record.subject or ""),
        *((f"metadata {name}", str(value)) for name, value in record.metadata.items()),
        ("answer", str(record.metrics.get("answer", ""))),
        ("made", f"{to_the_second(record.created_at)} UTC"),
        ("block", record.block or ("none, the base is right" if cluster else "")),
        ("cluster", _cluster(cluster) if cluster else ""),
        ("radius", f"{cluster.radius:.4g}" if cluster else ""),
        ("supersedes", ", ".join(record.supersedes)),
        ("superseded by", view.superseded_by or ""),
    ]
    return [(name, value) for name, value in pairs if value]


def _edit_document(view: EditView) -> dict[str, Any]:
    record, cluster = view.record, view.cluster
    return {
        "edit_id": record.edit_id,
        "status": view.status,
        "committed_status": record.status,
        "prompt": record.prompt,
        "target": record.target,
        "rephrases": record.rephrases,
        "locality": [{"prompt": prompt, "target": truth} for prompt, truth in record.locality],
        "subject": record.subject,
        "metadata": record.metadata,
        "metrics": record.metrics,
        "created_at": record.created_at.isoformat(),
        "block": record.block,
        "cluster": cluster.cluster if cluster else None,
        "radius": cluster.radius if cluster else None,
        "center_distance": cluster.center_distance if cluster else None,
        "members": cluster.members if cluster else None,
        "supersedes": record.supersedes,
        "superseded_by": view.superseded_by,
    }


def _failures_table(summary: EditSummary) -> Table:
    rows = [
        (f.edit_id, *(shortened(text) for text in (f.prompt, f.target, f.answer))) for f in summary.failures
    ]
    return _first_rows("failed", ("edit", "prompt", "asked for", "answers"), rows)


def _contradictions_table(summary: EditSummary) -> Table:
    rows = [
        (each.edit_id, shortened(each.prompt), shortened(each.target), other.edit_id, shortened(other.target))
        for each, other in summary.contradictions
    ]
    return _first_rows(
        "ask the same, with another answer", ("edit", "prompt", "answers", "other edit", "it answers"), rows
    )


def _first_rows(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    shown = rows[:_ROWS_SHOWN]
    more = len(rows) - len(shown)
    return Table(columns, shown, title=f"{title} (the first {len(shown)} of {len(rows)})" if more else title)


def _rate(summary: EditSummary) -> float:
    return len(summary.outcomes) / summary.seconds if summary.seconds else 0.0


def _cluster(cluster: ClusterInfo) -> str:
    members = "1 edit" if len(cluster.members) == 1 else f"{len(cluster.members)} edits"
    return f"{cluster.cluster} ({members}, center at distance {cluster.center_distance:.4g})"
