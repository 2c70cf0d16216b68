"""Takes prompts to routes: reads them, makes their records, and asks the rule of the project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melo_cli.base_model import BaseModel
from melo_cli.encoding import pad_prompts
from melo_cli.hidden_states import hidden_states
from melo_cli.scope.core.model import Record, ScopeModel
from melo_cli.scope.core.pooling import KeyTransform
from melo_cli.scope.core.rules import Neurons, Query, Radius, Route, Rule, Verified
from melo_cli.scope.core.words import asked_views
from melo_cli.scope.reading import Advance, Reader

_ROWS = 32
_NO_TOKENS = np.empty((0, 0), np.float16)


class Recorder(Protocol):
    """Makes the records of prompts, as the rule of a project compares them."""

    def records(
        self,
        texts: Sequence[str],
        subjects: Sequence[str | None] | None = None,
        advance: Advance | None = None,
    ) -> list[Record]:
        """The records of prompts, in order.

        Args:
            subjects: what each is about, where that is known.
        """

    def views(self, text: str) -> list[str]:
        """The texts that stand for a query, the whole first."""

    def question(self, record: Record) -> NDArray[np.float32] | None:
        """What a prompt asks, of anybody, as a unit vector `[size]`; None where keys do not tell."""


class VerifiedRecorder:
    """Records for the scope model."""

    def __init__(self, reader: Reader, model: ScopeModel) -> None:
        self._reader = reader
        self._model = model

    def records(
        self,
        texts: Sequence[str],
        subjects: Sequence[str | None] | None = None,
        advance: Advance | None = None,
    ) -> list[Record]:
        return self._model.records(self._reader.read(texts, advance), subjects) if texts else []

    def views(self, text: str) -> list[str]:
        return asked_views(text)

    def question(self, record: Record) -> NDArray[np.float32] | None:
        found: NDArray[np.float32] = self._model.question_parts(torch.tensor(record.key)[None])[0].numpy()
        return found


class RadiusRecorder:
    """Keys at one layer of the base model, pooled over a prompt's own tokens: no template's among them."""

    def __init__(self, base: BaseModel, layer: str, transform: KeyTransform) -> None:
        self._base = base
        self._layer = layer
        self._transform = transform

    @torch.no_grad()
    def records(
        self,
        texts: Sequence[str],
        subjects: Sequence[str | None] | None = None,
        advance: Advance | None = None,
    ) -> list[Record]:
        if not texts:
            return []
        options: dict[str, Any] = {}
        if self._base.max_length is not None:
            options = {"truncation": True, "max_length": self._base.max_length}
        ids = self._base.tokenizer(list(texts), **options).input_ids
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        found: dict[int, Record] = {}
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            inputs = pad_prompts(self._base, [ids[row] for row in rows])
            hidden = hidden_states(self._base, [self._layer], inputs)[self._layer]
            keys: Tensor = self._transform(hidden, inputs["attention_mask"]).cpu()
            found.update((row, Record(key.numpy(), _NO_TOKENS)) for row, key in zip(rows, keys, strict=True))
            if advance is not None:
                advance(len(rows))
        return [found[row] for row in range(len(texts))]

    def views(self, text: str) -> list[str]:
        return [text]

    def question(self, record: Record) -> NDArray[np.float32] | None:
        return None


class Router:
    """The one way from a prompt to the edit that answers it.

    Attributes:
        neurons: where candidates come from; an editor sets it to each new snapshot.
    """

    def __init__(self, recorder: Recorder, rule: Rule, neurons: Neurons) -> None:
        self.recorder = recorder
        self.rule = rule
        self.neurons = neurons

    def records(self, texts: Sequence[str], subjects: Sequence[str | None]) -> list[Record]:
        """The records of edits' prompts, for the store."""
        return self.recorder.records(texts, subjects)

    def routes(self, texts: Sequence[str], advance: Advance | None = None) -> list[Route]:
        """Who answers each prompt: its own text alone decides, never template, system prompt or earlier turns."""
        views = [self.recorder.views(text) for text in texts]
        every = list(dict.fromkeys(view for some in views for view in some))
        record = dict(zip(every, self.recorder.records(every), strict=True))
        queries = [Query([record[view] for view in some], some) for some in views]
        routes = self.rule.routes(queries, self.neurons)
        if advance is not None:
            advance(len(texts))
        return routes


def verified(settings: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Verified:
    """The rule that a project's key map, or an export's, holds."""
    threshold = settings["threshold"]
    return Verified(
        ScopeModel.from_arrays(settings["model"], arrays), np.inf if threshold is None else float(threshold)
    )


def verified_router(
    settings: Mapping[str, Any], arrays: Mapping[str, Tensor], reader: Callable[[], Reader], neurons: Neurons
) -> Router:
    """A router under the rule `verified`."""
    rule = verified(settings, arrays)
    return Router(VerifiedRecorder(reader(), rule.model), rule, neurons)


def radius_router(base: BaseModel, layer: str, transform: KeyTransform, neurons: Neurons) -> Router:
    """A router under the rule `radius`."""
    return Router(RadiusRecorder(base, layer, transform), Radius(), neurons)
