"""Learns a scope model from the corpus and what a base model, or a sentence encoder, reads in it.

1. Word states are projected onto their leading directions.
2. Two pooled vectors are projected so that prompts which ask the same are near (InfoNCE, arXiv 1807.03748).
3. Edits are simulated: some questions are stored, others asked, and the candidates of each become pairs for a
   small classifier on the features of `core.features`. The pairs of one half of the kinds are made with
   projections learnt on the other half: what the classifier sees is what a question new to the model looks
   like.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from melo_cli.scope.core.features import Side, match
from melo_cli.scope.core.model import PcaProjection, Scales, ScopeModel, pooled
from melo_cli.scope.core.readings import Reading
from melo_cli.scope.core.rules import CANDIDATES
from melo_cli.scope.core.vocabulary import Vocabulary
from melo_cli.scope.core.words import asked_views
from melo_cli.scope.corpus import Corpus, Question, without_subject
from melo_cli.torch_threads import one_thread

_LOW_SIZE, _HIGH_SIZE = 32, 40
_SENTENCE_SIZE, _QUESTION_SIZE, _PRINCIPAL_SIZE = 128, 64, 64
_PCA_WORDS = 40_000
_FLATTEN = -0.25  # power of each direction's variance that it is scaled by: half way to white
_TEMPERATURE = 0.07
_KEY_STEPS = 300
_KEY_BATCH = 256
_KEY_DROPOUT = 0.2
_HIDDEN = (48, 24)
_EPOCHS = 16
_BATCH = 1024
_RATE = 3e-3
_FEATURE_DROPOUT = 0.1
_NATURAL_DRAWS = 4
_AT_ONCE = 4096
_SUBJECT_GIVEN = 0.6  # of the simulated edits; the others have no subject
_NEVER = -torch.inf


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


class Readings:
    """The readings of all texts of a calibration, by text."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._row = {text: row for row, text in enumerate(reading.texts)}

    def of(self, texts: Sequence[str]) -> Reading:
        """The reading of some of the texts, in order; a text may be repeated."""
        return self._reading.of([self._row[text] for text in texts])


def texts_to_read(corpus: Corpus) -> list[str]:
    """Every text of the corpus that is read for learning, without repetition."""
    whole = [text for question in corpus.questions for text in question.texts()]
    return list(dict.fromkeys(view for text in (*whole, *corpus.unrelated) for view in asked_views(text)))


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


@dataclass(frozen=True)
class Learnt:
    """A scope model learned from the corpus, with its training data.

    Attributes:
        model: the scope model.
        kinds: for each kind of question, the mean of what is asked, `[size]` float32; finds the kind of a
            prompt.
        halves: the data of its classifier; a project trains another classifier on these and its own data.
        outcomes: of simulated edits, one for each subject, about kinds of questions that the measured model
            did not learn.
    """

    model: ScopeModel
    kinds: dict[str, Tensor]
    halves: tuple[Half, Half]
    outcomes: Sequence[Outcome]

    @property
    def examples(self) -> PairExamples:
        """All examples that the classifier was trained on."""
        return PairExamples.joined([half.examples for half in self.halves])


def learn(corpus: Corpus, readings: Readings, seed: int) -> Learnt:
    """Learn a scope model from the corpus.

    Args:
        corpus: the corpus.
        readings: readings of its texts (`texts_to_read`).
        seed: seed of everything that is drawn.
    """
    drawn = random.Random(seed)
    bare = _projections(corpus, readings, torch.Generator().manual_seed(seed))
    kinds = sorted({question.kind for question in corpus.questions})
    drawn.shuffle(kinds)
    halves = [set(kinds[::2]), set(kinds[1::2])]
    tried: list[Half] = []
    for fitted_on, tried_on in ((0, 1), (1, 0)):
        fitted = _with_keys(bare, _of_kinds(corpus, halves[fitted_on]), readings, seed)
        part = Corpus(_of_kinds(corpus, halves[tried_on]), corpus.unrelated)
        natural = [pairs_of(fitted, _natural_episode(part, drawn), readings) for _ in range(_NATURAL_DRAWS)]
        tried.append(Half.of(pairs_of(fitted, _dense_episode(part, drawn), readings), natural))
    one, other = tried
    outcomes = [
        outcome
        for learnt_from, asked in ((one, other), (other, one))
        for outcome in asked.outcomes(classified(bare, learnt_from.examples, seed))
    ]
    model = _with_keys(bare, corpus.questions, readings, seed)
    whole = classified(model, PairExamples.joined([one.examples, other.examples]), seed)
    return Learnt(whole, _kind_vectors(model, corpus, readings), (one, other), outcomes)


def _kind_vectors(model: ScopeModel, corpus: Corpus, readings: Readings) -> dict[str, Tensor]:
    texts: dict[str, list[str]] = defaultdict(list)
    for question in corpus.questions:
        texts[question.kind] += question.clean
    return {
        kind: normalize(model.question_parts(model.keys(readings.of(some))).mean(0), dim=0)
        for kind, some in texts.items()
    }


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


def _projections(corpus: Corpus, readings: Readings, torch_random: torch.Generator) -> ScopeModel:
    """A scope model without key projections and classifier."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for question in corpus.questions:
        kinds[question.kind] += without_subject(question)
    vocabulary = Vocabulary.of([*kinds.values(), *([text] for text in corpus.unrelated)])
    reading = readings.of(texts_to_read(corpus))
    some = torch.randperm(len(reading.low), generator=torch_random)[:_PCA_WORDS]
    nothing = torch.empty(0)
    none = Scales(nothing, nothing)
    return ScopeModel(
        vocabulary,
        pca_projection(reading.low[some].float(), _LOW_SIZE),
        pca_projection(reading.high[some].float(), _HIGH_SIZE),
        none,
        nothing,
        none,
        nothing,
        nothing,
        none,
        (),
    )


def pca_projection(states: Tensor, size: int) -> PcaProjection:
    """The projection onto the `size` leading directions of states `[n, d]`, each partly scaled to equal
    variance."""
    mean = states.mean(0)
    centered = normalize(states - mean, dim=-1)
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
    kept = min(size, states.shape[1])
    leading = variances.flip(0)[:kept].clamp_min(1e-6)
    scaled = directions.flip(1)[:, :kept] * leading**_FLATTEN
    # For a narrower model the projection is padded with zeros, so that token vectors have one width.
    return PcaProjection(mean, torch.nn.functional.pad(scaled, (0, size - kept)))


def _with_keys(bare: ScopeModel, questions: Sequence[Question], readings: Readings, seed: int) -> ScopeModel:
    """The model with key projections learned from some questions."""
    texts = [(at, question, text) for at, question in enumerate(questions) for text in question.texts()]
    sentence, question = pooled(readings.of([text for *_, text in texts]), bare.vocabulary)
    sentence_scales, question_scales = Scales.of(sentence), Scales.of(question)
    asked = question_scales(question)
    return replace(
        bare,
        sentence_scales=sentence_scales,
        sentence=_contrastive(sentence_scales(sentence), [at for at, *_ in texts], _SENTENCE_SIZE, seed),
        question_scales=question_scales,
        principal=_principal_part(asked),
        question=_contrastive(asked, [one.kind for _, one, _ in texts], _QUESTION_SIZE, seed),
    )


def _principal_part(rows: Tensor) -> Tensor:
    """The leading directions `[3 d, _PRINCIPAL_SIZE]` of the last third of rows `[n, 3 d]`: the state that
    stands for the text."""
    third = rows.shape[1] // 3
    whole = rows[:, 2 * third :]
    directions = torch.linalg.eigh(whole.T @ whole / len(whole))[1].flip(1)[:, :_PRINCIPAL_SIZE]
    return torch.cat([rows.new_zeros(2 * third, directions.shape[1]), directions])


def _contrastive(rows: Tensor, groups: Sequence[int | str], size: int, seed: int) -> Tensor:
    """Learn a projection `[d, size]` under which rows `[n, d]` of one group are near each other (contrastive
    loss)."""
    members: dict[int | str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    several = [some for some in members.values() if len(some) > 1]
    drawn, torch_random = random.Random(seed), torch.Generator().manual_seed(seed)
    start = torch.randn(rows.shape[1], size, generator=torch_random) / rows.shape[1] ** 0.5
    projection = start.requires_grad_(True)
    optimizer = torch.optim.AdamW([projection], lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _KEY_STEPS)
    for _ in range(_KEY_STEPS if several else 0):
        picked = [drawn.sample(some, 2) for some in drawn.sample(several, min(_KEY_BATCH, len(several)))]
        pair = rows[torch.tensor(picked).T]
        pair = pair * (torch.rand(pair.shape, generator=torch_random) > _KEY_DROPOUT)
        one, other = normalize(pair @ projection, dim=-1)
        cosines, right = one @ other.T / _TEMPERATURE, torch.arange(len(picked))
        loss = cross_entropy(cosines, right) + cross_entropy(cosines.T, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    learnt: Tensor = projection.detach()
    return learnt


def classified(model: ScopeModel, examples: PairExamples, seed: int) -> ScopeModel:
    """The model with a classifier trained on pairs."""
    features, same, weight = examples.features, examples.same, examples.weight
    scales = Scales.of(features)
    rows = scales(features)
    torch_random = torch.Generator().manual_seed(seed)
    layers = _fresh_layers(rows.shape[1], torch_random)
    parameters = [part for layer in layers for part in layer]
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-2)
    steps = _EPOCHS * -(-len(rows) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    untrained = replace(model, feature_scales=Scales(torch.zeros(1), torch.ones(1)), layers=tuple(layers))
    # Steps of a fraction of a millisecond: several threads would mostly wait for each other, on a busy
    # machine for minutes.
    with one_thread():
        for _ in range(_EPOCHS):
            for batch in torch.randperm(len(rows), generator=torch_random).split(_BATCH):
                kept = torch.rand((len(batch), rows.shape[1]), generator=torch_random) > _FEATURE_DROPOUT
                logits = untrained.classify(rows[batch] * kept)
                losses = binary_cross_entropy_with_logits(logits, same[batch], reduction="none")
                optimizer.zero_grad()
                (losses * weight[batch]).mean().backward()
                optimizer.step()
                schedule.step()
    trained = tuple((matrix.detach(), bias.detach()) for matrix, bias in layers)
    return replace(model, feature_scales=scales, layers=trained)


def _fresh_layers(inputs: int, torch_random: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    sizes = (inputs, *_HIDDEN, 1)
    layers = []
    for fan_in, fan_out in pairwise(sizes):
        bound = fan_in**-0.5
        weight = (torch.rand((fan_in, fan_out), generator=torch_random) * 2 - 1) * bound
        bias = (torch.rand(fan_out, generator=torch_random) * 2 - 1) * bound
        layers.append((weight.requires_grad_(True), bias.requires_grad_(True)))
    return layers


def _of_kinds(corpus: Corpus, kinds: set[str]) -> tuple[Question, ...]:
    return tuple(question for question in corpus.questions if question.kind in kinds)


def _dense_episode(corpus: Corpus, drawn: random.Random) -> Episode:
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


def _natural_episode(corpus: Corpus, drawn: random.Random) -> Episode:
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
