"""Training in epochs over all edits, as standard fine-tuning does (LocFT-BF, arXiv 2509.22072)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from pydantic import Field
from torch import Tensor
from torch.optim import Adam

from melo_cli.evaluation.baselines.baseline import Baseline
from melo_cli.evaluation.baselines.fitting import mean_of_rows
from melo_cli.models.base_model import BaseModel
from melo_cli.models.encoding import EncodedEdit
from melo_cli.reporter import Progress
from melo_cli.runtime.scoring import target_batch, target_losses


class EpochBaseline(Baseline):
    """What is trained breadth first: every epoch goes over all edits, in shuffled mini-batches.

    The opposite, one batch after another to convergence, makes the last batches overwrite the first. As
    published: Adam at a constant learning rate, a target with its stop token, the loss of target tokens
    alone, each edit the mean of its own, no step for a mini-batch that is learned. Published runs end when
    the mean loss is below 0.01; here every target token has to reach `stop_at`.

    Attributes:
        lr: learning rate of Adam.
        epochs: passes over all edits at most.
        batch_size: edits in a mini-batch; the project's batches are of no account.
        stop_at: training ends after an epoch in which every target token of every edit had this probability.
    """

    lr: float
    epochs: int = Field(50, gt=0)
    batch_size: int = Field(8, gt=0)
    stop_at: float = Field(0.9, gt=0, lt=1)

    def train(
        self,
        base: BaseModel,
        parameters: Sequence[Tensor],
        batches: Sequence[Sequence[EncodedEdit]],
        seed: int,
        progress: Progress,
    ) -> int:
        """Train `parameters` in place on the edits of all batches.

        Args:
            base: the model; its forward pass must depend on `parameters`.
            parameters: what is trained.
            batches: the edits.
            seed: of the order of the edits.
            progress: advances by the edits times the share of the epochs that is done.

        Returns:
            The epochs that it took.
        """
        edits = [edit for batch in batches for edit in batch]
        optimizer = Adam(parameters, lr=self.lr)
        order = random.Random(seed)
        shown = 0
        for epoch in range(1, self.epochs + 1):
            order.shuffle(edits)
            parts = range(0, len(edits), self.batch_size)
            learned = [self._learn(base, optimizer, edits[i : i + self.batch_size]) for i in parts]
            done = len(edits) if all(learned) else len(edits) * epoch // self.epochs
            progress.advance(done - shown)
            shown = done
            if all(learned):
                return epoch
        return self.epochs

    def _learn(self, base: BaseModel, optimizer: Adam, edits: Sequence[EncodedEdit]) -> bool:
        """One step on a mini-batch; none, and True, if it is learned already."""
        batch = target_batch(base, edits)
        losses = target_losses(base, batch)
        if math.exp(-losses.max().item()) >= self.stop_at:
            return True
        optimizer.zero_grad(set_to_none=True)
        mean_of_rows(batch, losses).backward()
        optimizer.step()
        return False
