"""What one run of `melo bench` does, and the recipe by which its edits are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from melo_cli.bench.suites import Suite
from melo_cli.recipe import Recipe, recipe_from_mapping


@dataclass(frozen=True)
class BenchPlan:
    """A suite on a model. The methods are no part of it: they may be added later.

    Attributes:
        data: file or hub id of the suite's data.
        model: folder, hub id or GGUF file of the base model.
        edits: how many edits are made, the first ones of the data.
        ask: of how many of them is asked, drawn by the recipe's seed.
        forms: whether made questions are asked, too.
        overrides: `--set` texts over the suite's recipe.
    """

    suite: Suite
    data: str
    model: str
    edits: int
    ask: int
    forms: bool = False
    overrides: tuple[str, ...] = ()

    def recipe(self) -> Recipe:
        """The recipe of the project: what melo does by default, and no rephrase learnt from.

        Raises:
            RecipeError: an override does not fit.
        """
        return recipe_from_mapping(
            {
                "name": self.suite.name,
                "task": self.suite.task,
                "model": {"name_or_path": self.model, "template": self.suite.template},
                "dataset": {"edits": self.data, "max_edits": self.edits},
                "calibration": {"share": 0},
            },
            self.overrides,
            where="melo bench",
        )

    def to_json(self) -> dict[str, Any]:
        """What must be the same for a run to go on in its folder."""
        return {
            "suite": self.suite.name,
            "data": self.data,
            "model": self.model,
            "edits": self.edits,
            "ask": self.ask,
            "forms": self.forms,
            "set": list(self.overrides),
        }
