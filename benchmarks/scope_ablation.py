"""What each part of the scope model is worth, what larger generality costs, and what is missed, as Markdown.

    python benchmarks/scope_ablation.py MODEL EDITS.jsonl [options of scope.py] [--texts 8] [--whole]

Takes the data and options of `scope.py`, and reads every text once. For each variant the classifier is
trained anew on what it may see, the threshold is chosen anew within the recipe's bounds, and the same edits
are asked the same prompts: without one kind of features at a time, with the key alone, with other numbers of
candidates, and with `--own N` on the corpus alone, the own rows alone, and both. Then the frontier: the reach
(the share of rephrases that are routed to their edit) at each share of false fires. Then why rephrases are
missed, and texts of both kinds of failure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scope import parser_of, prepared, requests_of, rows_of
from torch import Tensor

from melo_cli.calibration.calibration_data import CalibrationData, collect_calibration_data
from melo_cli.calibration.project_examples import adapted, other_questions, texts_of, what_they_ask
from melo_cli.calibration.scope_cache import scope_learnt_with
from melo_cli.calibration.thresholds import Evidence, threshold_within
from melo_cli.datasets import load_calibration
from melo_cli.recipe import Recipe
from melo_cli.reporter import SilentReporter
from melo_cli.scope.core.features import match
from melo_cli.scope.core.model import ScopeModel
from melo_cli.scope.core.reader import Reader
from melo_cli.scope.core.rules import CANDIDATES, probability
from melo_cli.scope.core.words import asked_views
from melo_cli.scope.reading import reader_for
from melo_cli.scope.simulation import (
    Episode,
    EpisodeQuery,
    Half,
    PairExamples,
    Pairs,
    Readings,
    pairs_of,
)
from melo_cli.scope.training import Learnt, classified

_MOST_CANDIDATES = 32
_CANDIDATES = (1, 2, 4, 8, 16, 32)
_FALSE_FIRES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)
_LEFT_OUT: dict[str, Callable[[str], bool]] = {
    "spelling": lambda name: "spelling" in name or "missed" in name or "exact" in name,
    "the lower layer": lambda name: bool({"low", "any", "mean"} & set(name.split())),
    "the higher layer": lambda name: bool({"high", "any", "mean"} & set(name.split())),
    "any and mean of the three": lambda name: bool({"any", "mean"} & set(name.split())),
    "rare words": lambda name: "rare" in name,
    "the rare words of what is asked": lambda name: " asked " in name,
    "names": lambda name: "name" in name,
    "the subject": lambda name: "subject" in name,
    "numbers": lambda name: "number" in name,
    "the sort of answer": lambda name: "answer" in name,
    "what the query has and the edit lacks": lambda name: name.startswith("query") and "answer" not in name,
    "the key's parts": lambda name: name.startswith("key"),
    "all but the key's parts": lambda name: not name.startswith("key"),
}


@dataclass(frozen=True)
class Measurement:
    """Some edits, what is asked of them, and the candidates of each question.

    Attributes:
        targets: the answer of each edit.
        rank: int64 `[pairs]`, how near a candidate is among those of its sentence, from 0.
    """

    pairs: Pairs
    targets: Sequence[str]
    rank: Tensor

    def surest(
        self, model: ScopeModel, hidden: Tensor, candidates: int = CANDIDATES
    ) -> tuple[Tensor, Tensor]:
        """The most probable candidate of each query.

        Args:
            model: the scope model.
            hidden: `[features]` bool, the features that the classifier does not see.
            candidates: how many candidates of each sentence count.

        Returns:
            The largest log-odds, `[queries]` float32, and that candidate's edit, `[queries]` int64.
        """
        logits = model.classify(self.pairs.examples.features * ~hidden)
        logits[self.rank >= candidates] = -torch.inf
        count = len(self.pairs.episode.asked)
        best = torch.full((count,), -torch.inf).scatter_reduce(0, self.pairs.query, logits, "amax")
        edit = torch.zeros(count, dtype=torch.long)
        top = logits == best[self.pairs.query]
        edit[self.pairs.query[top]] = self.pairs.edit[top]
        return best, edit

    def right(self, edit: Tensor) -> Tensor:
        """Whether the most probable edit has the answer that a query asks for.

        Args:
            edit: `[queries]` int64, the index of an edit.

        Returns:
            `[queries]` bool; False where a query asks for no edit.
        """
        asked = self.pairs.episode.asked
        ranks = [
            one.edit is not None and self.targets[one.edit] == self.targets[at]
            for one, at in zip(asked, edit.tolist(), strict=True)
        ]
        return torch.tensor(ranks)

    @property
    def asking(self) -> Tensor:
        """Which questions ask for an edit."""
        return torch.tensor([one.edit is not None for one in self.pairs.episode.asked])

    def figures(self, best: Tensor, edit: Tensor, threshold: float) -> tuple[float, float]:
        """The shares of queries that reach their edit, and that fire wrongly.

        Args:
            best: `[queries]`, log-odds of the most probable candidate.
            edit: `[queries]` int64, the index of its edit.
            threshold: the log-odds from which on it fires.

        Returns:
            Of the queries that ask for an edit, the share that reaches one with their answer; of the others,
            the share that fires.
        """
        fires, asking = best >= threshold, self.asking
        return float((fires & self.right(edit))[asking].float().mean()), float(fires[~asking].float().mean())


@dataclass(frozen=True)
class OwnRows:
    """What a project's own data show, and other questions made of them (`other_questions`)."""

    calibration_data: CalibrationData
    others: dict[str, list[str]]


def main() -> None:
    """Measure, and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--whole", action="store_true", help="leave no part of the scope model out")
    options = parser.parse_args()
    rows = rows_of(options.data)
    edits = rows[options.skip : options.skip + options.edits]
    learnt_from = rows[options.skip + options.edits :][: options.own]
    with tempfile.TemporaryDirectory() as folder:
        recipe, base = prepared(options, learnt_from, Path(folder))
        learnt = scope_learnt_with(base, recipe.key.layer, recipe.calibration.questions, SilentReporter())
        reader = reader_for(base, recipe.key.layer)
        own = _own_rows(recipe, edits, learnt, reader) if learnt_from else None
    episode = _episode(edits, options.locality)
    readings = _read(reader, episode, own)
    measured = _measured(learnt.model, episode, readings, [str(row["target"]) for row in edits])
    bounds = recipe.routing.max_false_fire.model_dump()
    for line in _report(measured, learnt, own, readings, bounds, recipe.seed, options):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _report(
    measured: Measurement,
    learnt: Learnt,
    own: OwnRows | None,
    readings: Readings,
    bounds: dict[str, float],
    seed: int,
    options: argparse.Namespace,
) -> Iterator[str]:
    names = _feature_names(learnt.model, readings, measured.pairs.episode)
    nothing = torch.zeros(len(names), dtype=torch.bool)
    everything = _model_without(learnt, nothing, bounds, seed)
    yield "| the classifier sees | reach | fires beside |"
    yield "| --- | --- | --- |"
    yield _row("everything", measured, *everything, nothing)
    for kind, is_hidden in () if options.whole else _LEFT_OUT.items():
        hidden = torch.tensor([is_hidden(name) for name in names])
        yield _row(f"not {kind}", measured, *_model_without(learnt, hidden, bounds, seed), hidden)
    if own is not None:
        yield from _by_what_it_learns(measured, learnt, own, readings, bounds, seed, everything, nothing)
        both = adapted(learnt, own.calibration_data, own.others, readings, seed)
        everything = both.model, threshold_within(Evidence(both.corpus, both.outcomes), bounds)
    yield ""
    yield "| candidates | the right edit among them | reach | fires beside |"
    yield "| --- | --- | --- | --- |"
    for count in _CANDIDATES:
        best, edit = measured.surest(everything[0], nothing, count)
        among = float(_among(measured, count).float().mean())
        reach, fires = measured.figures(best, edit, everything[1])
        yield f"| {count} | {among:.3f} | {reach:.3f} | {fires:.3f} |"
    best, edit = measured.surest(everything[0], nothing)
    yield from _frontier(measured, best, edit)
    yield from _failures(measured, best, edit, everything[1], options.texts)


def _by_what_it_learns(
    measured: Measurement,
    learnt: Learnt,
    own: OwnRows,
    readings: Readings,
    bounds: dict[str, float],
    seed: int,
    corpus: tuple[ScopeModel, float],
    nothing: Tensor,
) -> Iterator[str]:
    yield ""
    yield "| the classifier learns from | reach | fires beside |"
    yield "| --- | --- | --- |"
    yield _row("the corpus", measured, *corpus, nothing)
    blank = PairExamples(torch.empty((0, len(nothing))), torch.empty(0), torch.empty(0))
    empty = Half(blank, torch.empty(0, dtype=torch.long), ())
    for name, taught in (("own rows", replace(learnt, halves=(empty, empty))), ("both", learnt)):
        after = adapted(taught, own.calibration_data, own.others, readings, seed)
        threshold = threshold_within(Evidence(after.corpus, after.outcomes), bounds)
        yield _row(name, measured, after.model, threshold, nothing)


def _row(name: str, measured: Measurement, model: ScopeModel, threshold: float, hidden: Tensor) -> str:
    reach, fires = measured.figures(*measured.surest(model, hidden), threshold)
    return f"| {name} | {reach:.3f} | {fires:.3f} |"


def _model_without(
    learnt: Learnt, hidden: Tensor, bounds: dict[str, float], seed: int
) -> tuple[ScopeModel, float]:
    """A classifier that never saw some features, and its threshold, learnt as `learn` does."""
    taught = [replace(half.examples, features=half.examples.features * ~hidden) for half in learnt.halves]
    halves = [replace(half, examples=examples) for half, examples in zip(learnt.halves, taught, strict=True)]
    outcomes = [
        outcome
        for at in (0, 1)
        for outcome in halves[1 - at].outcomes(classified(learnt.model, taught[at], seed))
    ]
    model = classified(learnt.model, PairExamples.joined(taught), seed)
    return model, threshold_within(Evidence(outcomes), bounds)


def _among(measured: Measurement, candidates: int) -> Tensor:
    """Of the questions that ask for an edit, whether an edit with their answer is a candidate."""
    pairs, targets = measured.pairs, measured.targets
    reached = torch.zeros(len(pairs.episode.asked), dtype=torch.bool)
    for query, edit in zip(
        pairs.query[measured.rank < candidates].tolist(),
        pairs.edit[measured.rank < candidates].tolist(),
        strict=True,
    ):
        wanted = pairs.episode.asked[query].edit
        if wanted is not None and targets[wanted] == targets[edit]:
            reached[query] = True
    return reached[measured.asking]


def _frontier(measured: Measurement, best: Tensor, edit: Tensor) -> Iterator[str]:
    yield ""
    yield "| may fire beside | reach |"
    yield "| --- | --- |"
    false_best = best[~measured.asking].sort(descending=True).values
    for share in _FALSE_FIRES:
        allowed = int(share * len(false_best) + 1e-9)
        threshold = float(false_best[allowed].nextafter(torch.tensor(torch.inf)))
        yield f"| {share:.3f} | {measured.figures(best, edit, threshold)[0]:.3f} |"


def _failures(
    measured: Measurement, best: Tensor, edit: Tensor, threshold: float, texts: int
) -> Iterator[str]:
    episode = measured.pairs.episode
    right, asking = measured.right(edit), measured.asking
    among = torch.zeros(len(episode.asked), dtype=torch.bool)
    among[asking] = _among(measured, CANDIDATES)
    missed = asking & ~(right & (best >= threshold))
    reasons = {
        "the right edit is no candidate": missed & ~among,
        "another edit is surer": missed & among & ~right,
        "not sure enough": missed & among & right,
    }
    yield ""
    yield f"missed: {int(missed.sum())} of {int(asking.sum())}"
    for reason, some in reasons.items():
        yield f"- {reason}: {int(some.sum())}"
        for at in _evenly(some, texts):
            wanted = episode.edits[int(episode.asked[at].edit or 0)][0]
            sure = probability(float(best[at]))
            asked = episode.asked[at].text
            yield f"  - {asked!r} for {wanted!r} ({sure:.2f} of {probability(threshold):.2f})"
    fired = ~asking & (best >= threshold)
    yield f"fired beside: {int(fired.sum())} of {int((~asking).sum())}"
    for at in _evenly(fired, texts):
        by = episode.edits[int(edit[at])][0]
        yield f"  - {episode.asked[at].text!r} by {by!r} ({probability(float(best[at])):.2f})"


def _evenly(some: Tensor, most: int) -> list[int]:
    """An even sample of the indices that hold."""
    indices = some.nonzero().flatten().tolist()
    return indices[:: max(1, -(-len(indices) // most))] if most else []


def _episode(edits: Sequence[dict[str, Any]], locality: str) -> Episode:
    prompts = {row["prompt"].strip() for row in edits}
    asked = [
        EpisodeQuery("rephrase", text, at)
        for at, row in enumerate(edits)
        for text in row.get("rephrases", ())
    ]
    unrelated = dict.fromkeys(row["locality_prompt"] for row in edits if row.get("locality_prompt"))
    asked += [EpisodeQuery(locality, text) for text in unrelated if text.strip() not in prompts]
    return Episode([(row["prompt"].strip(), row.get("subject")) for row in edits], asked)


def _measured(model: ScopeModel, episode: Episode, readings: Readings, targets: Sequence[str]) -> Measurement:
    pairs = pairs_of(model, episode, readings, _MOST_CANDIDATES)
    rank = torch.arange(len(pairs.query)) % min(_MOST_CANDIDATES, len(episode.edits))
    return Measurement(pairs, targets, rank)


def _own_rows(recipe: Recipe, edits: Sequence[dict[str, Any]], learnt: Learnt, reader: Reader) -> OwnRows:
    assert recipe.dataset is not None
    calibration_data = collect_calibration_data(
        load_calibration(recipe.dataset, recipe.task, SilentReporter()),
        (),
        task=recipe.task,
        share=1.0,
        unrelated_share=0.0,
        most=recipe.calibration.max_edits,
        seed=recipe.seed,
        excluded=requests_of(edits),
    )
    asks = what_they_ask(calibration_data.calibration_edits, learnt.model, reader)
    return OwnRows(calibration_data, other_questions(calibration_data.calibration_edits, asks, recipe.seed))


def _read(reader: Reader, episode: Episode, own: OwnRows | None) -> Readings:
    texts = [view for asked in episode.asked for view in asked_views(asked.text)]
    texts += [prompt for prompt, _ in episode.edits]
    if own is not None:
        texts += texts_of(own.calibration_data, own.others)
    return Readings(reader.read(list(dict.fromkeys(texts))))


def _feature_names(model: ScopeModel, readings: Readings, episode: Episode) -> list[str]:
    side = model.side(model.records(readings.of([episode.edits[0][0]])))
    return match(side, side, model.sizes)[1]


if __name__ == "__main__":
    main()
