"""Learns a scope model from the corpus and what a base model, or a sentence encoder, reads in it.

1. Word states are projected onto their leading directions.
2. Two pooled vectors are projected so that prompts which ask the same are near (InfoNCE, arXiv 1807.03748).
3. Edits are simulated: some questions are stored, others asked, and the candidates of each become pairs for a
   small classifier on the features of `core.features`. The pairs of one half of the kinds are made with
   projections learnt on the other half: what the classifier sees is what a question new to the model looks
   like.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from melo_cli.scope.core.model import PcaProjection, Scales, ScopeModel, pooled
from melo_cli.scope.core.tuning import Tuning
from melo_cli.scope.core.vocabulary import Vocabulary
from melo_cli.scope.core.words import asked_views
from melo_cli.scope.corpus import Corpus, Question, without_subject
from melo_cli.scope.simulation import (
    Half,
    Outcome,
    PairExamples,
    Readings,
    dense_episode,
    natural_episode,
    pairs_of,
)
from melo_cli.torch_threads import one_thread

_LOW_SIZE, _HIGH_SIZE = 32, 40
_SENTENCE_SIZE, _QUESTION_SIZE, _PRINCIPAL_SIZE = 128, 64, 64
_PCA_WORDS = 40_000
_FLATTEN = -0.25  # power of each direction's variance that it is scaled by: half way to white
_TEMPERATURE = 0.07
_KEY_STEPS = 300
_KEY_BATCH = 256
_KEY_DROPOUT = 51  # of 256
_HIDDEN = (48, 24)
_EPOCHS = 16
_BATCH = 1024
_RATE = 3e-3
_FEATURE_DROPOUT = 0.1
_NATURAL_DRAWS = 4


def texts_to_read(corpus: Corpus) -> list[str]:
    """Every text of the corpus that is read for learning, without repetition."""
    whole = [text for question in corpus.questions for text in question.texts()]
    return list(dict.fromkeys(view for text in (*whole, *corpus.unrelated) for view in asked_views(text)))


@dataclass(frozen=True)
class Learnt:
    """A scope model learned from the corpus, with its training data.

    Attributes:
        model: the scope model.
        kinds: for each kind of question, the mean of what is asked, `[size]` float32; finds the kind of a
            prompt.
        halves: the data of its classifier; a project trains another classifier on these and its own data.
        outcomes: of simulated edits, one for each subject, about kinds of questions that the measured model
            did not learn.
    """

    model: ScopeModel
    kinds: dict[str, Tensor]
    halves: tuple[Half, Half]
    outcomes: Sequence[Outcome]

    @property
    def examples(self) -> PairExamples:
        """All examples that the classifier was trained on."""
        return PairExamples.joined([half.examples for half in self.halves])


def learn(corpus: Corpus, readings: Readings, seed: int, tuning: Tuning | None = None) -> Learnt:
    """Learn a scope model from the corpus.

    Args:
        corpus: the corpus.
        readings: readings of its texts (`texts_to_read`).
        seed: seed of everything that is drawn.
        tuning: of the encoder that has read them.
    """
    drawn = random.Random(seed)
    bare = _projections(corpus, readings, torch.Generator().manual_seed(seed), tuning or Tuning())
    kinds = sorted({question.kind for question in corpus.questions})
    drawn.shuffle(kinds)
    halves = [set(kinds[::2]), set(kinds[1::2])]
    tried: list[Half] = []
    for fitted_on, tried_on in ((0, 1), (1, 0)):
        fitted = _with_keys(bare, _of_kinds(corpus, halves[fitted_on]), readings, seed)
        part = Corpus(_of_kinds(corpus, halves[tried_on]), corpus.unrelated)
        natural = [pairs_of(fitted, natural_episode(part, drawn), readings) for _ in range(_NATURAL_DRAWS)]
        tried.append(Half.of(pairs_of(fitted, dense_episode(part, drawn), readings), natural))
    one, other = tried
    outcomes = [
        outcome
        for learnt_from, asked in ((one, other), (other, one))
        for outcome in asked.outcomes(classified(bare, learnt_from.examples, seed))
    ]
    model = _with_keys(bare, corpus.questions, readings, seed)
    whole = classified(model, PairExamples.joined([one.examples, other.examples]), seed)
    return Learnt(whole, _kind_vectors(model, corpus, readings), (one, other), outcomes)


def _kind_vectors(model: ScopeModel, corpus: Corpus, readings: Readings) -> dict[str, Tensor]:
    texts: dict[str, list[str]] = defaultdict(list)
    for question in corpus.questions:
        texts[question.kind] += question.clean
    return {
        kind: normalize(model.question_parts(model.keys(readings.of(some))).mean(0), dim=0)
        for kind, some in texts.items()
    }


def _projections(
    corpus: Corpus, readings: Readings, torch_random: torch.Generator, tuning: Tuning
) -> ScopeModel:
    """A scope model without key projections and classifier."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for question in corpus.questions:
        kinds[question.kind] += without_subject(question)
    vocabulary = Vocabulary.of([*kinds.values(), *([text] for text in corpus.unrelated)])
    reading = readings.of(texts_to_read(corpus))
    some = torch.randperm(len(reading.low), generator=torch_random)[:_PCA_WORDS]
    nothing = torch.empty(0)
    none = Scales(nothing, nothing)
    return ScopeModel(
        vocabulary,
        pca_projection(reading.low[some].float(), _LOW_SIZE),
        pca_projection(reading.high[some].float(), _HIGH_SIZE),
        none,
        nothing,
        none,
        nothing,
        nothing,
        none,
        (),
        tuning=tuning,
    )


def pca_projection(states: Tensor, size: int) -> PcaProjection:
    """The projection onto the `size` leading directions of states `[n, d]`, each partly scaled to equal
    variance."""
    mean = states.mean(0)
    centered = normalize(states - mean, dim=-1)
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
    kept = min(size, states.shape[1])
    leading = variances.flip(0)[:kept].clamp_min(1e-6)
    scaled = directions.flip(1)[:, :kept] * leading**_FLATTEN
    # For a narrower model the projection is padded with zeros, so that token vectors have one width.
    return PcaProjection(mean, torch.nn.functional.pad(scaled, (0, size - kept)))


def _with_keys(bare: ScopeModel, questions: Sequence[Question], readings: Readings, seed: int) -> ScopeModel:
    """The model with key projections learned from some questions."""
    texts = [(at, question, text) for at, question in enumerate(questions) for text in question.texts()]
    sentence, question = pooled(readings.of([text for *_, text in texts]), bare.vocabulary)
    sentence_scales, question_scales = Scales.of(sentence), Scales.of(question)
    asked = question_scales(question)
    return replace(
        bare,
        sentence_scales=sentence_scales,
        sentence=_contrastive(sentence_scales(sentence), [at for at, *_ in texts], _SENTENCE_SIZE, seed),
        question_scales=question_scales,
        principal=_principal_part(asked),
        question=_contrastive(asked, [one.kind for _, one, _ in texts], _QUESTION_SIZE, seed),
    )


def _principal_part(rows: Tensor) -> Tensor:
    """The leading directions `[3 d, _PRINCIPAL_SIZE]` of the last third of rows `[n, 3 d]`: the state that
    stands for the text."""
    third = rows.shape[1] // 3
    whole = rows[:, 2 * third :]
    directions = torch.linalg.eigh(whole.T @ whole / len(whole))[1].flip(1)[:, :_PRINCIPAL_SIZE]
    return torch.cat([rows.new_zeros(2 * third, directions.shape[1]), directions])


def _contrastive(rows: Tensor, groups: Sequence[int | str], size: int, seed: int) -> Tensor:
    """Learn a projection `[d, size]` under which rows `[n, d]` of one group are near each other (contrastive
    loss)."""
    members: dict[int | str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    several = [some for some in members.values() if len(some) > 1]
    drawn, bytes_drawn = random.Random(seed), np.random.default_rng(seed)
    start = torch.randn(rows.shape[1], size, generator=torch.Generator().manual_seed(seed))
    start /= rows.shape[1] ** 0.5
    projection = start.requires_grad_(True)
    optimizer = torch.optim.AdamW([projection], lr=2e-3, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _KEY_STEPS)
    for _ in range(_KEY_STEPS if several else 0):
        picked = [drawn.sample(some, 2) for some in drawn.sample(several, min(_KEY_BATCH, len(several)))]
        pair = rows[torch.tensor(picked).T]
        # A byte each is enough for chance, and drawn far faster than a number.
        kept = np.frombuffer(bytes_drawn.bytes(pair.numel()), np.uint8) >= _KEY_DROPOUT
        pair = pair * torch.from_numpy(kept).reshape(pair.shape)
        one, other = normalize(pair @ projection, dim=-1)
        cosines, right = one @ other.T / _TEMPERATURE, torch.arange(len(picked))
        loss = cross_entropy(cosines, right) + cross_entropy(cosines.T, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    learnt: Tensor = projection.detach()
    return learnt


def classified(model: ScopeModel, examples: PairExamples, seed: int) -> ScopeModel:
    """The model with a classifier trained on pairs."""
    features, same, weight = examples.features, examples.same, examples.weight
    scales = Scales.of(features)
    rows = scales(features)
    torch_random = torch.Generator().manual_seed(seed)
    layers = _fresh_layers(rows.shape[1], torch_random)
    parameters = [part for layer in layers for part in layer]
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-2, fused=True)
    steps = _EPOCHS * -(-len(rows) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    untrained = replace(model, feature_scales=Scales(torch.zeros(1), torch.ones(1)), layers=tuple(layers))
    # Steps of a fraction of a millisecond: several threads would mostly wait for each other, on a busy
    # machine for minutes.
    with one_thread():
        for _ in range(_EPOCHS):
            for batch in torch.randperm(len(rows), generator=torch_random).split(_BATCH):
                kept = torch.rand((len(batch), rows.shape[1]), generator=torch_random) > _FEATURE_DROPOUT
                logits = untrained.classify(rows[batch] * kept)
                losses = binary_cross_entropy_with_logits(logits, same[batch], reduction="none")
                optimizer.zero_grad()
                (losses * weight[batch]).mean().backward()
                optimizer.step()
                schedule.step()
    trained = tuple((matrix.detach(), bias.detach()) for matrix, bias in layers)
    return replace(model, feature_scales=scales, layers=trained)


def _fresh_layers(inputs: int, torch_random: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    sizes = (inputs, *_HIDDEN, 1)
    layers = []
    for fan_in, fan_out in pairwise(sizes):
        bound = fan_in**-0.5
        weight = (torch.rand((fan_in, fan_out), generator=torch_random) * 2 - 1) * bound
        bias = (torch.rand(fan_out, generator=torch_random) * 2 - 1) * bound
        layers.append((weight.requires_grad_(True), bias.requires_grad_(True)))
    return layers


def _of_kinds(corpus: Corpus, kinds: set[str]) -> tuple[Question, ...]:
    return tuple(question for question in corpus.questions if question.kind in kinds)
