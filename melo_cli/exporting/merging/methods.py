"""The ways to merge, and the choice between them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.exporting.merging.checkpoint import Additions, WeightChanges
from melo_cli.exporting.merging.compiling.method import as_model, compilable, compiled, require_compilable
from melo_cli.exporting.merging.distill import distill
from melo_cli.exporting.merging.retention import Figures, Measure, load_plain
from melo_cli.exporting.merging.sum_of_blocks import SumOfBlocks
from melo_cli.exporting.merging.training_examples import TrainingExamples, make_training_examples
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject

Method = Literal["auto", "sum", "compile", "distill"]
Trained = Literal["all", "targets"]

# What `auto` tries, cheapest first, and how many probes of each kind it compares on.
_TRIED: tuple[Method, ...] = ("sum", "compile", "distill")
_COMPARED_ON = 200
# They need no answers of the base to what is to stay, which take long to ask.
_UNANSWERED = ("sum", "compile")
# A dearer method must keep this much more, and is not tried where a cheaper one keeps so much.
_WORTH = 0.01
_ENOUGH = 0.9
# A distillation ends where this share of each kind of lesson is answered as taught.
_LEARNED = 0.97
# Steps of a distillation.
_FEWEST_STEPS, _MOST_STEPS = 150, 2000


@dataclass(frozen=True)
class MergeSettings:
    """How to merge.

    Attributes:
        unrelated: text that is to stay as it is, for all methods but the sum; see
            `training_examples.make_training_examples`.
        phrasings: how many made-up ways to put each edit's prompt are taught, beside those that are known.
        staying: how many prompts that read like edits, and how much unrelated text, at least is to stay.
        steps: of the distillation at most; None is a number that grows with that of the edits.
        lr: of the distillation.
        trained: which weights the distillation changes.
    """

    method: Method = "sum"
    unrelated: tuple[str, ...] = ()
    phrasings: int = 12
    staying: int = 1000
    steps: int | None = None
    lr: float = 7e-4
    trained: Trained = "all"
    seed: int = 0


@dataclass(frozen=True)
class Merge:
    """Weights that hold the edits, found and not yet written.

    Attributes:
        taught: unrelated prompts that were learned from, which measure nothing.
    """

    method: Method
    changes: WeightChanges
    described: str
    taught: Collection[str] = field(default_factory=frozenset)


class Differences(Additions):
    """What a student in memory has over the base it was copied from."""

    def __init__(self, student: PreTrainedModel, parameters: Sequence[str]) -> None:
        self._student = dict(student.named_parameters())
        self._before = {name: self._student[name].detach().clone() for name in parameters}

    @property
    def parameters(self) -> Collection[str]:
        return list(self._before)

    def of(self, parameter: str) -> Tensor:
        return (self._student[parameter].detach() - self._before[parameter]).cpu()


def merge(opened: OpenProject, settings: MergeSettings, reporter: Reporter) -> Merge:
    """Find the weights by the method that the settings name.

    Every method but the sum needs the base's weights loaded.
    """
    if settings.method == "sum":
        return Merge("sum", SumOfBlocks(opened), _described("sum", settings))
    if settings.method == "compile":
        require_compilable(opened.routed.base)
    if settings.method == "auto":
        return _best(opened, settings, reporter)
    training_examples = _training_examples(
        opened, settings, reporter, answered=settings.method not in _UNANSWERED
    )
    return _taught(opened, training_examples, settings.method, settings, reporter)[0]


def _training_examples(
    opened: OpenProject, settings: MergeSettings, reporter: Reporter, *, answered: bool
) -> TrainingExamples:
    return make_training_examples(
        opened,
        reporter,
        unrelated=settings.unrelated,
        phrasings_each=settings.phrasings,
        staying=settings.staying,
        seed=settings.seed,
        answered=answered,
    )


def kept(figures: Figures) -> float:
    """How much of the routed model a merged one keeps, as one share: the least of its four virtues.

    Edit success and generality count relative to the routed model's; agreement with the base on unrelated
    prompts and on hard negatives as it is.
    """
    merged, routed = figures["merged"], figures["routed"]
    shares = [
        merged[metric]["generation"] / routed[metric]["generation"]
        for metric in ("edit_success", "generality")
        if merged[metric] is not None and routed[metric]["generation"]
    ]
    shares += [
        merged[metric]["generation"]
        for metric in ("locality_agreement", "hard_agreement")
        if merged[metric] is not None
    ]
    return min(shares, default=0.0)


def _best(opened: OpenProject, settings: MergeSettings, reporter: Reporter) -> Merge:
    """Try the methods, cheapest first, until one keeps enough; take the cheapest that keeps like the best."""
    compiles = compilable(opened.routed.base)
    known: dict[bool, TrainingExamples] = {}
    tried: list[tuple[float, Merge]] = []
    measured: Measure | None = None
    for method in _TRIED:
        started = time.monotonic()
        # Where nothing is compiled, one set of lessons serves all.
        answered = not (compiles and method in _UNANSWERED)
        if answered not in known:
            known[answered] = _training_examples(opened, settings, reporter, answered=answered)
        training_examples = known[answered]
        if method == "compile" and not (compiles and training_examples.others):
            continue
        found, student = _taught(opened, training_examples, method, settings, reporter)
        seconds = time.monotonic() - started
        measured = measured or Measure(opened, _COMPARED_ON, training_examples.taught, reporter)
        share = kept(measured.of(student))
        reporter.info(f"{method}: keeps {share:.3f}, {seconds:.1f} s")
        tried.append((share, found))
        if share >= _ENOUGH:
            break
    best = max(share for share, _ in tried)
    chosen = next(found for share, found in tried if share >= best - _WORTH)
    among = f"Chosen among {len(tried)} ways, on up to {_COMPARED_ON} of each kind of prompts below."
    return replace(chosen, described=f"{chosen.described} {among}") if len(tried) > 1 else chosen


def _taught(
    opened: OpenProject,
    training_examples: TrainingExamples,
    method: Method,
    settings: MergeSettings,
    reporter: Reporter,
) -> tuple[Merge, PreTrainedModel]:
    """A method's weights, and the model that has them."""
    student = load_plain(opened, opened.routed.base.folder).float()
    if method == "compile":
        widened = compiled(opened.routed.base, student, training_examples, settings.seed, reporter)
        merged = Merge(method, widened, _described(method, settings), training_examples.taught)
        return merged, as_model(student, widened)
    parameters = [f"{name}.weight" for name in opened.routed.tuner.layers]
    if method == "distill" and settings.trained == "all":
        parameters = [name for name, _ in student.named_parameters()]
    changes = Differences(student, parameters)
    if method == "sum":
        _add(student, SumOfBlocks(opened))
    else:
        distill(
            opened,
            student,
            training_examples,
            parameters,
            steps=settings.steps or _steps(len(training_examples.prompts)),
            lr=settings.lr,
            enough=_LEARNED,
            seed=settings.seed,
            reporter=reporter,
        )
    return Merge(method, changes, _described(method, settings), training_examples.taught), student


@torch.no_grad()
def _add(student: PreTrainedModel, changes: Additions) -> None:
    for name in changes.parameters:
        weight = student.get_parameter(name)
        weight.add_(changes.of(name).to(weight.device))


def _steps(edits: int) -> int:
    return min(_FEWEST_STEPS + edits, _MOST_STEPS)


def _described(method: Method, settings: MergeSettings) -> str:
    """The method in a sentence, for the card."""
    if method == "sum":
        return "The blocks are summed into the weights."
    learned = (
        "learned from the edits in their own and in other words, from the same questions about other "
        "subjects, and from unrelated text"
    )
    if method == "compile":
        return (
            "Compiled: the model is a little larger than the base, tells the edits' prompts by what was "
            f"{learned}, and answers them as asked; elsewhere it is the base."
        )
    trained = "all the weights" if settings.trained == "all" else "the target modules"
    return f"Distilled into {trained}, {learned}."
