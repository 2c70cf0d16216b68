"""What tells an edit's prompts from all others: one linear score an edit, of the prompt's mean embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from melo_cli.reporter import Reporter

# Rows of a step, of those that fire and of those that do not.
_ROWS = 2000
# What a prompt of an edit scores at least, what that of another edit at most, and by how much the edit leads.
_FIRING, _OTHERS, _LEAD = 0.3, 0.1, 0.3
_SOFTNESS = 0.05
# What an edit's own score weighs beside the others'.
_OWN_WEIGHT = 3.0
# What an edit's own prompt weighs beside one of its wordings, which another edit may have for its prompt.
_PROMPT_WEIGHT = 6.0
# Where a score starts: between a prompt's own (1) and that of unrelated text (0).
_BIAS = -0.5


@dataclass(frozen=True)
class Fit:
    """How detectors are learned.

    Attributes:
        ridge: of the mean variance, added to every direction before the features are scaled to their spread.
        quiet: what a prompt that no edit answers scores at most.
        staying: what such prompts weigh beside the edits'.
        hold: what keeps the detectors near where they start.
    """

    ridge: float = 1.0
    steps: int = 200
    lr: float = 0.01
    quiet: float = 0.1
    staying: float = 10.0
    hold: float = 1.0


@dataclass(frozen=True)
class Detectors:
    """Edit `e` fires where `scores[e] > 0`; of several the highest wins.

    Attributes:
        projection: `[d, p]`, from mean embeddings to features.
        offset: `[p]`, added to them.
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
    """Mean embeddings `[n, d]` of prompts: of all their tokens, or several means one after another.

    Attributes:
        firing: of edits, each edit's own prompt first.
        owners: `[n]`, whose each of them is.
        staying: of prompts that no edit answers.
        alike: `[edits, edits]`, whether two edits have one answer: then either may give it.
    """

    firing: Tensor
    owners: Tensor
    staying: Tensor
    alike: Tensor


def train_detectors(
    examples: Examples, features: int, seed: int, reporter: Reporter, fit: Fit = Fit(), means: int = 1
) -> Detectors:
    """Start from the mean of each edit's prompts, whitened by what stays, and learn the margins.

    Args:
        features: of each mean, how many of the directions, those that the detectors use most, are kept.
        means: of how many means, all of one size, the examples are made; each has features of its own.
    """
    each = examples.firing.shape[1] // means
    center = examples.staying.mean(0)
    whiten = torch.block_diag(*(_whitening(part, fit.ridge) for part in examples.staying.split(each, 1)))
    passes = 2 if features < each else 1
    with reporter.progress("learning detectors", passes * fit.steps, "steps") as progress:
        weight, bias = _fit(examples, center, whiten, fit, seed, progress.advance)
        if passes == 2:
            whiten = whiten @ torch.block_diag(
                *(_most_used(part, features) for part in weight.split(each, 1))
            )
            weight, bias = _fit(examples, center, whiten, fit, seed, progress.advance)
    return Detectors(whiten, -center @ whiten, weight, bias)


def _whitening(staying: Tensor, ridge: float) -> Tensor:
    """What gives every direction of the prompts the same spread, `[d, d]`."""
    apart = staying - staying.mean(0)
    spread = apart.T @ apart / len(staying)
    spread += ridge * spread.diagonal().mean() * torch.eye(len(spread))
    values, vectors = torch.linalg.eigh(spread)
    whiten: Tensor = vectors / values.sqrt()
    return whiten


def _most_used(weight: Tensor, features: int) -> Tensor:
    """The directions `[d, features]` that detectors `[edits, d]` use most; where they use fewer, zeros."""
    kept = torch.linalg.svd(weight, full_matrices=False).Vh[:features]
    return torch.cat([kept, kept.new_zeros(features - len(kept), kept.shape[1])]).T


def _fit(
    examples: Examples, center: Tensor, to_features: Tensor, fit: Fit, seed: int, advance: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    firing = (examples.firing - center) @ to_features
    staying = (examples.staying - center) @ to_features
    start = _centroids(firing, examples.owners, len(examples.alike))
    size = start.norm(dim=1).mean()
    weight = start.clone().requires_grad_(True)
    bias = torch.full((len(start),), _BIAS).requires_grad_(True)
    groups = [{"params": [weight], "lr": fit.lr * size.item() / len(start[0]) ** 0.5}, {"params": [bias]}]
    optimizer = torch.optim.Adam(groups, lr=fit.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / fit.steps)
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(fit.steps):
        rows = torch.randperm(len(firing), generator=drawn)[:_ROWS]
        others = torch.randperm(len(staying), generator=drawn)[:_ROWS]
        scores = firing[rows] @ weight.T + bias
        weights = torch.where(rows < len(bias), _PROMPT_WEIGHT, 1.0)
        loss = _of_edits(scores, examples.owners[rows], examples.alike, weights)
        loss = loss + fit.staying * _soft(staying[others] @ weight.T + bias - fit.quiet).sum() / len(others)
        loss = loss + fit.hold * ((weight - start) ** 2).sum() / size**2 / len(start)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        advance()
    return weight.detach(), bias.detach()


def _of_edits(scores: Tensor, owners: Tensor, alike: Tensor, weights: Tensor) -> Tensor:
    """Each edit's prompts fire it, by a lead over the others, which stay quiet."""
    own = one_hot(owners, len(alike)).bool()
    other = ~alike[owners]
    score = scores[own][:, None]
    fires = _soft(_FIRING - score)[:, 0]
    quiet = (_soft(scores - _OTHERS) * other).sum(1)
    leads = (_soft(scores - score + _LEAD) * other).sum(1)
    return 6 * ((_OWN_WEIGHT * fires + quiet + leads) * weights).sum() / weights.sum()


def _soft(value: Tensor) -> Tensor:
    """How far a value is above 0, with a rounded corner."""
    return softplus(value / _SOFTNESS) * _SOFTNESS


def _centroids(firing: Tensor, owners: Tensor, count: int) -> Tensor:
    """The mean of each edit's prompts `[edits, p]`, scaled so that its own prompt scores 1."""
    sums = firing.new_zeros(count, firing.shape[1]).index_add_(0, owners, firing)
    means = sums / torch.bincount(owners, minlength=count)[:, None]
    own = firing[:count]
    scale = (own * means).sum(1, keepdim=True)
    return means / scale.clamp(min=1e-6)


def alike(targets: Sequence[tuple[int, ...]]) -> Tensor:
    """Which edits have the same answer, `[edits, edits]`."""
    places = {target: place for place, target in enumerate(dict.fromkeys(targets))}
    which = torch.tensor([places[target] for target in targets])
    return which[:, None] == which[None]
