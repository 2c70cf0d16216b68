"""The routed model: transformers' call and `generate`, every row under its own block or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from melo_cli.errors import PromptError
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.encoding import IGNORED, with_positions
from melo_cli.runtime.block_cache import BlockCache
from melo_cli.scope.core.router import Router
from melo_cli.scope.core.rules import Neurons, Route
from melo_cli.scope.core.turns import LastUserTurn
from melo_cli.tuner import DynamicLoraModel
from melo_store.records import Block


class EditSource(Neurons, Protocol):
    """A source of candidates and blocks: an open project."""

    def block(self, block_id: str) -> Block:
        """One block's slices."""


class RoutedModel:
    """A base model whose edits answer the prompts in their scope (MELO, Sec. 3.3).

    Call it and `generate` with it as with a transformers model. A prompt's route is taken from its own
    text, of a conversation from the last user turn, before the first layer runs for the answer, and holds for
    every step, beam and sample.

    Attributes:
        router: takes texts to routes.
        routes: the route of each prompt of the last call.
        tokenizer: the base model's tokenizer.
        config: the base model's config.
    """

    def __init__(self, base: BaseModel, tuner: DynamicLoraModel, router: Router, source: EditSource) -> None:
        self.base = base
        self.tuner = tuner
        self.router = router
        self.source = source
        self._turns = LastUserTurn(base.tokenizer)
        self.blocks = BlockCache(lambda block_id: self.source.block(block_id), tuner.device)
        self.tokenizer = base.tokenizer
        self.config = base.model.config
        self.routes: list[Route] = []

    @property
    def device(self) -> torch.device:
        """Where inputs must be."""
        return self.tuner.device

    def follow(self, source: EditSource) -> None:
        """Use another snapshot of the project."""
        self.source = self.router.neurons = source

    def route(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> list[Route]:
        """The routes of a batch of prompts.

        Of an open request, too, the tokens stand as they are given: no fact is put beside it.

        Args:
            input_ids: `[batch, length]` int64, padded on either side.
            attention_mask: `[batch, length]`, 1 at real tokens; without it the padding token is masked.

        Returns:
            One route for each row.
        """
        mask = self._mask(input_ids, attention_mask).bool()
        texts = [self._turns.text(row[real].tolist()) for row, real in zip(input_ids, mask, strict=True)]
        return self.router.routes(texts)

    @contextmanager
    def using(self, block_ids: Sequence[str | None]) -> Iterator[None]:
        """Inside the `with` statement, row `i` of each pass gets the block `block_ids[i]`.

        Args:
            block_ids: one for each row; None for the base.
        """
        banks, rows = self.blocks.banks(block_ids)
        with self.tuner.using(banks, rows):
            yield

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        routes: Sequence[Route] | None = None,
        **kwargs: Any,
    ) -> Any:
        """One routed forward pass over a batch.

        Args:
            input_ids: `[batch, length]`.
            labels: as in transformers. For a decoder-only model the prompt of a row, from which its key is
                taken, ends where its labels begin to be other than -100.
            routes: routes to use instead of looking them up; needed with `past_key_values`, where the
                prompt is no longer there to be looked up.

        Raises:
            PromptError: there is no prompt to route by.
        """
        mask = self._mask(input_ids, attention_mask)
        if routes is None:
            if kwargs.get("past_key_values") is not None:
                raise PromptError(
                    "the prompt is in past_key_values, so it cannot be routed again",
                    where="RoutedModel",
                    hint="pass routes=model.routes, the routes of the call that made the cache",
                )
            routes = self.route(input_ids, self._prompt_mask(mask, labels))
        self.routes = list(routes)
        inputs = {"input_ids": input_ids, "attention_mask": mask}
        if "token_type_ids" in kwargs:
            inputs["token_type_ids"] = kwargs.pop("token_type_ids")
        if self.base.kind is not ModelKind.CAUSAL:
            inputs = _padded(inputs, "right")
        if kwargs.get("past_key_values") is None and "position_ids" not in kwargs:
            inputs = with_positions(self.base, inputs)
        with self.using(_fired(self.routes)):
            return self.base.model(**inputs, labels=labels, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        routes: Sequence[Route] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Routed generation with transformers' arguments: greedy, sampling, beams.

        Args:
            input_ids: `[batch, length]` int64, padded on either side. Prompts of a decoder-only model come
                back padded on the left.
            attention_mask: `[batch, length]`, 1 at real tokens; without it the padding token is masked.
            routes: routes to use instead of looking them up.
            **kwargs: arguments of transformers' `generate`.

        Returns:
            What transformers' `generate` returns, `[rows, length]` int64 by default.
        """
        mask = self._mask(input_ids, attention_mask)
        self.routes = list(routes) if routes is not None else self.route(input_ids, mask)
        side = "left" if self.base.kind is ModelKind.CAUSAL else "right"
        inputs = _padded({"input_ids": input_ids, "attention_mask": mask}, side)
        kwargs.setdefault("pad_token_id", self.base.special.pad)
        with self.using(_fired(self.routes)):
            return self.base.generate(**inputs, **kwargs)

    def _mask(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        if attention_mask is not None:
            return attention_mask
        pad = self.tokenizer.pad_token_id
        # Where the end token is also the padding token, tokens alone do not show which is which.
        if pad == self.tokenizer.eos_token_id:
            return torch.ones_like(input_ids)
        return input_ids.ne(pad).long()

    def _prompt_mask(self, mask: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None or self.base.kind is not ModelKind.CAUSAL:
            return mask
        answered = (labels != IGNORED).long().cumsum(-1) > 0
        prompt = mask.masked_fill(answered, 0)
        if not bool(prompt.any(-1).all()):
            raise PromptError(
                "a row has no prompt to route, since labels cover all of it",
                where="RoutedModel",
                hint="set the labels of the prompt's tokens to -100, or pass routes=",
            )
        return prompt


def _fired(routes: Sequence[Route]) -> list[str | None]:
    return [route.fired.block if route.fired is not None else None for route in routes]


def _padded(inputs: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    """Move each row's padding to one side, keeping the order of its tokens.

    A BERT-type head reads the first position and a decoder goes on from the last: padding there would answer.
    """
    order = inputs["attention_mask"].argsort(dim=-1, descending=side == "right", stable=True)
    return {name: value.gather(-1, order) for name, value in inputs.items()}
