"""Recipes: the YAML files that say what is edited, how keys are taken and how blocks are trained.

The layer knows no torch: names of optimizers, schedulers and modules are checked where they are used.
"""

from __future__ import annotations

from melo_cli.recipe.defaults import default_recipe
from melo_cli.recipe.load import load_recipe, recipe_from_mapping
from melo_cli.recipe.schema import (
    CalibrationSection,
    DatasetSection,
    FalseFireSection,
    GenerationSection,
    KeySection,
    LoraSection,
    ModelSection,
    OptimizerSection,
    Recipe,
    RoutingSection,
    SchedulerSection,
    TrainingSection,
)

__all__ = [
    "CalibrationSection",
    "DatasetSection",
    "FalseFireSection",
    "GenerationSection",
    "KeySection",
    "LoraSection",
    "ModelSection",
    "OptimizerSection",
    "Recipe",
    "RoutingSection",
    "SchedulerSection",
    "TrainingSection",
    "default_recipe",
    "load_recipe",
    "recipe_from_mapping",
]
