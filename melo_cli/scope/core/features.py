"""How well a query and an edit's prompt match, as numbers that mean the same on every model.

For each word of one prompt its best match in the other counts, by spelling and by its states at two layers;
these are averaged over the words that matter for one thing: rare words, names, the subject, and the rest,
which carry what is asked. Both directions are taken: what the edit has and the query lacks, and the reverse.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .words import ANSWER_SORTS

FLAGS = 5
"""Columns at the end of a token vector: rarity, whether the word is a number, reads like a name, is of the
subject, and which sort of answer it asks for (`words.answer_sorts`)."""
_EXACT = 0.995  # cosine of two spellings that are one word
_RARE = 0.6
_PRESENT = 1e-3
_OUT_OF_REACH = -3.0  # below every cosine: padding is nobody's best match


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


def match(edit: Side, query: Side, sizes: tuple[int, ...]) -> tuple[Tensor, list[str]]:
    """The features of pairs of an edit's prompt and a query.

    Args:
        sizes: how many columns of a vector are spelling, lower state and higher state.

    Returns:
        `[pairs, features]` float32, and the features' names.
    """
    cuts = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    padding = _OUT_OF_REACH * ((1 - query.mask).unsqueeze(1) + (1 - edit.mask).unsqueeze(2))
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
    found: dict[str, Tensor] = {}
    for name, side, axis in (("edit", edit, 2), ("query", query, 1)):
        best = {by: cosine.amax(axis).clamp(-1, 1) * side.mask for by, cosine in similar.items()}
        found |= {f"{name} {key}": value for key, value in _met(best, side, name == "edit").items()}
    found |= _wanted(edit, query)
    for part in range(edit.keys.shape[1]):
        found[f"key {part}"] = (edit.keys[:, part] * query.keys[:, part]).sum(-1)
    return torch.stack(list(found.values()), 1), list(found)


def _wanted(edit: Side, query: Side) -> dict[str, Tensor]:
    """Whether both prompts ask for the same sort of answer, where each shows one."""
    shown = []
    for side in (edit, query):
        sorts = side.vectors[..., -1].round().long()
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


def _met(best: dict[str, Tensor], side: Side, has_subject: bool) -> dict[str, Tensor]:
    """How well one side's words are met by the other's: `best`, by what is compared, `[pairs, words]`."""
    rarity, number, name, subject, _ = (side.vectors[..., -FLAGS:] * side.mask.unsqueeze(2)).unbind(2)
    groups = {"rare": rarity, "name": name}
    groups |= {"subject": subject, "rest": side.mask - subject} if has_subject else {"rest": side.mask - name}
    found: dict[str, Tensor] = {}
    for group, weights in groups.items():
        total = weights.sum(1)
        for by, met in best.items():
            mean = (met * weights).sum(1) / total.clamp_min(_PRESENT)
            found[f"{group} {by}"] = torch.where(total > _PRESENT, mean, torch.ones_like(mean))
            if group != "rest":
                counted = weights > (_RARE if group == "rare" else 0.5)
                found[f"{group} {by} worst"] = torch.where(counted, met, torch.ones_like(met)).amin(1)
    exact = (best["spelling"] > _EXACT).float() * side.mask
    missed = side.mask - exact
    found["numbers missed"] = (number * missed).sum(1).clamp(max=3)
    found["has number"] = (number.sum(1) > 0).float()
    found["names missed"] = (name * missed).sum(1).clamp(max=6)
    found["rare missed"] = (rarity * missed).sum(1).clamp(max=12)
    found["exact"] = exact.sum(1) / side.mask.sum(1)
    found["length"] = side.mask.sum(1).log()
    return found
