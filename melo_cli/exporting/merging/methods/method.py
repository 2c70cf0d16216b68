"""The interface of a merge method: settings, and the weights found with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from melo_cli.errors import ExportError
from melo_cli.exporting.merging.checkpoint import WeightChanges
from melo_cli.exporting.merging.training_examples import TrainingExamples
from melo_cli.models.base_model import BaseModel
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject

LEARNED = (
    "learned from the edits in their own and in other words, from the same questions about other "
    "subjects, and from unrelated text"
)


class Learns(Enum):
    """What a method learns from."""

    NOTHING = "nothing"
    PROMPTS = "prompts, without the base's answers to those that are to stay"
    ANSWERS = "prompts with the base's answers, which take long to ask"


@dataclass(frozen=True)
class Merge:
    """Weights that hold the edits, found and not yet written.

    Attributes:
        method: name of the method that found them.
        changes: the changes of the base's weights.
        described: how they were found, in a sentence, for the model card.
        taught: unrelated prompts that the merge learned from; an evaluation leaves them out.
    """

    method: str
    changes: WeightChanges
    described: str
    taught: Collection[str]


class MergeMethod(ABC):
    """A merge method; the fields of a subclass are its settings."""

    name: ClassVar[str]
    learns: ClassVar[Learns]

    def objection(self, base: BaseModel, examples: TrainingExamples | None = None) -> ExportError | None:
        """Why the method does not fit the base or the examples; None if it does."""
        return None

    @abstractmethod
    def find(
        self, opened: OpenProject, examples: TrainingExamples, seed: int, reporter: Reporter
    ) -> WeightChanges:
        """Find the weights. Every method but `sum` needs the base's weights loaded.

        Args:
            opened: the project, opened.
            examples: training examples; empty if the method learns nothing.
            seed: seed of everything that is drawn.
            reporter: shows progress.
        """

    @abstractmethod
    def describe(self) -> str:
        """The method in a sentence, for the card."""
