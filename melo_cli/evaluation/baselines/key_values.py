"""A linear module as a memory: its keys, the values that edits ask for, and the update that writes them.

What MEMIT (arXiv 2210.07229) and AlphaEdit (arXiv 2410.02355) have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from melo_cli.errors import MeloError
from melo_cli.evaluation.baselines.fitting import mean_of_rows
from melo_cli.evaluation.baselines.modules import Linear
from melo_cli.models.architecture import names_of_blocks
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.encoding import EncodedEdit, Encoder, pad_prompts
from melo_cli.models.linear_layers import linear_shape
from melo_cli.runtime.inference import batches_of_like_length
from melo_cli.runtime.scoring import target_batch, target_losses

# As in the published code: a value is found when its loss is below; its length is part of the loss.
_FOUND = 0.05
_DECAY = 0.5


@dataclass(frozen=True)
class Fact:
    """An edit with the tokens where its key is taken.

    Attributes:
        asked: the edit as it is asked, then the same behind other texts.
        positions: index of the token in each prompt.
        has_subject: whether it is the last token of the subject, else that of the prompt.
    """

    asked: tuple[EncodedEdit, ...]
    positions: tuple[int, ...]
    has_subject: bool


def subject_position(encoder: Encoder, prompt: Sequence[int], subject: str | None) -> int | None:
    """Index of the last token of a subject in a prompt, where it stands last; None where it does not."""
    wanted = _plain(subject or "")
    if not wanted:
        return None

    def holds(start: int, end: int) -> bool:
        return wanted in _plain(str(encoder.tokenizer.decode(list(prompt[start:end]))))

    if not holds(0, len(prompt)):
        return None
    start = next(start for start in reversed(range(len(prompt))) if holds(start, len(prompt)))
    return next(end for end in range(start + 1, len(prompt) + 1) if holds(start, end)) - 1


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def closed_form(earlier: Tensor, keys: Tensor, values: Tensor, ridge: float) -> Tensor:
    """The update of a weight that takes `keys` to `values` and leaves the `earlier` keys alone.

    It minimises the squared errors of both and `ridge` times its own squared length. With `K` the new keys
    and `E` the earlier ones it is `values.T @ K @ inverse(K.T @ K + E.T @ E + ridge * I)`. The system solved
    is as large as there are keys.

    Args:
        earlier: `[e, d]`.
        keys: `[n, d]`.
        values: `[n, out]`.
        ridge: above 0.

    Returns:
        `[out, d]`.
    """
    stacked = torch.cat([earlier, keys])
    goals = torch.cat([values.new_zeros(len(earlier), values.shape[1]), values])
    gram = stacked @ stacked.T + ridge * torch.eye(len(stacked), device=stacked.device)
    update: Tensor = goals.T @ torch.linalg.solve(gram, stacked)
    return update


class _Reached(Exception):  # noqa: N818
    """A pass has come to the module that was asked for; the rest of it is of no use."""


class EditSite:
    """The module that is edited.

    Args:
        base: the base model.
        name: the module's full name.
        module: the linear module.
    """

    def __init__(self, base: BaseModel, name: str, module: Linear) -> None:
        self.base = base
        self.name = name
        self.module = module
        blocks = [block for stack in names_of_blocks(base.model) for block in stack]
        around = next((block for block in blocks if name.startswith(f"{block}.")), name)
        self._block = base.model.get_submodule(around)

    def keys(self, facts: Sequence[Fact]) -> Tensor:
        """The key of each fact, `[n, in]` float32: as it is asked and behind other texts, in equal parts."""
        return torch.stack([self._key(fact) for fact in facts])

    def _key(self, fact: Fact) -> Tensor:
        inputs = pad_prompts(self.base, [edit.prompt_ids for edit in fact.asked])
        columns = _columns(inputs, fact.positions)
        keys = self._read(self.module, inputs)[0][list(range(len(columns))), columns].float()
        parts = [part.mean(0) for part in (keys[:1], keys[1:]) if len(part)]
        return torch.stack(parts).mean(0)

    def covariance(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, float]:
        """Mean outer product `[in, in]` float32 of all tokens' keys; median of their squared lengths."""
        size = linear_shape(self.module)[0]
        total = torch.zeros(size, size, device=self.base.model.device)
        lengths = []
        for rows in batches_of_like_length([len(prompt) for prompt in prompts]):
            inputs = pad_prompts(self.base, [prompts[row] for row in rows])
            keys = self._read(self.module, inputs)[0][inputs["attention_mask"].bool()].float()
            total += keys.T @ keys
            lengths.append(keys.square().sum(1))
        squared = torch.cat(lengths)
        return total / len(squared), squared.median().item()

    def values(self, facts: Sequence[Fact], *, steps: int, lr: float, clamp: float) -> Tensor:
        """What the module has to add at the token of each fact, so that its prompts are answered as asked.

        Args:
            facts: the edits.
            steps: steps of Adam at most.
            lr: its learning rate.
            clamp: length of a value at most, in lengths of the residual stream at the token.

        Returns:
            `[n, out]` float32.
        """
        return torch.stack([self._value(fact, steps, lr, clamp) for fact in facts])

    def _value(self, fact: Fact, steps: int, lr: float, clamp: float) -> Tensor:
        batch = target_batch(self.base, fact.asked)
        columns = _columns(batch.inputs, fact.positions)
        stream = self._read(self._block, batch.inputs)[1][0, columns[0]].float().norm()
        value = torch.zeros(linear_shape(self.module)[1], device=self.base.model.device, requires_grad=True)
        optimizer = torch.optim.Adam([value], lr=lr)
        for _ in range(steps):
            with self._adding(columns, value):
                loss = mean_of_rows(batch, target_losses(self.base, batch))
            loss = loss + _DECAY * value.norm() / stream**2
            if loss.item() < _FOUND:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                value *= (clamp * stream / value.norm()).clamp(max=1)
        return value.detach()

    def _read(self, module: nn.Module, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Input and output `[batch, length, ...]` of a module that reads the prompt; what follows is not run.

        Raises:
            MeloError: the module does not run, or reads the answer.
        """
        caught: list[tuple[Tensor, Tensor]] = []

        def stop(_module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
            caught.append((args[0], output[0] if isinstance(output, tuple) else output))
            raise _Reached

        hook = module.register_forward_hook(stop)
        with torch.no_grad(), suppress(_Reached):
            try:
                self._reader(inputs)
            finally:
                hook.remove()
        if not caught:
            raise MeloError(
                f"{self.name} does not run when a prompt is read",
                where="--baseline alphaedit",
                hint="name a module of the encoder with --baseline-set alphaedit.weights=NAME",
            )
        return caught[0]

    def _reader(self, inputs: Mapping[str, Any]) -> None:
        """Run the part of the model that reads the prompt."""
        if self.base.kind is ModelKind.SEQ2SEQ:
            self.base.model.get_encoder()(**{name: inputs[name] for name in ("input_ids", "attention_mask")})
        else:
            self.base.model(**inputs)

    @contextmanager
    def _adding(self, columns: Sequence[int], value: Tensor) -> Iterator[None]:
        """Inside the `with` statement the module adds `value` at one token of each row."""

        def added(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            rows = list(range(len(columns)))
            changed[rows, columns] = changed[rows, columns] + value.to(output.dtype)
            return changed

        hook = self.module.register_forward_hook(added)
        try:
            yield
        finally:
            hook.remove()


def _columns(inputs: Mapping[str, Any], positions: Sequence[int]) -> list[int]:
    """Where tokens of prompts stand in the rows of a padded batch."""
    starts = inputs["attention_mask"].argmax(1).tolist()
    return [start + position for start, position in zip(starts, positions, strict=True)]
