"""What a run has measured: methods by kinds of questions, with what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melo_cli.bench.answer_rows import AnswerRow
from melo_cli.bench.folder import BenchFolder
from melo_cli.bench.plan import BenchPlan
from melo_cli.bench.questions import KINDS
from melo_cli.versions import library_versions

BASE = "base"


@dataclass(frozen=True)
class BenchReport:
    """The figures of all methods in a run's folder.

    Attributes:
        summaries: by method, the base first.
        rows: every question with its answer, by method.
        commands: the command lines that made it.
    """

    plan: BenchPlan
    summaries: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, Sequence[AnswerRow]]
    commands: Sequence[str]

    @classmethod
    def of(cls, plan: BenchPlan, folder: BenchFolder, methods: Sequence[str]) -> BenchReport:
        """What the folder holds of `methods`, in their order, after the base."""
        summaries = {name: folder.summary(name) for name in (BASE, *methods)}
        measured = {name: summary for name, summary in summaries.items() if summary is not None}
        return cls(plan, measured, {name: folder.rows(name) for name in measured}, folder.commands)

    @property
    def kinds(self) -> list[str]:
        """The kinds that were asked, in the order of a table's columns."""
        asked = self.summaries[BASE]["figures"]
        return [kind for kind in KINDS if kind in asked]

    def figure(self, method: str, kind: str) -> Mapping[str, Any]:
        """The figures of one method on one kind."""
        figures: Mapping[str, Any] = self.summaries[method]["figures"][kind]
        return figures

    def best(self, kind: str) -> list[str]:
        """The methods, the base left out, whose share no other one's interval lies above."""
        shares = {name: self.figure(name, kind) for name in self.summaries if name != BASE}
        if not shares:
            return []
        low = max(figure["ci95"][0] for figure in shares.values())
        return [name for name, figure in shares.items() if figure["ci95"][1] >= low]

    def to_json(self) -> dict[str, Any]:
        """The JSON document of `melo bench --json`."""
        return {
            **self.plan.to_json(),
            "measures": {kind: KINDS[kind].words for kind in self.kinds},
            "methods": dict(self.summaries),
            "versions": library_versions(),
            "commands": list(self.commands),
        }
