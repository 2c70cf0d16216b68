"""Evaluation of a project: probes, answers, metrics, baselines and the report."""

from melo_cli.evaluation.answer_probes import answer_again, answer_probes
from melo_cli.evaluation.baselines import BASELINES, Baseline, parse_baselines
from melo_cli.evaluation.charts import plot_retention
from melo_cli.evaluation.page import write_page
from melo_cli.evaluation.probes import collect_probes
from melo_cli.evaluation.probing import ask_anew
from melo_cli.evaluation.protocols import PROTOCOLS
from melo_cli.evaluation.report import EvalReport, metrics
from melo_cli.evaluation.results import Result, write_results
from melo_cli.evaluation.run import evaluate, keep

__all__ = [
    "BASELINES",
    "PROTOCOLS",
    "Baseline",
    "EvalReport",
    "Result",
    "answer_again",
    "answer_probes",
    "ask_anew",
    "collect_probes",
    "evaluate",
    "keep",
    "metrics",
    "parse_baselines",
    "plot_retention",
    "write_page",
    "write_results",
]
