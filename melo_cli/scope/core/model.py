"""The scope model: from what a model reads in two prompts to the probability that they ask the same.

A prompt becomes a record once: a key, which finds candidates, and a vector for each of its words, which
verifies them. Records of edits are stored; a query is compared with those of its candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from .features import FLAGS, Side, match
from .readings import Reading
from .vocabulary import Vocabulary
from .words import SPELLING, WORDING, answer_sorts, spelling, words_of

_AT_ONCE = 4096  # pairs
_SOFTEN = 0.05  # no word weighs nothing, so that every prompt has a mean
_SHARES = (0.42, 0.08, 0.42, 0.08)
"""Of the squared length of a key, what each part has: what is asked of whom, what is asked, the wording, and
the text's own states. The first and the third find the right edit; the others are for verifying."""
_RAREST = 4  # the power of a word's rarity by which it counts in the wording
_SAME_WORDS = 1e-3  # of a spelling in half precision, which is computed alike each time


@dataclass(frozen=True)
class Record:
    """A prompt as the router knows it.

    Attributes:
        key: `[key_size]` float32, of unit length; L2 distance finds candidates.
        tokens: `[words, width]` float16, a vector a word (`features.Side.vectors`).
    """

    key: NDArray[np.float32]
    tokens: NDArray[np.float16]


@dataclass(frozen=True)
class Scales:
    """Mean and standard deviation by column, float32 `[columns]`."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Scales:
        """Those of rows `[n, columns]`."""
        return cls(rows.mean(0), rows.std(0) + 1e-3)

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.deviation


@dataclass(frozen=True)
class PcaProjection:
    """Word states `[words, d]` to their leading directions `[words, size]`, each row of unit length."""

    mean: Tensor
    directions: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        return normalize(normalize(states.float() - self.mean, dim=-1) @ self.directions, dim=-1)


@dataclass(frozen=True)
class ScopeModel:
    """What was learnt of one base model, or sentence encoder.

    Attributes:
        low, high: projections of word states at the two layers.
        sentence, question: projections `[3 d, size]` of the two pooled vectors, with their scales: alike for
            prompts that ask the same of the same, and for prompts that ask the same of anybody.
        plain: projection of the second pooled vector that keeps most of it, learnt of no question.
        feature_scales: those of the features.
        layers: weights and biases of the classifier's layers, in order; ReLU stands between them.
    """

    vocabulary: Vocabulary
    low: PcaProjection
    high: PcaProjection
    sentence_scales: Scales
    sentence: Tensor
    question_scales: Scales
    question: Tensor
    plain: Tensor
    feature_scales: Scales
    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Columns of a token vector: spelling, lower and higher state; `FLAGS` follow."""
        return SPELLING, self.low.directions.shape[1], self.high.directions.shape[1]

    @property
    def key_size(self) -> int:
        """Numbers in a key."""
        return sum(self._parts)

    @property
    def _parts(self) -> tuple[int, ...]:
        return int(self.sentence.shape[1]), int(self.question.shape[1]), WORDING, int(self.plain.shape[1])

    def records(self, reading: Reading, subjects: Sequence[str | None] | None = None) -> list[Record]:
        """The records of texts that were read.

        Args:
            subjects: what each text is about, where that is known; without it, its names stand for that.
        """
        if not len(reading):
            return []
        keys = self.keys(reading).numpy()
        tokens = self.tokens(reading, subjects).half().numpy()
        starts = reading.starts.tolist()
        return [
            Record(key, tokens[start:stop])
            for key, start, stop in zip(keys, starts[:-1], starts[1:], strict=True)
        ]

    def keys(self, reading: Reading) -> Tensor:
        """Keys `[n, key_size]` float32; see `Record`."""
        sentence, question = pooled(reading, self.vocabulary)
        asked = self.question_scales(question)
        parts = (
            self.sentence_scales(sentence) @ self.sentence,
            asked @ self.question,
            wording(reading, self.vocabulary),
            asked @ self.plain,
        )
        scaled = (normalize(part, dim=-1) * share**0.5 for part, share in zip(parts, _SHARES, strict=True))
        return torch.cat(list(scaled), 1)

    def tokens(self, reading: Reading, subjects: Sequence[str | None] | None = None) -> Tensor:
        """The vectors of all words `[words, width]` float32, one text after the other."""
        return torch.cat(
            [
                torch.tensor(np.stack([spelling(word) for words in reading.words for word in words])),
                self.low(reading.low),
                self.high(reading.high),
                flags(reading, self.vocabulary, subjects or [None] * len(reading)),
            ],
            1,
        )

    def logits(self, queries: Sequence[Record], edits: Sequence[Record]) -> NDArray[np.float64]:
        """Log-odds `[n]` that each query asks what the edit beside it asks; infinite where it is the edit's
        own prompt, word for word."""
        found = np.empty(len(queries))
        order = sorted(range(len(queries)), key=lambda at: len(queries[at].tokens) + len(edits[at].tokens))
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            query, edit = self.side([queries[at] for at in some]), self.side([edits[at] for at in some])
            features, _ = match(edit, query, self.sizes)
            found[some] = self.classify(features).double().numpy()
        same = [same_words(one.tokens, other.tokens) for one, other in zip(queries, edits, strict=True)]
        found[same] = np.inf
        return found

    def classify(self, features: Tensor) -> Tensor:
        """Log-odds `[pairs]` of features `[pairs, features]`."""
        rows = self.feature_scales(features)
        for at, (weight, bias) in enumerate(self.layers):
            rows = torch.addmm(bias, rows if at == 0 else rows.relu(), weight)
        return rows.squeeze(1)

    def side(self, records: Sequence[Record]) -> Side:
        """Records as one side of pairs, padded to the longest."""
        longest = max(len(record.tokens) for record in records)
        vectors = np.zeros((len(records), longest, records[0].tokens.shape[1]), np.float32)
        mask = np.zeros((len(records), longest), np.float32)
        for row, record in enumerate(records):
            vectors[row, : len(record.tokens)] = record.tokens
            mask[row, : len(record.tokens)] = 1
        keys = torch.tensor(np.stack([record.key for record in records]))
        return Side(torch.from_numpy(vectors), torch.from_numpy(mask), self.key_parts(keys))

    def question_parts(self, keys: Tensor) -> Tensor:
        """The part of keys that says what is asked, of anybody: `[n, size]`, each of unit length."""
        return normalize(keys.split(self._parts, 1)[1], dim=-1)

    def key_parts(self, keys: Tensor) -> Tensor:
        """Keys `[n, key_size]` as their parts `[n, 4, largest]`, each of unit length, zeros behind it."""
        largest = max(self._parts)
        parts = keys.split(self._parts, 1)
        padded = [torch.nn.functional.pad(part, (0, largest - part.shape[1])) for part in parts]
        return normalize(torch.stack(padded, 1), dim=-1)

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Settings as JSON values, and float32 arrays by name; `from_arrays` reads them back."""
        arrays = {name: getattr(self, name) for name in ("sentence", "question", "plain")}
        for field in fields(self):
            part = getattr(self, field.name)
            if isinstance(part, Scales | PcaProjection):
                arrays |= {f"{field.name}.{each.name}": getattr(part, each.name) for each in fields(part)}
        for at, (weight, bias) in enumerate(self.layers):
            arrays |= {f"layers.{at}.weight": weight, f"layers.{at}.bias": bias}
        settings = {"vocabulary": self.vocabulary.counts, "kinds": self.vocabulary.kinds}
        return settings, {name: array.detach().float().cpu().contiguous() for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, settings: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> ScopeModel:
        """What `to_arrays` gave.

        Raises:
            KeyError: something is missing.
        """
        layers = sum(name.endswith(".weight") for name in arrays)
        return cls(
            Vocabulary(settings["vocabulary"], settings["kinds"]),
            low=PcaProjection(arrays["low.mean"], arrays["low.directions"]),
            high=PcaProjection(arrays["high.mean"], arrays["high.directions"]),
            sentence_scales=Scales(arrays["sentence_scales.mean"], arrays["sentence_scales.deviation"]),
            sentence=arrays["sentence"],
            question_scales=Scales(arrays["question_scales.mean"], arrays["question_scales.deviation"]),
            question=arrays["question"],
            plain=arrays["plain"],
            feature_scales=Scales(arrays["feature_scales.mean"], arrays["feature_scales.deviation"]),
            layers=tuple(
                (arrays[f"layers.{at}.weight"], arrays[f"layers.{at}.bias"]) for at in range(layers)
            ),
        )


def wording(reading: Reading, vocabulary: Vocabulary) -> Tensor:
    """The words of texts, letters alone, as one vector each `[n, WORDING]`: the rarest count most."""
    vectors = torch.tensor(np.stack([spelling(word, WORDING) for words in reading.words for word in words]))
    rarity = [vocabulary.rarity(word) ** _RAREST + _SOFTEN**2 for words in reading.words for word in words]
    return _weighted_mean(vectors, torch.tensor(rarity), reading.starts)


def pooled(reading: Reading, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """The two pooled vectors `[n, 3 d]` float32 of texts: for what is asked of whom, and for what is asked.

    Each is made of the mean over words at the lower layer, the mean at the higher one, and the state that
    stands for the text. In the first, rare words weigh more at the lower layer; in the second, names hardly
    weigh at all.
    """
    rarity, _, name, _, _ = flags(reading, vocabulary, [None] * len(reading)).unbind(1)
    low, high, whole = reading.low.float(), reading.high.float(), reading.whole.float()
    asked = 1 - name + _SOFTEN
    sentence = [
        _weighted_mean(low, rarity + _SOFTEN, reading.starts),
        _weighted_mean(high, torch.ones_like(rarity), reading.starts),
        whole,
    ]
    question = [
        _weighted_mean(low, asked, reading.starts),
        _weighted_mean(high, asked, reading.starts),
        whole,
    ]
    return torch.cat(sentence, 1), torch.cat(question, 1)


def flags(reading: Reading, vocabulary: Vocabulary, subjects: Sequence[str | None]) -> Tensor:
    """The `FLAGS` of all words `[words, FLAGS]` float32."""
    rows: list[tuple[float, bool, bool, bool, int]] = []
    for words, subject in zip(reading.words, subjects, strict=True):
        names = vocabulary.name_like(words)
        about = {word.casefold() for word in words_of(subject)} if subject else set()
        of_subject = [word.casefold() in about for word in words]
        if not any(of_subject):
            of_subject = names
        rows += [
            (vocabulary.rarity(word), any(letter.isdigit() for letter in word), name, own, sort)
            for word, name, own, sort in zip(words, names, of_subject, answer_sorts(words), strict=True)
        ]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, FLAGS)


def same_words(one: NDArray[np.float16], other: NDArray[np.float16]) -> bool:
    """Whether two prompts' vectors are of the same words in the same order, letter case aside."""
    if one.shape != other.shape:
        return False
    apart = np.abs(one[:, :SPELLING].astype(np.float32) - other[:, :SPELLING])
    return bool(apart.max(initial=0.0) <= _SAME_WORDS)


def _weighted_mean(states: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """For each text the mean `[n, d]` of its words' states `[words, d]` by their weights `[words]`."""
    count = len(starts) - 1
    text = torch.repeat_interleave(torch.arange(count), starts.diff())
    total = states.new_zeros(count, states.shape[1]).index_add_(0, text, states * weights.unsqueeze(1))
    return total / states.new_zeros(count).index_add_(0, text, weights).clamp_min(1e-6).unsqueeze(1)
