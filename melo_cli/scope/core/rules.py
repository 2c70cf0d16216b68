"""The scope rules `verified` and `radius`: which candidate fires."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .model import Record, ScopeModel
from .words import STATEMENT, TASK, WHETHER

Wants = Literal["whether", "task", "statement"]
_MARKS: dict[int, Wants] = {WHETHER: "whether", TASK: "task", STATEMENT: "statement"}

CANDIDATES = 8
"""Number of candidates of one query."""


@dataclass(frozen=True)
class Candidate:
    """A candidate of a query, as the scope rule judged it.

    Attributes:
        edit_id: id of the neuron's edit.
        block: id of its block; None if the neuron leads to the base model.
        distance: L2 distance from the query's key to the neuron's.
        holds: whether the query lies in its scope, by the scope rule.
        probability: probability that both ask the same; None under `radius`.
        cluster: number of its cluster; None under `verified`.
        radius: radius of its cluster; None under `verified`.
        center_distance: L2 distance from the query's key to the center of its cluster; None under `verified`.
        asked: what it was compared with, where that is not the whole query as it stands: one of its
            sentences, or the query without its misspelled words.
    """

    edit_id: str
    block: str | None
    distance: float
    holds: bool = False
    probability: float | None = None
    cluster: int | None = None
    radius: float | None = None
    center_distance: float | None = None
    asked: str | None = None


@dataclass(frozen=True)
class Route:
    """The answer of the router for one prompt.

    Attributes:
        held: the candidate in whose scope the prompt lies; None if there is none.
        nearest: the candidate that came closest to firing, whether it holds or not; None without neurons.
        wants: what the prompt wants instead of the answer of the nearest edit, whose it would be: to know
            whether that is so, a task, or nothing, since it is a statement. The base model answers it.
        told: ids of the edits whose facts stand with the prompt, the newest first. The base model answers it.
        compared: ids of the edits that the whole prompt was compared with, the nearest first, where none
            holds it; under `verified` alone.
    """

    held: Candidate | None
    nearest: Candidate | None
    wants: Wants | None = None
    told: tuple[str, ...] = ()
    compared: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def fired(self) -> Candidate | None:
        """The candidate whose block answers; None if the base model answers."""
        return self.held if self.held is not None and self.held.block is not None else None


NO_ROUTE = Route(None, None)


class Near(Protocol):
    """A neuron that retrieval found: an edit with its distance and, under the rule `radius`, its cluster."""

    @property
    def edit_id(self) -> str: ...
    @property
    def block(self) -> str | None: ...
    @property
    def distance(self) -> float: ...
    @property
    def cluster(self) -> int | None: ...
    @property
    def radius(self) -> float | None: ...
    @property
    def center_distance(self) -> float | None: ...


class Neurons(Protocol):
    """Where candidates come from: a project's index, or an export's table."""

    def nearest(self, keys: NDArray[np.float32], k: int) -> Sequence[Sequence[Near]]:
        """For each key `[n, d]` the `k` nearest neurons, nearest first."""

    def tokens(self, edit_ids: Sequence[str]) -> Sequence[NDArray[np.float16] | None]:
        """The token vectors of neurons."""

    def keys(self, edit_ids: Sequence[str]) -> NDArray[np.float32]:
        """The keys `[n, d]` of neurons."""

    def prompts(self, edit_ids: Sequence[str]) -> Sequence[str]:
        """The prompts of neurons' edits."""


@dataclass(frozen=True)
class Query:
    """One prompt to route: the records of the sentences that it may ask, the whole first, and their texts."""

    records: Sequence[Record]
    texts: Sequence[str]


class Rule(Protocol):
    """Decides which candidate of a query fires."""

    def routes(self, queries: Sequence[Query], neurons: Neurons) -> list[Route]:
        """One route a query."""


class _Rank(NamedTuple):
    """By what the candidates of a query are put in order: of prompts that are equally sure the nearest one
    counts, then the newest.

    Attributes:
        reaches: whether it reaches the threshold, and does not ask something else by its words.
        logit: log-odds that it asks the same.
    """

    reaches: bool
    logit: float
    nearness: float
    edit_id: str


@dataclass(frozen=True)
class Verified:
    """The most probable candidate fires, from `threshold` on.

    One that asks something else by its words (`ScopeModel.asks_another`) does not fire. None fires where the
    whole query asks whether something is so, sets a task, or is a statement, and the candidate's edit is not:
    a target is no answer to that.

    Attributes:
        threshold: log-odds; infinite where an edit answers its own prompt alone.
        questions: whether prompts are questions, so that it counts what they ask by their words; those of a
            classifier are texts.
    """

    model: ScopeModel
    threshold: float
    questions: bool = True

    def routes(self, queries: Sequence[Query], neurons: Neurons) -> list[Route]:
        views = [(at, view) for at, query in enumerate(queries) for view in range(len(query.records))]
        asked = [queries[at].records[view] for at, view in views]
        if not asked:
            return []
        nearest = neurons.nearest(np.stack([record.key for record in asked]), CANDIDATES)
        pairs = [(row, near) for row, some in enumerate(nearest) for near in some]
        edits = self._records(list(dict.fromkeys(near.edit_id for _, near in pairs)), neurons)
        pairs = [(row, near) for row, near in pairs if near.edit_id in edits]
        logits = self.model.logits(
            [asked[row] for row, _ in pairs], [edits[near.edit_id] for _, near in pairs]
        )
        compared: dict[int, list[str]] = {at: [] for at in range(len(queries))}
        for row, near in pairs:
            at, view = views[row]
            if not view:
                compared[at].append(near.edit_id)
        best: dict[int, tuple[_Rank, Near, int]] = {}
        for (row, near), logit in zip(pairs, logits.tolist(), strict=True):
            at, view = views[row]
            reaches = logit >= self.threshold and (
                logit == np.inf
                or not self.questions
                or not self.model.asks_another(asked[row], edits[near.edit_id])
            )
            rank = _Rank(reaches, logit, -near.distance, near.edit_id)
            if at not in best or rank > best[at][0]:
                best[at] = rank, near, view
        return [
            self._route(queries[at], edits[best[at][1].edit_id], *best[at], compared[at])
            if at in best
            else NO_ROUTE
            for at in range(len(queries))
        ]

    def _records(self, edit_ids: Sequence[str], neurons: Neurons) -> dict[str, Record]:
        if not edit_ids:
            return {}
        keys, tokens = neurons.keys(edit_ids), neurons.tokens(edit_ids)
        return {
            edit_id: Record(key, vectors)
            for edit_id, key, vectors in zip(edit_ids, keys, tokens, strict=True)
            if vectors is not None
        }

    def _route(
        self, query: Query, edit: Record, rank: _Rank, near: Near, view: int, compared: Sequence[str]
    ) -> Route:
        own = not view and rank.logit == np.inf
        wants = (
            _wants_instead(query.records[0], edit) if self.questions and rank.reaches and not own else None
        )
        candidate = Candidate(
            near.edit_id,
            near.block,
            near.distance,
            holds=rank.reaches and wants is None,
            probability=0.0 if rank.logit >= self.threshold and not rank.reaches else probability(rank.logit),
            asked=query.texts[view] if view else None,
        )
        held = candidate if candidate.holds else None
        return Route(held, candidate, wants, compared=() if held else tuple(compared))


def _wants_instead(query: Record, edit: Record) -> Wants | None:
    """See `Route.wants`."""
    return next((wants for mark, wants in _MARKS.items() if query.has(mark) and not edit.has(mark)), None)


@dataclass(frozen=True)
class Radius:
    """The nearest neuron whose cluster's ball holds the key fires (Sec. 3.3).

    A key that is computed again in another batch differs by about 1e-6 of its length, so a ball reaches
    `TOLERANCE` of that farther than its radius.
    """

    TOLERANCE = 1e-5

    def routes(self, queries: Sequence[Query], neurons: Neurons) -> list[Route]:
        if not queries:
            return []
        keys = np.stack([query.records[0].key for query in queries])
        margins = self.TOLERANCE * (1.0 + np.linalg.norm(keys.astype(np.float64), axis=1))
        return [
            self._route(some, margin)
            for some, margin in zip(neurons.nearest(keys, CANDIDATES), margins.tolist(), strict=True)
        ]

    def _route(self, nearest: Sequence[Near], margin: float) -> Route:
        candidates = [self._judged(near, margin) for near in nearest]
        held = next((candidate for candidate in candidates if candidate.holds), None)
        return Route(held, candidates[0] if candidates else None)

    def _judged(self, near: Near, margin: float) -> Candidate:
        inside = (
            near.radius is not None
            and near.center_distance is not None
            and near.center_distance <= near.radius + margin
        )
        return Candidate(
            near.edit_id,
            near.block,
            near.distance,
            holds=inside,
            cluster=near.cluster,
            radius=near.radius,
            center_distance=near.center_distance,
        )


def probability(logit: float) -> float:
    """From log-odds to a probability."""
    return (
        float(1.0 / (1.0 + np.exp(-np.clip(logit, -60.0, 60.0)))) if np.isfinite(logit) else float(logit > 0)
    )
