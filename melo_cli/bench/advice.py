"""What a run's figures say about which method to take."""

from __future__ import annotations

from collections.abc import Mapping

from melo_cli.bench.questions import KINDS
from melo_cli.bench.report import BASE, BenchReport
from melo_cli.units import listed, percent

_LEAST_KEPT = 0.95
"""Below this share of what must stay, a method is said to change it."""


def conclusions(report: BenchReport) -> list[str]:
    """Who is best at what, in sentences; kinds with the same best methods share one."""
    alone = [name for name in report.summaries if name != BASE]
    if len(alone) < 2:
        return []
    kinds: dict[tuple[str, ...], list[str]] = {}
    for kind in report.kinds:
        kinds.setdefault(tuple(report.best(kind)), []).append(KINDS[kind].column)
    told = [
        f"best at {listed(columns)}: {listed(best)}"
        for best, columns in kinds.items()
        if len(best) < len(alone)
    ]
    if same := kinds.get(tuple(alone)):
        told.append(f"no method is clearly better at {listed(same)}")
    return told


def advice(report: BenchReport) -> list[str]:
    """When to take which method, in sentences, by the figures of this run."""
    return [*_of_blocks(report), *_of_context(report), *_of_what_changes(report)]


def _of_blocks(report: BenchReport) -> list[str]:
    """A block beside the stored answer: both go by the same routes."""
    if not {"melo", "lookup"} <= report.summaries.keys():
        return []
    kinds = [kind for kind in report.kinds if not KINDS[kind].keeps]
    better = [KINDS[kind].column for kind in kinds if _is_better(report, "melo", "lookup", kind)]
    worse = [KINDS[kind].column for kind in kinds if _is_better(report, "lookup", "melo", kind)]
    told = ["take lookup where the stored text may be the answer and something can stand before the model"]
    if better:
        told.append(f"melo is better than it at {listed(better)}")
    elif worse:
        told.append(f"it is better than a block at {listed(worse)}, and costs no training")
    else:
        told.append("it answers these questions as well as a block, and costs no training")
    told.append(
        "take melo where the model itself has to answer: as adapters of a server that is there, as one "
        "merged checkpoint, as a classifier, or where texts are scored"
    )
    return told


def _of_context(report: BenchReport) -> list[str]:
    """What only a model that reads the edit does better."""
    others = [name for name in ("melo", "lookup") if name in report.summaries]
    better: dict[tuple[str, ...], list[str]] = {}
    for name in ("icl", "rag"):
        if name in report.summaries and others:
            kinds = tuple(
                KINDS[kind].column
                for kind in report.kinds
                if all(_is_better(report, name, other, kind) for other in others)
            )
            better.setdefault(kinds, []).append(name)
    return [f"take {listed(names, 'or')} for {listed(kinds)}" for kinds, names in better.items() if kinds]


def _of_what_changes(report: BenchReport) -> list[str]:
    """Methods that change what must stay, with the kind that they change most."""
    keeping = [kind for kind in report.kinds if KINDS[kind].keeps]
    changed: dict[str, list[str]] = {}
    for name in report.summaries:
        shares: Mapping[str, float] = {kind: report.figure(name, kind)["right"] for kind in keeping}
        if name == BASE or not shares:
            continue
        least = min(shares, key=lambda kind: shares[kind])
        if shares[least] < _LEAST_KEPT:
            left = f"{percent(shares[least])}% of {KINDS[least].column} as before"
            changed.setdefault(left, []).append(name)
    return [f"with {listed(names)} {left}" for left, names in changed.items()]


def _is_better(report: BenchReport, method: str, other: str, kind: str) -> bool:
    """Whether one method's interval lies above the other's."""
    low, high = report.figure(method, kind)["ci95"][0], report.figure(other, kind)["ci95"][1]
    return bool(low > high)
