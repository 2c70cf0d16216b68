"""Measuring a project: probes, answers, figures, plots."""

from melo_cli.evaluation.plot import plot_retention
from melo_cli.evaluation.probes import collect_probes
from melo_cli.evaluation.report import EvalReport, metrics
from melo_cli.evaluation.run import answer_anew, answer_probes, evaluate

__all__ = [
    "EvalReport",
    "answer_anew",
    "answer_probes",
    "collect_probes",
    "evaluate",
    "metrics",
    "plot_retention",
]
