"""GRACE (Hartvigsen et al., arXiv 2211.11031): a codebook of values at one layer, and deferral to the base.

A key is the layer's input at the last prompt token. Within a key's epsilon the layer's output is replaced, at
every prompt token, by the value that was trained for the key; any other prompt gets the base's answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from melo_cli.errors import MeloError
from melo_cli.evaluation.baselines.baseline import Baseline, EditedModel
from melo_cli.evaluation.baselines.codebook import ROWS, Codebook, pairwise_distances
from melo_cli.evaluation.baselines.fitting import fit
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.encoding import EncodedEdit, Encoder, pad_prompts, with_positions
from melo_cli.models.linear_layers import linear_shape
from melo_cli.recipe import OptimizerSection, TrainingSection
from melo_cli.reporter import Progress
from melo_cli.runtime.inference import Advance, Inference, TokenScores, batches_of_like_length
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.rules import Route
from melo_cli.tuner.layer import DynamicLoraLayer

# Values are trained until every target token has this probability, where the recipe names none.
_STOP_AT = 0.9


class GraceModel:
    """A base model with a codebook at one layer; an `Inference` asks it as it asks a routed model."""

    def __init__(self, base: BaseModel, layer: str, codebook: Codebook, encoder: Encoder) -> None:
        self.base = base
        self.codebook = codebook
        self.encoder = encoder
        self._answer_tokens = 0
        self._module = base.model.get_submodule(layer)

    @property
    def router(self) -> GraceModel:
        """It routes by itself."""
        return self

    def routes(self, texts: Sequence[str], advance: Advance | None = None) -> list[Route]:
        """Routes of prompts, by the codebook."""
        keys = self.keys([self.encoder.prompt(text) for text in texts])
        if advance is not None:
            advance(len(texts))
        return self.codebook.lookup(keys)

    def keys(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Keys `[n, in]` of encoded prompts."""
        keys: dict[int, NDArray[np.float32]] = {}
        for batch in batches_of_like_length([len(prompt) for prompt in prompts]):
            read = self._keys(pad_prompts(self.base, [prompts[row] for row in batch]))
            keys.update(zip(batch, read, strict=True))
        return np.stack([keys[row] for row in range(len(prompts))])

    def _keys(self, inputs: Mapping[str, Tensor]) -> NDArray[np.float32]:
        """Keys `[batch, in]` of padded prompts: the layer's input at the last real token."""
        filled = with_positions(self.base, inputs)
        caught: list[Tensor] = []
        hook = self._module.register_forward_pre_hook(lambda _module, args: caught.append(args[0]))
        runner = self.base.model.get_encoder() if self.base.kind is ModelKind.SEQ2SEQ else self.base.model
        try:
            with torch.no_grad():
                runner(**filled)
        finally:
            hook.remove()
        hidden, mask = caught[0], filled["attention_mask"]
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = positions.masked_fill(mask == 0, -1).amax(1)
        keys: NDArray[np.float32] = hidden[torch.arange(len(hidden)), last].float().cpu().numpy()
        return keys

    @contextmanager
    def using(self, block_ids: Sequence[str | None]) -> Iterator[None]:
        """Give row `i` of the passes made inside the value of entry `block_ids[i]`, None for none."""
        fired = [row for row, entry in enumerate(block_ids) if entry is not None]
        if not fired:
            yield
            return
        values = torch.stack([self.codebook.values[int(entry)] for entry in block_ids if entry is not None])
        with self.replacing(fired, lambda: values):
            yield

    @contextmanager
    def answers_of(self, tokens: int) -> Iterator[None]:
        """Inside the block the last `tokens` of every row are its answer, no part of its prompt."""
        self._answer_tokens = tokens
        try:
            yield
        finally:
            self._answer_tokens = 0

    @contextmanager
    def replacing(self, rows: Sequence[int], values: Callable[[], Tensor]) -> Iterator[None]:
        """Inside the `with` statement, replace the layer's output at the prompt tokens of some rows.

        The later passes of a generation hold one token each, which is the answer's. Padding is replaced
        along: nothing attends to it.

        Args:
            rows: indices into the batch.
            values: gives the outputs, `[len(rows), out]`; called at each pass.
        """
        passes = itertools.count()

        def replaced(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
            if next(passes) and output.shape[1] == 1:
                return output
            end = output.shape[1] - self._answer_tokens
            changed = output.clone()
            changed[list(rows), :end] = values().to(output.dtype).unsqueeze(1).expand(-1, end, -1)
            return changed

        hook = self._module.register_forward_hook(replaced)
        try:
            yield
        finally:
            hook.remove()


class GraceInference(Inference):
    """Tells the model where prompts end, which a decoder-only model's scores depend on."""

    def __init__(self, model: GraceModel, opened: OpenProject) -> None:
        super().__init__(model, opened.encoder)
        self.model = model

    def scores(
        self, edits: Sequence[EncodedEdit], blocks: Sequence[str | None], advance: Advance | None = None
    ) -> list[TokenScores]:
        """Teacher-forced scores of targets under the entries given."""
        by_row: dict[int, TokenScores] = {}
        for length, rows in by_target_length(edits, self.base.kind):
            with self.model.answers_of(length):
                scores = super().scores([edits[i] for i in rows], [blocks[i] for i in rows], advance)
            by_row.update(zip(rows, scores, strict=True))
        return [by_row[index] for index in range(len(edits))]


class Grace(Baseline):
    """GRACE (arXiv 2211.11031): the published optimizer (Adam, learning rate 1, 100 steps), stopped early.

    Its codebook replaces the project's own routes and blocks. The values of a batch are trained
    side by side, each by the gradient of its own edits alone.

    Attributes:
        radius: the first epsilon of a key; 0 takes half the median distance between an edit's key and the
            nearest with another target, since the published 1 suits only the published layers.
        layer: full name of the module whose output is replaced; empty takes the last target module that
            sees the prompt.
    """

    name: ClassVar[str] = "grace"
    routes: ClassVar[bool] = True

    lr: float = Field(1.0, gt=0)
    steps: int = Field(100, gt=0)
    radius: float = Field(0.0, ge=0)
    layer: str = ""

    @contextmanager
    def edited(
        self,
        opened: OpenProject,
        batches: Sequence[Sequence[EncodedEdit]],
        edit_ids: Sequence[str],
        progress: Progress,
    ) -> Iterator[EditedModel]:
        edits = [edit for batch in batches for edit in batch]
        module, layer = grace_layer(opened, self.layer)
        model = GraceModel(opened.routed.base, layer, Codebook(), opened.encoder)
        inference = GraceInference(model, opened)
        keys = model.keys([edit.prompt_ids for edit in edits]) if edits else np.zeros((0, 1), np.float32)
        labels = [edit.target_ids for edit in edits]
        model.codebook.initial = self.radius or _initial_radius(keys, labels)
        generator = torch.Generator().manual_seed(opened.recipe.seed)
        made = 0
        for batch in batches:
            entries = []
            for row in range(made, made + len(batch)):
                value = torch.rand(linear_shape(module)[1], generator=generator).to(opened.routed.device)
                entries.append(model.codebook.insert(keys[row], labels[row], edit_ids[row], value))
            _train(model, batch, entries, self._training(opened))
            made += len(batch)
            progress.advance(len(batch))
        in_force = self.model_dump() | {"layer": layer, "radius": model.codebook.initial}
        yield EditedModel(replace(opened, inference=inference), in_force, model.codebook.nbytes)

    def _training(self, opened: OpenProject) -> TrainingSection:
        optimizer = OptimizerSection.model_validate({"name": "Adam", "lr": self.lr})
        stop_at = opened.recipe.training.stop_at or _STOP_AT
        return TrainingSection(max_steps=self.steps, stop_at=stop_at, optimizer=optimizer, lr_scheduler=None)


def grace_layer(opened: OpenProject, name: str) -> tuple[nn.Module, str]:
    """The linear module whose output is replaced, and its full name.

    Not named, it is the last target module of the first block that has one and sees the prompt: the published
    layers lie some blocks below the top, too, since what replaces the top's output reaches one token only.

    Raises:
        MeloError: no such linear module, or all target modules are in the decoder.
    """
    base, layers = opened.routed.base, opened.routed.tuner.layers
    if not name:
        reader = base.model.get_encoder() if base.kind is ModelKind.SEQ2SEQ else base.model
        seeing = set(reader.modules())
        candidates = [layer_name for layer_name, layer in layers.items() if layer in seeing]
        if not candidates:
            raise _no_layer("no target module sees the prompt")
        parent = candidates[0].rpartition(".")[0]
        name = [layer_name for layer_name in candidates if layer_name.rpartition(".")[0] == parent][-1]
    module = dict(base.model.named_modules()).get(name)
    inside = module.base_layer if isinstance(module, DynamicLoraLayer) else module
    if not isinstance(inside, nn.Linear | Conv1D):
        raise _no_layer(f"{name!r} is no linear module of the model")
    return inside, name


def _no_layer(problem: str) -> MeloError:
    hint = "name one with --baseline-set grace.layer=NAME; `melo inspect MODEL` lists them"
    return MeloError(problem, where="--baseline grace", hint=hint)


def _initial_radius(keys: NDArray[np.float32], labels: Sequence[tuple[int, ...]]) -> float:
    """Half the median distance of a key to the nearest key with another label; 1 where there is none."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    if len(numbers) < 2:
        return 1.0
    own = np.array([numbers[label] for label in labels])
    nearest = []
    for start in range(0, len(keys), ROWS):
        rows = slice(start, start + ROWS)
        same = own[rows, None] == own
        nearest.append(np.where(same, np.inf, pairwise_distances(keys[rows], keys)).min(1))
    return float(np.median(np.concatenate(nearest))) / 2


def _train(
    model: GraceModel, batch: Sequence[EncodedEdit], entries: Sequence[int], training: TrainingSection
) -> None:
    """Train the values of one batch's entries; a decoder-only model's targets of like length together."""
    for length, rows in by_target_length(batch, model.base.kind):
        used = sorted({entries[row] for row in rows})
        values = torch.stack([model.codebook.values[entry] for entry in used]).requires_grad_()
        values_at = [used.index(entries[row]) for row in rows]
        with model.answers_of(length), model.replacing(range(len(rows)), lambda: values[values_at]):  # noqa: B023
            fit(model.base, [values], [batch[row] for row in rows], training)
        for entry, value in zip(used, values.detach(), strict=True):
            model.codebook.values[entry] = value


def by_target_length(edits: Sequence[EncodedEdit], kind: ModelKind) -> list[tuple[int, list[int]]]:
    """Groups of rows that are read in one pass.

    Only decoder-only models read prompt and answer as one text; the others take all rows together.

    Args:
        edits: the rows.
        kind: the kind of the model.

    Returns:
        For each group the number of answer tokens in a row, 0 where they are not in it, and the row indices.
    """
    if kind is not ModelKind.CAUSAL:
        return [(0, list(range(len(edits))))] if edits else []
    groups: dict[int, list[int]] = {}
    for row, edit in enumerate(edits):
        groups.setdefault(len(edit.target_ids), []).append(row)
    return list(groups.items())
