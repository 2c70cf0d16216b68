"""Features of a pair of query and edit prompt, on a scale that is the same for every model.

For each word of one prompt, the best match in the other is taken, by spelling and by the states at two
layers. These matches are averaged over groups of words: rare words, names, the subject, and the rest, which
says what is asked. Of the rest, the rare words count by themselves too: often one of them alone ("mother",
"father") says what is asked. Both directions count: words of the edit that the query lacks, and the reverse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .words import ANSWER_SORTS

REVISION = 3
"""How prompts are compared. 1: spellings keep their accents, no features are of the rare words of the rest,
and an edit may answer what asks for another answer, whether something is so, or with a word that excludes one
of its own. 2: it may answer a task, a statement, or why something is so. Projects that were calibrated so
stay so until they are calibrated again."""
FLAGS = 5
"""Columns at the end of a token vector: rarity, whether the word is a number, reads like a name, is of the
subject, and which sort of answer it asks for (`words.answer_sorts`), or a mark: `words.EXCEPT`,
`words.WHETHER`, `words.TASK` or `words.STATEMENT`."""
SUBJECT_FLAG = -2
"""Column of a token vector that says whether the word is of the subject."""
_EXACT = 0.995  # cosine of two spellings that are one word
# Least weight of a word in a group for it to be the worst of the group.
_COUNTS = {"rare": 0.6, "asked": 0.4, "name": 0.5, "subject": 0.5, "rest": 0.5}
_PRESENT = 1e-3
_BELOW_COSINES = -3.0  # so that padding is never the best match


class Side(NamedTuple):
    """One side of some pairs of prompts.

    Attributes:
        vectors: `[pairs, words, width]` float32: spelling, lower state, higher state, each of unit length,
            and the `FLAGS`.
        mask: `[pairs, words]` float32, 1 where there is a word.
        keys: `[pairs, parts, size]` float32, the parts of the pooled key, each of unit length.
    """

    vectors: Tensor
    mask: Tensor
    keys: Tensor


def match(
    edit: Side, query: Side, sizes: tuple[int, ...], revision: int = REVISION
) -> tuple[Tensor, list[str]]:
    """The features of pairs of an edit's prompt and a query.

    Args:
        sizes: how many columns of a vector are spelling, lower state and higher state.
        revision: which features, see `REVISION`.

    Returns:
        `[pairs, features]` float32, and the features' names.
    """
    cuts = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    padding = _BELOW_COSINES * ((1 - query.mask).unsqueeze(1) + (1 - edit.mask).unsqueeze(2))
    cosines = [
        edit.vectors[..., start:end] @ query.vectors[..., start:end].transpose(1, 2) + padding
        for start, end in pairwise(cuts)
    ]
    similar = {
        "spelling": cosines[0],
        "low": cosines[1],
        "high": cosines[2],
        "any": torch.stack(cosines).amax(0),
        "mean": sum(cosines[1:], start=cosines[0]) / len(cosines),
    }
    features: dict[str, Tensor] = {}
    for name, side, axis in (("edit", edit, 2), ("query", query, 1)):
        best = {by: cosine.amax(axis).clamp(-1, 1) * side.mask for by, cosine in similar.items()}
        matched = _matched(best, side, name == "edit", revision)
        features |= {f"{name} {key}": value for key, value in matched.items()}
    features |= _answer_sort(edit, query)
    for part in range(edit.keys.shape[1]):
        features[f"key {part}"] = (edit.keys[:, part] * query.keys[:, part]).sum(-1)
    return torch.stack(list(features.values()), 1), list(features)


def _answer_sort(edit: Side, query: Side) -> dict[str, Tensor]:
    """Whether both prompts ask for the same sort of answer, if both show one."""
    shown = []
    for side in (edit, query):
        sorts = side.vectors[..., -1].round().long()
        sorts = sorts.where(sorts <= ANSWER_SORTS, 0)
        shown.append(torch.nn.functional.one_hot(sorts, ANSWER_SORTS + 1).amax(1)[:, 1:].float())
    one, other = shown
    both = ((one.amax(1) > 0) & (other.amax(1) > 0)).float()
    common = (one * other).amax(1)
    return {
        "answers alike": common,
        "answers differ": both - common,
        "edit shows answer": one.amax(1),
        "query shows answer": other.amax(1),
    }


def _matched(best: dict[str, Tensor], side: Side, has_subject: bool, revision: int) -> dict[str, Tensor]:
    """Features of how well the words of one side are matched by the other.

    Args:
        best: `[pairs, words]`, the best cosine of each word, by what is compared.
        side: the side whose words they are.
        has_subject: whether words of the subject are marked.
        revision: which features, see `REVISION`.
    """
    rarity, number, name, subject, _ = (side.vectors[..., -FLAGS:] * side.mask.unsqueeze(2)).unbind(2)
    groups = {"rare": rarity, "name": name}
    if revision > 1:
        groups["asked"] = rarity * (1 - name) * (1 - subject if has_subject else 1)
    groups |= {"subject": subject, "rest": side.mask - subject} if has_subject else {"rest": side.mask - name}
    features = _means_and_worst(torch.stack(list(best.values()), 1), list(best), groups)
    exact = (best["spelling"] > _EXACT).float() * side.mask
    missed = side.mask - exact
    features["numbers missed"] = (number * missed).sum(1).clamp(max=3)
    features["has number"] = (number.sum(1) > 0).float()
    features["names missed"] = (name * missed).sum(1).clamp(max=6)
    features["rare missed"] = (rarity * missed).sum(1).clamp(max=12)
    features["exact"] = exact.sum(1) / side.mask.sum(1)
    features["length"] = side.mask.sum(1).log()
    return features


def _means_and_worst(best: Tensor, by: Sequence[str], groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each group of words the mean of their best cosines and the worst one; 1 of a group without words.

    Args:
        best: `[pairs, len(by), words]`.
        by: what is compared.
        groups: the weight of each word in each group, `[pairs, words]`; of the last group, the rest, the
            worst says nothing.
    """
    weights = torch.stack(list(groups.values()), 1)
    total = weights.sum(2, keepdim=True)
    means = (weights @ best.transpose(1, 2) / total.clamp_min(_PRESENT)).where(total > _PRESENT, 1.0)
    least = torch.tensor([_COUNTS[group] for group in groups]).reshape(-1, 1, 1)
    worst = best.unsqueeze(1).where(weights.unsqueeze(2) > least, 1.0).amin(3)
    features: dict[str, Tensor] = {}
    for at, group in enumerate(groups):
        for which, name in enumerate(by):
            features[f"{group} {name}"] = means[:, at, which]
            if group != "rest":
                features[f"{group} {name} worst"] = worst[:, at, which]
    return features
