"""Detectors: one linear score for each edit, computed from the mean embeddings of a prompt.

An edit's detector scores above zero for the edit's own prompts and below zero for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from melo_cli.reporter import Reporter

# Positive and negative rows of one step, at most.
_ROWS = 2000
# Targets of the hinge losses: least score of an edit's own prompt, largest score of another edit's prompt,
# and least margin between the two.
_POSITIVE_SCORE, _NEGATIVE_SCORE, _MARGIN = 0.3, 0.1, 0.3
_SOFTNESS = 0.05
# Weight of an edit's own score in the loss, relative to the scores of other edits.
_OWN_WEIGHT = 3.0
# Weight of an edit's own prompt in the loss, relative to its variants; a variant may also be another edit's
# prompt.
_PROMPT_WEIGHT = 6.0
# Initial bias: halfway between the score of an edit's own prompt (1) and that of unrelated text (0).
_BIAS = -0.5


@dataclass(frozen=True)
class FitSettings:
    """How detectors are learned.

    Attributes:
        ridge: added to the variance of every direction before whitening, as a share of the mean variance.
        steps: optimizer steps of each pass.
        lr: learning rate of Adam.
        negative_score: largest score wanted for a prompt that no edit answers.
        negative_weight: weight of such prompts in the loss, relative to the edits' prompts.
        drift_penalty: weight of the squared distance from the initial detectors.
    """

    ridge: float = 1.0
    steps: int = 200
    lr: float = 0.01
    negative_score: float = 0.1
    negative_weight: float = 10.0
    drift_penalty: float = 1.0


@dataclass(frozen=True)
class Detectors:
    """A linear detector for each edit. Edit `e` fires if `scores[e] > 0`; of several the highest score wins.

    Attributes:
        projection: `[d, p]`, from mean embeddings to features.
        offset: `[p]`, added to the features.
        weight: `[edits, p]`.
        bias: `[edits]`.
    """

    projection: Tensor
    offset: Tensor
    weight: Tensor
    bias: Tensor

    def scores(self, pooled: Tensor) -> Tensor:
        """Scores `[prompts, edits]` of mean embeddings `[prompts, d]`."""
        return (pooled @ self.projection + self.offset) @ self.weight.T + self.bias


@dataclass(frozen=True)
class Examples:
    """Mean embeddings of prompts, float32: one mean over all tokens, or several means side by side.

    Attributes:
        positives: `[n, d]`, of prompts that edits answer; each edit's own prompt first.
        owners: `[n]` int64, the edit that each of them belongs to.
        negatives: `[m, d]`, of prompts that no edit answers.
        same_answer: `[edits, edits]` bool, whether two edits have the same answer. Either may then give it.
    """

    positives: Tensor
    owners: Tensor
    negatives: Tensor
    same_answer: Tensor


def train_detectors(
    examples: Examples,
    features: int,
    seed: int,
    reporter: Reporter,
    fit: FitSettings = FitSettings(),
    means: int = 1,
) -> Detectors:
    """Learn the detectors, starting from the mean of each edit's prompts, whitened by the negatives.

    Args:
        examples: the prompts to learn from.
        features: number of directions kept for each mean: those that the detectors use most.
        seed: seed of the batches.
        reporter: shows progress.
        fit: how detectors are learned.
        means: number of means that an example consists of, all of one size; each has features of its own.
    """
    each = examples.positives.shape[1] // means
    center = examples.negatives.mean(0)
    whiten = torch.block_diag(*(_whitening(part, fit.ridge) for part in examples.negatives.split(each, 1)))
    passes = 2 if features < each else 1
    with reporter.progress("learning detectors", passes * fit.steps, "steps") as progress:
        weight, bias = _fit(examples, center, whiten, fit, seed, progress.advance)
        if passes == 2:
            whiten = whiten @ torch.block_diag(
                *(_principal_directions(part, features) for part in weight.split(each, 1))
            )
            weight, bias = _fit(examples, center, whiten, fit, seed, progress.advance)
    return Detectors(whiten, -center @ whiten, weight, bias)


def _whitening(negatives: Tensor, ridge: float) -> Tensor:
    """The matrix `[d, d]` that gives every direction of the prompts unit variance."""
    centered = negatives - negatives.mean(0)
    covariance = centered.T @ centered / len(negatives)
    covariance += ridge * covariance.diagonal().mean() * torch.eye(len(covariance))
    values, vectors = torch.linalg.eigh(covariance)
    whiten: Tensor = vectors / values.sqrt()
    return whiten


def _principal_directions(weight: Tensor, features: int) -> Tensor:
    """The directions `[d, features]` that detectors `[edits, d]` use most, padded with zeros."""
    kept = torch.linalg.svd(weight, full_matrices=False).Vh[:features]
    return torch.cat([kept, kept.new_zeros(features - len(kept), kept.shape[1])]).T


def _fit(
    examples: Examples,
    center: Tensor,
    to_features: Tensor,
    fit: FitSettings,
    seed: int,
    advance: Callable[[], None],
) -> tuple[Tensor, Tensor]:
    positives = (examples.positives - center) @ to_features
    negatives = (examples.negatives - center) @ to_features
    start = _centroids(positives, examples.owners, len(examples.same_answer))
    size = start.norm(dim=1).mean()
    weight = start.clone().requires_grad_(True)
    bias = torch.full((len(start),), _BIAS).requires_grad_(True)
    groups = [{"params": [weight], "lr": fit.lr * size.item() / len(start[0]) ** 0.5}, {"params": [bias]}]
    optimizer = torch.optim.Adam(groups, lr=fit.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / fit.steps)
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(fit.steps):
        rows = torch.randperm(len(positives), generator=drawn)[:_ROWS]
        others = torch.randperm(len(negatives), generator=drawn)[:_ROWS]
        scores = positives[rows] @ weight.T + bias
        weights = torch.where(rows < len(bias), _PROMPT_WEIGHT, 1.0)
        scores_of_others = negatives[others] @ weight.T + bias
        loss = _edit_loss(scores, examples.owners[rows], examples.same_answer, weights)
        loss = loss + fit.negative_weight * _soft_margin(scores_of_others - fit.negative_score).sum() / len(
            others
        )
        loss = loss + fit.drift_penalty * ((weight - start) ** 2).sum() / size**2 / len(start)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        advance()
    return weight.detach(), bias.detach()


def _edit_loss(scores: Tensor, owners: Tensor, same_answer: Tensor, weights: Tensor) -> Tensor:
    """Hinge loss: each edit's prompts fire the edit, with a margin over other edits, and fire no other
    edit."""
    own = one_hot(owners, len(same_answer)).bool()
    other = ~same_answer[owners]
    score = scores[own][:, None]
    positive = _soft_margin(_POSITIVE_SCORE - score)[:, 0]
    negative = (_soft_margin(scores - _NEGATIVE_SCORE) * other).sum(1)
    margin = (_soft_margin(scores - score + _MARGIN) * other).sum(1)
    return 6 * ((_OWN_WEIGHT * positive + negative + margin) * weights).sum() / weights.sum()


def _soft_margin(value: Tensor) -> Tensor:
    """A smooth `max(value, 0)`."""
    return softplus(value / _SOFTNESS) * _SOFTNESS


def _centroids(positives: Tensor, owners: Tensor, count: int) -> Tensor:
    """The mean of each edit's prompts `[edits, p]`, scaled so that its own prompt scores 1."""
    sums = positives.new_zeros(count, positives.shape[1]).index_add_(0, owners, positives)
    means = sums / torch.bincount(owners, minlength=count)[:, None]
    own = positives[:count]
    scale = (own * means).sum(1, keepdim=True)
    return means / scale.clamp(min=1e-6)


def same_answer(targets: Sequence[tuple[int, ...]]) -> Tensor:
    """Which edits have the same answer, bool `[edits, edits]`."""
    index = {target: i for i, target in enumerate(dict.fromkeys(targets))}
    which = torch.tensor([index[target] for target in targets])
    return which[:, None] == which[None]
