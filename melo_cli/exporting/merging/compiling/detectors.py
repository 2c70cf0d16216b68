"""What tells an edit's prompts from all others: one linear score an edit, of the prompt's mean embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from melo_cli.reporter import Reporter

# Of the mean variance, added to every direction before the features are scaled to their spread.
_RIDGE = 1.0
_STEPS, _LR = 200, 0.01
# Rows of a step, of those that fire and of those that do not.
_ROWS = 2000
# What a prompt of an edit scores at least, what any other scores at most, and by how much the edit leads.
_FIRING, _QUIET, _LEAD = 0.3, 0.1, 0.3
_SOFTNESS = 0.05
# Weights of what fires, and of what must not, beside the edits' own prompts.
_OWN_WEIGHT, _OTHER_WEIGHT, _STAY = 3.0, 10.0, 1.0
# What an edit's own prompt weighs beside one of its wordings, which another edit may have for its prompt.
_PROMPT_WEIGHT = 6.0
# Where a score starts: between a prompt's own (1) and that of unrelated text (0).
_BIAS = -0.5


@dataclass(frozen=True)
class Detectors:
    """Edit `e` fires where `scores[e] > 0`; of several the highest wins.

    Attributes:
        projection: `[d, p]`, from a mean embedding to features.
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
    """Mean embeddings `[n, d]` of prompts.

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


def train_detectors(examples: Examples, features: int, seed: int, reporter: Reporter) -> Detectors:
    """Start from the mean of each edit's prompts, whitened by what stays, and learn the margins.

    Args:
        features: how many of the directions, those that the detectors use most, are kept.
    """
    center, whiten = _whitening(examples.staying)
    passes = 2 if features < examples.firing.shape[1] else 1
    with reporter.progress("learning detectors", passes * _STEPS, "steps") as progress:
        weight, bias = _fit(examples, center, whiten, seed, progress.advance)
        if passes == 2:
            kept = torch.linalg.svd(weight, full_matrices=False).Vh[:features]
            missing = features - len(kept)
            whiten = whiten @ torch.cat([kept, kept.new_zeros(missing, kept.shape[1])]).T
            weight, bias = _fit(examples, center, whiten, seed, progress.advance)
    return Detectors(whiten, -center @ whiten, weight, bias)


def _whitening(staying: Tensor) -> tuple[Tensor, Tensor]:
    """Center `[d]` of the prompts, and what gives every direction the same spread, `[d, d]`."""
    center = staying.mean(0)
    spread = (staying - center).T @ (staying - center) / len(staying)
    spread += _RIDGE * spread.diagonal().mean() * torch.eye(len(spread))
    values, vectors = torch.linalg.eigh(spread)
    return center, vectors / values.sqrt()


def _fit(
    examples: Examples, center: Tensor, to_features: Tensor, seed: int, advance: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    firing = (examples.firing - center) @ to_features
    staying = (examples.staying - center) @ to_features
    start = _centroids(firing, examples.owners, len(examples.alike))
    size = start.norm(dim=1).mean()
    weight = start.clone().requires_grad_(True)
    bias = torch.full((len(start),), _BIAS).requires_grad_(True)
    groups = [{"params": [weight], "lr": _LR * size.item() / len(start[0]) ** 0.5}, {"params": [bias]}]
    optimizer = torch.optim.Adam(groups, lr=_LR)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / _STEPS)
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(_STEPS):
        rows = torch.randperm(len(firing), generator=drawn)[:_ROWS]
        others = torch.randperm(len(staying), generator=drawn)[:_ROWS]
        scores = firing[rows] @ weight.T + bias
        weights = torch.where(rows < len(bias), _PROMPT_WEIGHT, 1.0)
        loss = _of_edits(scores, examples.owners[rows], examples.alike, weights)
        loss = loss + _OTHER_WEIGHT * _soft(staying[others] @ weight.T + bias - _QUIET).sum() / len(others)
        loss = loss + _STAY * ((weight - start) ** 2).sum() / size**2 / len(start)
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
    quiet = (_soft(scores - _QUIET) * other).sum(1)
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
