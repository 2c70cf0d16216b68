"""The prompts and targets of a block as one tree of tokens: what they begin with alike stands once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import EncodedEdit
from melo_cli.runtime.scoring import PickedTargets


@dataclass(frozen=True)
class TokenTree:
    """Texts merged token by token: two that begin alike share the nodes of their common beginning.

    In a decoder a token's state depends on the tokens before it alone, so a shared node has the state that it
    has in each of its texts. Nodes whose logits are read come last.

    Attributes:
        ids: `[n]` int64, the token of each node.
        positions: `[n]` int64, how many tokens stand before it in its texts.
        sees: `[n, n]` bool, whether the node of the row has that of the column before it, or is it.
        shared: how many nodes, the first ones, are the beginning of all texts of the group.
        read: how many nodes, the last ones, a target is predicted at.
        tokens: `[t]` int64, the target tokens, text by text.
        readers: `[t]` int64, the node that each of them is predicted at.
        wanted: `[t]` bool, whether it is to be said there.
    """

    ids: Tensor
    positions: Tensor
    sees: Tensor
    shared: int
    read: int
    tokens: Tensor
    readers: Tensor
    wanted: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, edits: Sequence[EncodedEdit], shared: int) -> TokenTree:
        """The tree of some texts, each a prompt and its target; a target's last token is only predicted.

        Args:
            edits: the texts.
            shared: how many tokens all prompts begin with alike; less than the shortest has.
        """
        known: dict[tuple[int, int], int] = {}
        parents, ids, depths, readers = list[int](), list[int](), list[int](), list[int]()
        for edit in edits:
            node, first = -1, len(edit.prompt_ids) - 1
            for depth, token in enumerate((*edit.prompt_ids, *edit.target_ids[:-1])):
                parent, node = node, known.setdefault((node, token), len(ids))
                if node == len(ids):
                    parents.append(parent)
                    ids.append(token)
                    depths.append(depth)
                if depth >= first:
                    readers.append(node)
        sees = np.eye(len(ids), dtype=np.bool_)
        for node, parent in enumerate(parents):
            if parent >= 0:
                sees[node] |= sees[parent]
        read = set(readers)
        order = np.array(sorted(range(len(ids)), key=lambda node: node in read))
        place = np.argsort(order)
        return cls(
            torch.tensor(ids)[order],
            torch.tensor(depths)[order],
            torch.tensor(sees[np.ix_(order, order)]),
            shared,
            len(read),
            torch.tensor([token for edit in edits for token in edit.target_ids]),
            torch.tensor(place[readers]),
            torch.tensor([edit.wanted for edit in edits for _ in edit.target_ids]),
        )

    def part(self, base: BaseModel, start: int, stop: int) -> dict[str, Tensor]:
        """Keyword arguments of a forward pass over nodes `start` to `stop`, after those before `start`."""
        device = base.model.device
        return {
            "input_ids": self.ids[None, start:stop].to(device),
            "position_ids": self.positions[None, start:stop].to(device),
            "attention_mask": _added_to_scores(base, self.sees[None, None, start:stop, :stop]),
        }


def shared_beginning(edits: Sequence[EncodedEdit]) -> int:
    """How many tokens all prompts begin with alike, as a chat template's first ones; each has more."""
    least, most = min(edit.prompt_ids for edit in edits), max(edit.prompt_ids for edit in edits)
    pairs = zip(least, most, strict=False)
    alike = next((at for at, (one, other) in enumerate(pairs) if one != other), len(least))
    return min(alike, min(len(edit.prompt_ids) for edit in edits) - 1)


def tree_batch(base: BaseModel, trees: Sequence[TokenTree]) -> PickedTargets:
    """A batch with a row for each tree, filled up on the left: what is read are the last positions.

    Args:
        base: a decoder-only model.
        trees: one for each row.

    Returns:
        The batch; its targets are those of the trees, one after the other.
    """
    width, kept = max(len(tree) for tree in trees), max(tree.read for tree in trees)
    ids = torch.full((len(trees), width), base.special.pad)
    positions = torch.zeros_like(ids)
    # A node that fills up sees itself: a row of scores without any has no softmax.
    sees = torch.eye(width, dtype=torch.bool).repeat(len(trees), 1, 1, 1)
    flat = []
    for row, tree in enumerate(trees):
        start = width - len(tree)
        ids[row, start:], positions[row, start:] = tree.ids, tree.positions
        sees[row, 0, start:, start:] = tree.sees
        flat.append(row * kept + tree.readers + start - (width - kept))
    device = base.model.device
    inputs: dict[str, Tensor | int] = {
        "input_ids": ids.to(device),
        "position_ids": positions.to(device),
        "attention_mask": _added_to_scores(base, sees),
        "logits_to_keep": kept,
        "use_cache": False,
    }
    return PickedTargets(
        inputs, torch.cat([tree.tokens for tree in trees]).to(device), torch.cat(flat).to(device)
    )


def _added_to_scores(base: BaseModel, sees: Tensor) -> Tensor:
    """A mask `[rows, 1, queries, keys]` in the form that every attention takes: added to its scores."""
    dtype = base.model.dtype
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
    return mask.to(base.model.device)
