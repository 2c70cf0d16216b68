"""Other editors under the same edits, prompts and metrics: fine-tuning, one LoRA, GRACE."""

from melo_cli.evaluation.baselines.run import run_baseline
from melo_cli.evaluation.baselines.settings import BASELINES, BaselineSettings, parse_baselines

__all__ = ["BASELINES", "BaselineSettings", "parse_baselines", "run_baseline"]
