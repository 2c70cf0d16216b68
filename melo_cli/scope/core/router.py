"""The router: reads prompts, makes their records, and finds their routes by the scope rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .model import Record, ScopeModel
from .pooling import KeyTransform
from .reader import Advance, Reader, TextReader
from .rules import Candidate, Neurons, Query, Radius, Route, Rule, Verified
from .second_reading import SecondReading
from .text_model import TextModel
from .words import asked_views

_ROWS = 32
_NO_TOKENS = np.empty((0, 0), np.float16)


class Recorder(Protocol):
    """Makes the records of prompts for a scope rule."""

    def records(
        self,
        texts: Sequence[str],
        subjects: Sequence[str | None] | None = None,
        advance: Advance | None = None,
    ) -> list[Record]:
        """The records of prompts, in order.

        Args:
            texts: the prompts.
            subjects: the subject of each prompt, or None.
            advance: called with the number of prompts read.
        """

    def views(self, text: str) -> list[str]:
        """The texts that stand for a query, the whole first."""

    @property
    def second_reading(self) -> SecondReading | None:
        """How a prompt that reaches no edit is read once more; None if it is not."""

    def question(self, record: Record) -> NDArray[np.float32] | None:
        """What a prompt asks, about any subject, as a unit vector `[size]`; None if keys do not say."""


class VerifiedRecorder:
    """Records for the scope model."""

    def __init__(self, reader: TextReader, model: ScopeModel) -> None:
        self._reader = reader
        self._model = model

    def records(
        self,
        texts: Sequence[str],
        subjects: Sequence[str | None] | None = None,
        advance: Advance | None = None,
    ) -> list[Record]:
        return self._model.records(self._reader.read(texts, advance), subjects) if texts else []

    def read_by(self, reader: TextReader) -> VerifiedRecorder:
        """The same recorder with another reader."""
        return VerifiedRecorder(reader.tuned(self._model.tuning), self._model)

    def views(self, text: str) -> list[str]:
        return asked_views(text)

    @cached_property
    def second_reading(self) -> SecondReading:
        return SecondReading(self._model.vocabulary, self._reader.whole_words())

    def question(self, record: Record) -> NDArray[np.float32] | None:
        vector: NDArray[np.float32] = self._model.question_parts(torch.tensor(record.key)[None])[0].numpy()
        return vector


class RadiusRecorder:
    """Records for the clusters: keys pooled over a prompt's own tokens, without those of a template.

    Args:
        model: the model that reads.
        layer: name of the key layer.
        limit: largest number of tokens read of a prompt; None reads all.
        transform: turns hidden states into a key.
    """

    def __init__(self, model: TextModel, layer: str, limit: int | None, transform: KeyTransform) -> None:
        self._model = model
        self._layer = layer
        self._options: dict[str, Any] = {} if limit is None else {"truncation": True, "max_length": limit}
        self._transform = transform

    def records(
        self,
        texts: Sequence[str],
        subjects: Sequence[str | None] | None = None,
        advance: Advance | None = None,
    ) -> list[Record]:
        if not texts:
            return []
        ids = self._model.tokenizer(list(texts), **self._options)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        records: dict[int, Record] = {}
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            states, mask = self._model.states([ids[row] for row in rows], [self._layer])
            keys = self._transform(states[self._layer], mask).cpu()
            made = ((row, Record(key.numpy(), _NO_TOKENS)) for row, key in zip(rows, keys, strict=True))
            records.update(made)
            if advance is not None:
                advance(len(rows))
        return [records[row] for row in range(len(texts))]

    def views(self, text: str) -> list[str]:
        return [text]

    @property
    def second_reading(self) -> None:
        return None

    def question(self, record: Record) -> NDArray[np.float32] | None:
        return None


class Router:
    """Takes prompts to routes.

    Attributes:
        recorder: makes the records of prompts.
        rule: the scope rule.
        neurons: the neurons to search; an editor sets it to each new snapshot.
    """

    def __init__(self, recorder: Recorder, rule: Rule, neurons: Neurons) -> None:
        self.recorder = recorder
        self.rule = rule
        self.neurons = neurons

    def records(self, texts: Sequence[str], subjects: Sequence[str | None]) -> list[Record]:
        """The records of edits' prompts, for the store; white space around a prompt is removed."""
        return self.recorder.records([text.strip() for text in texts], subjects)

    def queries(self, texts: Sequence[str]) -> list[Query]:
        """Each prompt as a rule looks it up; none depends on the neurons."""
        views = [self.recorder.views(text.strip()) for text in texts]
        every = list(dict.fromkeys(view for some in views for view in some))
        record = dict(zip(every, self.recorder.records(every), strict=True))
        return [Query([record[view] for view in some], some) for some in views]

    def routes(self, texts: Sequence[str], advance: Advance | None = None) -> list[Route]:
        """The route of each prompt; it depends on the prompt's own text, not on a template, a system prompt
        or earlier turns."""
        routes = self.routes_of(self.queries(texts), self.neurons)
        if advance is not None:
            advance(len(texts))
        return routes

    def routes_of(self, queries: Sequence[Query], neurons: Neurons) -> list[Route]:
        """The route of each query among `neurons`; one that no edit answers is looked up once more as it may
        be meant."""
        routes = self.rule.routes(queries, neurons)
        meant = self._meant(queries, routes, neurons)
        again = self.rule.routes(self.queries(list(meant.values())), neurons)
        for (at, text), route in zip(meant.items(), again, strict=True):
            if route.held is not None or route.wants is not None:
                routes[at] = _asked_as(text, route)
        return routes

    def _meant(self, queries: Sequence[Query], routes: Sequence[Route], neurons: Neurons) -> dict[int, str]:
        """The queries that reached no edit and are read once more, by their index, as they are read then."""
        second = self.recorder.second_reading
        if second is None:
            return {}
        texts: dict[int, str] = {}
        for at, route in enumerate(routes):
            if route.nearest is None or route.held is not None or route.wants is not None:
                continue
            near = list(dict.fromkeys((route.nearest.edit_id, *route.compared)))
            vectors = zip(neurons.prompts(near), neurons.tokens(near), strict=True)
            text = second.of(
                queries[at].texts[0], [(prompt, tokens) for prompt, tokens in vectors if tokens is not None]
            )
            if text is not None:
                texts[at] = text
        return texts


def _asked_as(text: str, route: Route) -> Route:
    """A route that was found by another text than the query's own."""

    def named(candidate: Candidate | None) -> Candidate | None:
        return None if candidate is None else replace(candidate, asked=candidate.asked or text)

    return replace(route, held=named(route.held), nearest=named(route.nearest))


def verified_router(
    settings: Mapping[str, Any], arrays: Mapping[str, Tensor], reader: Reader, neurons: Neurons
) -> Router:
    """A router under the rule `verified`.

    Args:
        settings: `threshold`, None if an edit answers its own prompt alone; `questions`, see
            `Verified.questions`, if not left out; and `model`, the settings that `ScopeModel.to_arrays` gave.
        arrays: the arrays that `ScopeModel.to_arrays` gave.
        reader: reads prompts.
        neurons: the neurons to search.
    """
    threshold = settings["threshold"]
    model = ScopeModel.from_arrays(settings["model"], arrays)
    limit = np.inf if threshold is None else float(threshold)
    rule = Verified(model, limit, settings.get("questions", True))
    return Router(VerifiedRecorder(reader.tuned(model.tuning), model), rule, neurons)


def radius_router(
    model: TextModel, layer: str, limit: int | None, transform: KeyTransform, neurons: Neurons
) -> Router:
    """A router under the rule `radius`; see `RadiusRecorder`."""
    return Router(RadiusRecorder(model, layer, limit, transform), Radius(), neurons)
