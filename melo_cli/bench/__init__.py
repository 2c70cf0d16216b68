"""`melo bench`: a named suite of questions on a model, for melo and for other ways to change its answers."""

from __future__ import annotations

from pathlib import Path

from melo_cli.bench.methods import METHODS, parse_methods
from melo_cli.bench.page import write_page
from melo_cli.bench.plan import BenchPlan
from melo_cli.bench.report import BenchReport
from melo_cli.bench.run import run_bench
from melo_cli.bench.suites import SUITES, find_suite
from melo_cli.bench.table import write_table

__all__ = [
    "METHODS",
    "SUITES",
    "BenchPlan",
    "BenchReport",
    "find_suite",
    "parse_methods",
    "run_bench",
    "write_report",
]


def write_report(report: BenchReport, folder: Path) -> list[Path]:
    """Write `table.md` and `report.html` into the run's folder; both are made anew each time."""
    table, page = folder / "table.md", folder / "report.html"
    write_table(report, table)
    write_page(report, page)
    return [table, page]
