"""Simulated edits: questions of the corpus that are stored, others that are asked of them, and each with its
candidates, as pairs that a classifier learns from and is measured on."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melo_cli.scope.core.features import Side, match
from melo_cli.scope.core.model import ScopeModel
from melo_cli.scope.core.readings import Reading
from melo_cli.scope.core.rules import CANDIDATES
from melo_cli.scope.core.words import asked_views
from melo_cli.scope.corpus import Corpus, Question

_AT_ONCE = 4096
_SUBJECT_GIVEN = 0.6  # of the simulated edits; the others have no subject
_NEVER = -torch.inf


class Readings:
    """The readings of all texts of a calibration, by text."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._row = {text: row for row, text in enumerate(reading.texts)}

    def of(self, texts: Sequence[str]) -> Reading:
        """The reading of some of the texts, in order; a text may be repeated."""
        return self._reading.of([self._row[text] for text in texts])


@dataclass(frozen=True)
class EpisodeQuery:
    """One prompt that is asked of simulated edits.

    Attributes:
        kind: `rephrase`, `noisy`, `same_subject`, `hard` or `unrelated`.
        text: the prompt.
        edit: index of the edit that it asks for; None if it asks for none.
    """

    kind: str
    text: str
    edit: int | None = None


@dataclass(frozen=True)
class Episode:
    """Simulated edits, and the queries that are asked of them.

    Attributes:
        edits: prompts, each with its subject or None.
        asked: the queries.
    """

    edits: Sequence[tuple[str, str | None]]
    asked: Sequence[EpisodeQuery]


@dataclass(frozen=True)
class PairExamples:
    """Pairs to train a classifier on, float32.

    Attributes:
        features: `[pairs, features]`.
        same: `[pairs]`, 1 if both prompts ask the same.
        weight: `[pairs]`, weight in the loss.
    """

    features: Tensor
    same: Tensor
    weight: Tensor

    @classmethod
    def joined(cls, some: Sequence[PairExamples]) -> PairExamples:
        """Concatenate several."""
        return cls(
            torch.cat([each.features for each in some]),
            torch.cat([each.same for each in some]),
            torch.cat([each.weight for each in some]),
        )


@dataclass(frozen=True)
class Pairs:
    """Every query of an episode, paired with each of its candidates.

    Attributes:
        episode: the episode.
        query: int64 `[pairs]`, index of the query in `episode.asked`.
        edit: int64 `[pairs]`, index of the candidate in `episode.edits`.
        examples: features of the pairs. A single sentence of a query that asks for the edit has the weight 0,
            since it may not contain the question.
    """

    episode: Episode
    query: Tensor
    edit: Tensor
    examples: PairExamples


@dataclass(frozen=True)
class Outcome:
    """The router's result for one query.

    Attributes:
        kind: kind of the query, see `EpisodeQuery`.
        text: the query.
        logit: largest log-odds of any candidate.
        right: whether that candidate is the right edit.
    """

    kind: str
    text: str
    logit: float
    right: bool


@dataclass(frozen=True)
class Half:
    """One half of the corpus's kinds of questions, for training, and for measuring a model of the other half.

    Attributes:
        examples: pairs of simulated edits and queries.
        query: int64 `[pairs]`, index in `asked` that a pair belongs to; -1 for pairs that are for training
            alone.
        asked: kind and text of the queries that are measured.
    """

    examples: PairExamples
    query: Tensor
    asked: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, dense: Pairs, natural: Sequence[Pairs]) -> Half:
        """Make a half from its episodes.

        Args:
            dense: pairs for training alone.
            natural: pairs for training and measuring.
        """
        asked: list[tuple[str, str]] = []
        queries = [torch.full_like(dense.query, -1)]
        for pairs in natural:
            queries.append(pairs.query + len(asked))
            asked += [(each.kind, each.text) for each in pairs.episode.asked]
        examples = PairExamples.joined([dense.examples, *(pairs.examples for pairs in natural)])
        return cls(examples, torch.cat(queries), asked)

    def outcomes(self, model: ScopeModel) -> list[Outcome]:
        """The outcome of each query: the candidate with the largest log-odds."""
        counted = self.query >= 0
        query, same = self.query[counted], self.examples.same[counted] > 0
        logits = model.classify(self.examples.features[counted])
        best, right = _surest(logits, query, same, len(self.asked))
        return [
            Outcome(kind, text, logit, hit)
            for (kind, text), logit, hit in zip(self.asked, best, right, strict=True)
        ]


def dense_episode(corpus: Corpus, drawn: random.Random) -> Episode:
    """An episode in which half of all questions are edits, so that every query has hard candidates of each
    kind."""
    questions = drawn.sample(corpus.questions, len(corpus.questions))
    half = len(questions) // 2
    edits: list[tuple[str, str | None]] = []
    asked: list[EpisodeQuery] = []
    for question in questions[:half]:
        _store(question, edits, asked, drawn)
    others = [EpisodeQuery("hard", drawn.choice(question.texts())) for question in questions[half:]]
    unrelated = [EpisodeQuery("unrelated", text) for text in corpus.unrelated]
    return Episode(edits, [*asked, *others, *unrelated])


def natural_episode(corpus: Corpus, drawn: random.Random) -> Episode:
    """An episode with one edit for each subject, as users make them; a quarter of the subjects have no
    edit."""
    types: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in corpus.questions:
        types[question.type][question.subject].append(question)
    edits: list[tuple[str, str | None]] = []
    asked: list[EpisodeQuery] = []
    for subjects in types.values():
        outside = set(drawn.sample(list(subjects), max(1, len(subjects) // 4)))
        stored = []
        for subject, questions in subjects.items():
            if subject in outside:
                continue
            chosen = drawn.choice(questions)
            stored.append(chosen.asked)
            _store(chosen, edits, asked, drawn)
            rest = [question for question in questions if question.asked != chosen.asked]
            for other in drawn.sample(rest, min(3, len(rest))):
                asked.append(EpisodeQuery("same_subject", drawn.choice(other.texts())))
        for subject in outside:
            for question in subjects[subject]:
                if question.asked in stored:
                    asked.append(EpisodeQuery("hard", drawn.choice(question.texts())))
    some = drawn.sample(corpus.unrelated, min(len(corpus.unrelated), 300))
    return Episode(edits, [*asked, *(EpisodeQuery("unrelated", text) for text in some)])


def _store(
    question: Question, edits: list[tuple[str, str | None]], asked: list[EpisodeQuery], drawn: random.Random
) -> None:
    prompt = drawn.choice(question.clean)
    index = len(edits)
    edits.append((prompt, question.subject if drawn.random() < _SUBJECT_GIVEN else None))
    asked += [EpisodeQuery("rephrase", text, index) for text in question.clean if text != prompt]
    asked += [EpisodeQuery("noisy", text, index) for text in question.noisy]


def pairs_of(model: ScopeModel, episode: Episode, readings: Readings, candidates: int = CANDIDATES) -> Pairs:
    """Find the candidates of every query of an episode, and compute the features of each pair.

    Args:
        model: gives keys and token vectors.
        episode: simulated edits and queries.
        readings: readings of all their texts.
        candidates: number of candidates for each view of a query.
    """
    views = [(at, view) for at, asked in enumerate(episode.asked) for view in asked_views(asked.text)]
    edits = readings.of([prompt for prompt, _ in episode.edits])
    asked = readings.of([view for _, view in views])
    edit_keys, asked_keys = model.keys(edits), model.keys(asked)
    nearest = (asked_keys @ edit_keys.T).topk(min(candidates, len(episode.edits)), 1).indices
    row = torch.arange(len(views)).repeat_interleave(nearest.shape[1])
    edit = nearest.reshape(-1)
    edit_side = _Stored(model, edits, [subject for _, subject in episode.edits], edit_keys)
    asked_side = _Stored(model, asked, None, asked_keys)
    features = torch.empty(0)
    order = (edit_side.counts[edit] + asked_side.counts[row]).argsort(stable=True)
    for some in order.split(_AT_ONCE):
        part, _ = match(edit_side.of(edit[some]), asked_side.of(row[some]), model.sizes)
        if not len(features):
            features = torch.empty((len(row), part.shape[1]))
        features[some] = part
    query = torch.tensor([at for at, _ in views])[row]
    wanted = torch.tensor([-1 if each.edit is None else each.edit for each in episode.asked])[query]
    same = (edit == wanted).float()
    whole = torch.tensor([view == episode.asked[at].text for at, view in views])[row]
    return Pairs(episode, query, edit, PairExamples(features, same, torch.where(whole, 1.0, 1.0 - same)))


class _Stored:
    """The records of a reading as tensors; `of` gives them as one side of pairs."""

    def __init__(
        self, model: ScopeModel, reading: Reading, subjects: Sequence[str | None] | None, keys: Tensor
    ) -> None:
        self._vectors = model.tokens(reading, subjects).half()
        self._starts = reading.starts
        self._parts = model.key_parts(keys)
        self.counts = reading.starts.diff()

    def of(self, rows: Tensor) -> Side:
        counts = self.counts[rows]
        column = torch.arange(int(counts.max()))
        mask = column < counts.unsqueeze(1)
        at = (self._starts[rows].unsqueeze(1) + column).clamp(max=len(self._vectors) - 1)
        vectors = self._vectors[at].float() * mask.unsqueeze(2)
        return Side(vectors, mask.float(), self._parts[rows])


def outcomes_of(model: ScopeModel, pairs: Pairs) -> list[Outcome]:
    """The outcome of each query of an episode: the candidate with the largest log-odds."""
    asked = pairs.episode.asked
    wanted = torch.tensor([-1 if each.edit is None else each.edit for each in asked])
    logits = model.classify(pairs.examples.features)
    best, right = _surest(logits, pairs.query, pairs.edit == wanted[pairs.query], len(asked))
    return [
        Outcome(each.kind, each.text, logit, hit) for each, logit, hit in zip(asked, best, right, strict=True)
    ]


def _surest(logits: Tensor, query: Tensor, same: Tensor, count: int) -> tuple[list[float], list[bool]]:
    """For each of `count` queries, the largest log-odds of its pairs, and whether that pair has the right
    edit."""
    best = torch.full((count,), _NEVER).scatter_reduce(0, query, logits, "amax")
    right = torch.zeros(count, dtype=torch.bool)
    right[query[(logits == best[query]) & same]] = True
    return best.tolist(), right.tolist()
