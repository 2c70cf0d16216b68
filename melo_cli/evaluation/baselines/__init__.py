"""Other editors under the same edits, prompts and metrics: fine-tuning, one LoRA, GRACE, AlphaEdit."""

from melo_cli.evaluation.baselines.baseline import Baseline
from melo_cli.evaluation.baselines.registry import BASELINES, parse_baselines
from melo_cli.evaluation.baselines.run import edits_made, run_baseline

__all__ = ["BASELINES", "Baseline", "edits_made", "parse_baselines", "run_baseline"]
