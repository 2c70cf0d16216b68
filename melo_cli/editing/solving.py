"""Trains blocks until every edit of a batch is answered as asked, or no retry is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from melo_cli.editing.training import TrainedBlock, train_blocks
from melo_cli.models.encoding import EncodedEdit
from melo_cli.recipe import Recipe, TrainingSection
from melo_cli.runtime.inference import same_answer
from melo_cli.runtime.loading import OpenProject
from melo_store.records import LoraSlice

# Blocks in hand, before anything else knows of them.
_IN_HAND = "in hand"
# An answer that goes on past its target is wrong: leave it room to show that.
_SPARE_TOKENS = 2

OnStep = Callable[[float], None]


@dataclass(frozen=True)
class Attempt:
    """The settings of one attempt at the edits that are not solved yet.

    Attributes:
        edits: how many share a block.
    """

    number: int
    edits: int
    rank: int
    training: TrainingSection


@dataclass(frozen=True)
class ToSolve:
    """One edit to be trained.

    Attributes:
        target: the answer wanted, as text.
        aliases: other answers that count as right.
        variants: other prompts that are to get the same answer.
    """

    encoded: EncodedEdit
    target: str
    variants: Sequence[EncodedEdit] = ()
    aliases: Sequence[str] = ()


@dataclass(frozen=True)
class Solution:
    """The result of training one edit.

    Attributes:
        answer: the model's answer with the last block that was trained for the edit.
        block: name of the block that answers as asked; None where none did.
        attempts, steps, loss: of the training; `loss` is the last block's, nats a target token.
    """

    answer: str
    block: str | None
    attempts: int
    steps: int
    loss: float


@dataclass
class Solved:
    """The solutions of a batch, in order, and the blocks that they name."""

    solutions: list[Solution]
    blocks: dict[str, dict[str, LoraSlice]] = field(default_factory=dict)


def attempts(recipe: Recipe) -> Iterator[Attempt]:
    """Attempts at an edit, in order: as the recipe says, then more steps, smaller blocks and a higher rank.

    Args:
        recipe: a resolved recipe; `training.retries` is the number of attempts after the first.
    """
    training, rank = recipe.training, recipe.lora.rank
    longer = training.model_copy(update={"max_steps": 2 * training.max_steps})
    longest = training.model_copy(update={"max_steps": 4 * training.max_steps})
    plan = [
        Attempt(1, training.batch_size, rank, training),
        Attempt(2, training.batch_size, rank, longer),
        Attempt(3, max(training.batch_size // 4, 1), rank, longer),
        Attempt(4, 1, 2 * rank, longest),
    ]
    yield from plan[: 1 + training.retries]


def solve(opened: OpenProject, edits: Sequence[ToSolve], on_step: OnStep | None) -> Solved:
    """Train blocks for edits, ask the model for every edit, and retry the edits that failed.

    Args:
        opened: the project; nothing is written to it.
        edits: the edits, with the variants that are trained beside them.
        on_step: called with the loss of each step, nats a token.

    Returns:
        A solution for each edit, in order, and the blocks that these name.
    """
    solutions: dict[int, Solution] = {}
    solved = Solved([])
    for attempt in attempts(opened.recipe):
        left = [at for at in range(len(edits)) if at not in solutions or solutions[at].block is None]
        parts = [left[start : start + attempt.edits] for start in range(0, len(left), attempt.edits)]
        trained_blocks = _train(opened, edits, parts, attempt, on_step)
        answered = _answers(opened, trained_blocks, [[edits[at].encoded for at in part] for part in parts])
        for number, (part, trained, answers) in enumerate(zip(parts, trained_blocks, answered, strict=True)):
            name = f"attempt {attempt.number}, block {number}"
            right = [
                same_answer(answer, edits[at].target, edits[at].aliases)
                for at, answer in zip(part, answers, strict=True)
            ]
            if any(right):
                solved.blocks[name] = trained.slices
            for at, answer, is_right in zip(part, answers, right, strict=True):
                steps = len(trained.losses) + (solutions[at].steps if at in solutions else 0)
                solutions[at] = Solution(
                    answer, name if is_right else None, attempt.number, steps, trained.losses[-1]
                )
    solved.solutions = [solutions[at] for at in range(len(edits))]
    return solved


def answer_lengths(edits: Sequence[EncodedEdit]) -> list[int]:
    """How many tokens each answer may have when it is asked for."""
    return [edit.answer_length + _SPARE_TOKENS for edit in edits]


def _train(
    opened: OpenProject,
    edits: Sequence[ToSolve],
    parts: Sequence[Sequence[int]],
    attempt: Attempt,
    on_step: OnStep | None,
) -> list[TrainedBlock]:
    """A block for each part, its edits first, their variants and what is not to be said behind them."""
    return train_blocks(
        opened.routed.base,
        opened.routed.tuner,
        [
            [
                *(edits[at].encoded for at in part),
                *(text for at in part for text in edits[at].variants),
                *(text for at in part for text in _early_ends(edits[at], opened.routed.base.special.stop)),
            ]
            for part in parts
        ],
        attempt.training,
        rank=attempt.rank,
        scale=opened.recipe.lora.scale,
        frozen_a=opened.recipe.lora.frozen_a,
        store_dtype=opened.recipe.lora.store_dtype,
        seed=opened.recipe.seed + attempt.number - 1,
        on_step=on_step,
    )


def _early_ends(edit: ToSolve, stop: int | None) -> list[EncodedEdit]:
    """The ends that no answer has: the stop token before the last token of a prompt.

    A block learns the stop token behind its target, and says it at once behind a prompt in other words that
    ends as targets do, in a noun. Where a chat template closes every prompt alike none does.
    """
    texts = [edit.encoded, *edit.variants]
    if stop is None or len({text.prompt_ids[-2:] for text in texts}) == 1:
        return []
    cut = {text.prompt_ids[:-1] for text in texts if len(text.prompt_ids) > 2}
    return [EncodedEdit(ids, (stop,), wanted=False) for ids in sorted(cut - {t.prompt_ids for t in texts})]


def _answers(
    opened: OpenProject, trained: Sequence[TrainedBlock], parts: Sequence[Sequence[EncodedEdit]]
) -> list[list[str]]:
    """The answers of each block to its own edits, all of them asked together."""
    blocks = opened.routed.blocks
    names = [f"{_IN_HAND} {number}" for number in range(len(trained))]
    edits = [edit for part in parts for edit in part]
    owners = [name for name, part in zip(names, parts, strict=True) for _ in part]
    try:
        for name, block in zip(names, trained, strict=True):
            blocks.put(name, block.slices)
        answers = iter(
            opened.inference.answers([edit.prompt_ids for edit in edits], owners, answer_lengths(edits))
        )
    finally:
        for name in names:
            blocks.drop(name)
    return [[next(answers) for _ in part] for part in parts]
