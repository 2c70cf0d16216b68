"""From a project to the weights of the larger model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, T5ForConditionalGeneration

from melo_cli.base_model import BaseModel
from melo_cli.encoding import IGNORED
from melo_cli.errors import ExportError
from melo_cli.exporting.merging.closed_form import batches
from melo_cli.exporting.merging.compiling.detectors import Detectors, Examples, alike, train_detectors
from melo_cli.exporting.merging.compiling.layout import layout_for
from melo_cli.exporting.merging.compiling.widening import Sizes, Widened
from melo_cli.exporting.merging.lessons import Lesson, Lessons
from melo_cli.loading import OpenProject
from melo_cli.reporter import Reporter
from melo_cli.scoring import target_batch


def compiled(
    opened: OpenProject, plain: PreTrainedModel, lessons: Lessons, seed: int, reporter: Reporter
) -> Widened:
    """The base with what tells its edits' prompts, and what answers them, built around it.

    Args:
        plain: a copy of the base, float32.
        lessons: of their answers, those of the edits alone are read.

    Raises:
        ExportError: there is no text to tell the edits from.
    """
    if not lessons.others:
        raise ExportError(
            "there is no other text to tell the edits' prompts from",
            where="--merge-method compile",
            mend="give some with --unrelated",
        )
    answers = [lesson.encoded.target_ids for lesson in lessons.prompts]
    examples = _examples(plain, lessons)
    features = layout_for(plain.config, 0).features
    detectors = train_detectors(examples, features, seed, reporter)
    placed = share_out(answers, _together(detectors, examples), len(plain.get_decoder().block))
    layout = layout_for(plain.config, max(_neurons(answers, edits) for edits in placed))
    sizes = _sizes(replace(opened.routed.base, model=plain), lessons.prompts)
    return Widened(plain, layout, detectors, answers, placed, sizes)


@torch.no_grad()
def as_model(plain: PreTrainedModel, changes: Widened) -> PreTrainedModel:
    """The larger model in memory, without its file."""
    config: Any = copy.deepcopy(plain.config)
    for name, value in changes.settings.items():
        setattr(config, name, value)
    model = T5ForConditionalGeneration(config).eval().requires_grad_(False)
    for name, weight in plain.named_parameters():
        model.get_parameter(name).copy_(changes.apply(name, weight.float().cpu()))
    placed: PreTrainedModel = model.to(plain.device)
    return placed


def share_out(
    answers: Sequence[tuple[int, ...]], groups: Sequence[Sequence[int]], layers: int
) -> list[list[int]]:
    """The edits of each decoder layer, so that no layer needs many neurons.

    Edits that fire together stand in one layer: an answer makes later layers' neurons weaker, and only beside
    each other the higher score wins.
    """
    shared: list[list[int]] = [[] for _ in range(layers)]
    for group in sorted(groups, key=lambda group: -_neurons(answers, group)):
        layer = min(range(layers), key=lambda layer: (_neurons(answers, shared[layer]), -layer))
        shared[layer] += group
    return shared


def _neurons(answers: Sequence[tuple[int, ...]], edits: Sequence[int]) -> int:
    return sum(len(answers[edit]) for edit in edits)


def _together(detectors: Detectors, examples: Examples) -> list[list[int]]:
    """The edits in groups: two that fire on one prompt are in the same."""
    group = list(range(len(examples.alike)))
    for fired in detectors.scores(examples.firing) > 0:
        found = {group[edit] for edit in fired.nonzero()[:, 0].tolist()}
        if len(found) > 1:
            group = [min(found) if each in found else each for each in group]
    return [[edit for edit, of in enumerate(group) if of == first] for first in dict.fromkeys(group)]


@torch.no_grad()
def _examples(plain: PreTrainedModel, lessons: Lessons) -> Examples:
    # What attention reads in the encoder's first layer.
    encoder: Any = plain.get_encoder()
    words = encoder.block[0].layer[0].layer_norm(encoder.embed_tokens.weight).float().cpu()
    own = _pooled(words, lessons.prompts)
    phrased = _pooled(words, lessons.phrased)
    blocks = [lesson.block for lesson in lessons.prompts]
    targets = [lesson.encoded.target_ids for lesson in lessons.prompts]
    owners = list(range(len(own)))
    # Of the edits of one block that have one answer, a wording is the nearest's.
    for lesson, row in zip(lessons.phrased, phrased, strict=True):
        mine = [
            place
            for place, block in enumerate(blocks)
            if block == lesson.block and targets[place] == lesson.encoded.target_ids
        ]
        owners.append(min(mine, key=lambda place: float((own[place] - row).norm())))
    staying = _pooled(words, lessons.others)
    return Examples(torch.cat([own, phrased]), torch.tensor(owners), staying, alike(targets))


def _pooled(words: Tensor, lessons: Sequence[Lesson]) -> Tensor:
    """The mean over each prompt's tokens `[lessons, d]`."""
    rows = [words[list(lesson.encoded.prompt_ids)].mean(0) for lesson in lessons]
    return torch.stack(rows) if rows else words.new_zeros(0, words.shape[1])


@torch.no_grad()
def _sizes(learner: BaseModel, lessons: Sequence[Lesson]) -> Sizes:
    encoder: Any = learner.model.get_encoder()
    decoder: Any = learner.model.get_decoder()
    norms = [
        encoder.final_layer_norm,
        *(block.layer[2].layer_norm for block in decoder.block),
        decoder.final_layer_norm,
    ]
    found: list[list[Tensor]] = [[] for _ in norms]
    for group in batches(lessons):
        batch = target_batch(learner, [lesson.encoded for lesson in group])
        real = batch.inputs["attention_mask"]
        assert isinstance(real, Tensor)
        known = batch.targets != IGNORED
        with _caught(norms) as states:
            learner.model(**batch.inputs)
        for place, state in enumerate(states):
            mask = (known if place else real.bool()).to(state.device)
            found[place].append(state.float().pow(2).mean(-1).sqrt()[mask])
    means = [torch.cat(each).mean().item() for each in found]
    return Sizes(means[0], tuple(means[1:-1]), means[-1])


@contextmanager
def _caught(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What each module is given, once they have run."""
    states: list[Tensor] = [torch.empty(0)] * len(modules)

    def catch(place: int) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def hook(_module: Any, arguments: tuple[Tensor, ...]) -> None:
            states[place] = arguments[0]

        return hook

    handles = [module.register_forward_pre_hook(catch(place)) for place, module in enumerate(modules)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
