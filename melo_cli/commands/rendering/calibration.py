"""A calibration as people read it: the sweep as a table, and what was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melo_cli.terminal import Table, Terminal

if TYPE_CHECKING:
    from melo_cli.calibration import Calibration, SweepRow

_NOTE = (
    "in %. reach: rephrases led to the right answer; most: at any radius; unrel., hard (another subject), "
    "same (another question about the subject): prompts that fire. * is the one chosen, over all folds"
)
# Measured by benchmarks/ablate_keys.py, on rephrases that the data give (docs/results.md).
_MADE = (
    "the data give no rephrases, and made ones teach less: of the real ones, keys learned so reached 58% "
    "instead of 67% on zsRE and 6% instead of 59% on CounterFact; give rephrases in the data if you can"
)
_KINDS = ("unrelated", "hard", "same_subject")


def show_calibration(terminal: Terminal, found: Calibration) -> None:
    """The sweep, and the key that the project takes."""
    terminal.table(_sweep_table(found))
    chosen = found.chosen.candidate
    terminal.note(_NOTE)
    terminal.fields(
        [
            ("key.layer", chosen.layer),
            ("key.pooling", chosen.pooling),
            ("key", chosen.method),
            ("key.radius", f"{found.radius:.3f}"),
            ("reach", f"{100 * found.chosen.reach:.1f} of at most {100 * found.chosen.nearest_right:.1f}"),
            (
                "measured on",
                f"{len(found.material.anchors)} edits, {len(found.material.unrelated)} unrelated",
            ),
            *(("not tried", f"{name}: too costly on this device") for name in found.skipped),
        ]
    )
    if not found.material.given:
        terminal.note(_MADE)


def calibration_document(project: str, found: Calibration) -> dict[str, Any]:
    """`melo calibrate --json`."""
    return {
        "project": project,
        "key": {
            "layer": found.chosen.candidate.layer,
            "pooling": found.chosen.candidate.pooling,
            "method": found.chosen.candidate.method,
            "radius": found.radius,
        },
        "chosen": found.chosen.to_json(),
        "sweep": [row.to_json() for row in found.sweep],
        "skipped_layers": list(found.skipped),
        "anchors": len(found.material.anchors),
        "unrelated": len(found.material.unrelated),
        "rephrases": "given" if found.material.given else "made",
    }


def _sweep_table(found: Calibration) -> Table:
    rows = [*found.sweep, found.chosen]
    figures = ("radius", "reach", "most", "unrel.", "hard", "same")
    return Table(
        ("layer", "pooling", "key", *figures),
        [_cells(row, chosen=row is found.chosen) for row in rows],
        right=frozenset(figures),
    )


def _cells(row: SweepRow, *, chosen: bool) -> tuple[str, ...]:
    fires = (row.false_fires.get(kind) for kind in _KINDS)
    layer = f"* {row.candidate.layer}" if chosen else row.candidate.layer
    return (
        layer,
        row.candidate.pooling,
        row.candidate.method,
        f"{row.radius:.3f}",
        f"{100 * row.reach:.1f}",
        f"{100 * row.nearest_right:.1f}",
        *("-" if share is None else f"{100 * share:.1f}" for share in fires),
    )
