"""The scope model: from the states of two prompts to the probability that both ask the same.

Each prompt is turned into a record once: a key, which finds candidates, and token vectors, which verify them.
The records of edits are stored. A query is compared with the records of its candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from .contrasts import REASONS, contrast, listed
from .features import FLAGS, REVISION, Side, match
from .readings import Reading, looked_at
from .statements import said_in
from .tasks import task_in
from .tuning import Tuning
from .vocabulary import Vocabulary
from .whether import asks_whether
from .words import (
    ANSWER_NAMES,
    ANSWER_SORTS,
    EXCEPT,
    SPELLING,
    SPELLING_PART,
    STATEMENT,
    TASK,
    WHETHER,
    answer_sorts,
    exceptions,
    folded,
    spelling,
    words_of,
)

_AT_ONCE = 4096  # pairs
_SOFTEN = 0.05  # least weight of a word, so that every prompt has a mean
_SHARES = (0.42, 0.08, 0.42, 0.08)
"""Share of each part in the squared length of a key. The parts: what is asked about which subject, what is
asked, the spelling of the words, and the text's own states. The first and third find the right edit; the
others verify."""
_RAREST = 4  # exponent of a word's rarity in its weight for the spelling part
_WHY = ANSWER_NAMES.index("why") + 1
_NEARLY_THE_SAME = {"who", "where"}  # `Where does Ada work?` and `Who employs Ada?`
_SAME_WORDS = 1e-3  # largest difference of two spellings of the same word, in half precision


@dataclass(frozen=True)
class Record:
    """The record of a prompt.

    Attributes:
        key: `[key_size]` float32, of unit length; candidates are found by L2 distance.
        tokens: `[words, width]` float16, the token vectors: one for each word (`features.Side.vectors`).
    """

    key: NDArray[np.float32]
    tokens: NDArray[np.float16]

    def has(self, mark: int) -> bool:
        """Whether a word has a mark: `words.EXCEPT`, or one of what is wanted instead of an answer."""
        return bool((self.tokens[:, -1] == mark).any())

    def begins_otherwise(self, edit: Record) -> bool:
        """Whether this query begins with who, when, where or why, and the edit with another of them."""
        pair = {ANSWER_NAMES[sort - 1] for sort in self._first_sort() + edit._first_sort()}
        return len(pair) > 1 and pair != _NEARLY_THE_SAME

    def _first_sort(self) -> list[int]:
        sort = int(self.tokens[0, -1])
        return [sort] if 0 < sort <= ANSWER_SORTS else []

    def contrasts_with(self, edit: Record) -> bool:
        """Whether a word of this query excludes one of an edit's prompt (`contrasts.contrast`)."""
        return contrast(self._listed(), edit._listed()) is not None

    def asks_why(self) -> bool:
        """Whether this query asks why, or what the reason is."""
        return _WHY in self.tokens[:, -1]

    def may_say_why(self) -> bool:
        """Whether the answer to this edit's prompt may be a reason (`contrasts.REASONS`)."""
        return _WHY in self.tokens[:, -1] or not REASONS.isdisjoint(self._listed())

    def _listed(self) -> list[str]:
        return listed(self.tokens[:, :SPELLING].astype(np.float32))


@dataclass(frozen=True)
class Scales:
    """Mean and standard deviation by column, float32 `[columns]`."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Scales:
        """The scales of rows `[n, columns]`."""
        return cls(rows.mean(0), rows.std(0) + 1e-3)

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.deviation


@dataclass(frozen=True)
class PcaProjection:
    """Projects word states `[words, d]` to their leading directions `[words, size]`, rows of unit length."""

    mean: Tensor
    directions: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        return normalize(normalize(states.float() - self.mean, dim=-1) @ self.directions, dim=-1)


@dataclass(frozen=True)
class ScopeModel:
    """The scope model of one base model or sentence encoder.

    Attributes:
        vocabulary: rarity of words.
        low: projection of word states at the lower layer.
        high: projection of word states at the higher layer.
        sentence_scales: scales of the first pooled vector.
        sentence: projection `[3 d, size]` of the first pooled vector; similar for prompts that ask the same
            about the same subject.
        question_scales: scales of the second pooled vector.
        question: projection `[3 d, size]` of the second pooled vector; similar for prompts that ask the same
            about any subject.
        principal: projection `[3 d, size]` of the second pooled vector onto its leading directions; not
            learned from questions. Stored under the name `plain`.
        feature_scales: scales of the features.
        layers: weights and biases of the classifier's layers, in order, with ReLU between them.
        revision: how prompts are compared, see `features.REVISION`.
        tuning: of the sentence encoder whose states these are.
    """

    vocabulary: Vocabulary
    low: PcaProjection
    high: PcaProjection
    sentence_scales: Scales
    sentence: Tensor
    question_scales: Scales
    question: Tensor
    principal: Tensor
    feature_scales: Scales
    layers: tuple[tuple[Tensor, Tensor], ...]
    revision: int = REVISION
    tuning: Tuning = field(default_factory=Tuning)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Columns of a token vector: spelling, lower and higher state; `FLAGS` follow."""
        return SPELLING, self.low.directions.shape[1], self.high.directions.shape[1]

    @property
    def key_size(self) -> int:
        """Size of a key."""
        return sum(self._parts)

    @property
    def _parts(self) -> tuple[int, ...]:
        return (
            int(self.sentence.shape[1]),
            int(self.question.shape[1]),
            SPELLING_PART,
            int(self.principal.shape[1]),
        )

    @torch.inference_mode()  # a quarter less time for so many small steps
    def records(self, reading: Reading, subjects: Sequence[str | None] | None = None) -> list[Record]:
        """The records of texts.

        Args:
            reading: what was read of the texts.
            subjects: the subject of each text, or None; without a subject, the names in the text are used.
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
            self._spelling_part(reading),
            asked @ self.principal,
        )
        scaled = (normalize(part, dim=-1) * share**0.5 for part, share in zip(parts, _SHARES, strict=True))
        return torch.cat(list(scaled), 1)

    def tokens(self, reading: Reading, subjects: Sequence[str | None] | None = None) -> Tensor:
        """The vectors of all words `[words, width]` float32, one text after the other."""
        return torch.cat(
            [
                self._spelled(reading, SPELLING),
                self.low(reading.low),
                self.high(reading.high),
                flags(reading, self.vocabulary, subjects or [None] * len(reading), self.revision),
            ],
            1,
        )

    def _spelling_part(self, reading: Reading) -> Tensor:
        """The spelling part of keys `[n, SPELLING_PART]`: the mean spelling of a text's words, weighted by
        rarity."""
        rarity = [self.vocabulary.rarity(word) for words in reading.words for word in words]
        weights = torch.tensor([each**_RAREST + _SOFTEN**2 for each in rarity])
        return _weighted_mean(self._spelled(reading, SPELLING_PART), weights, reading.starts)

    def _spelled(self, reading: Reading, size: int) -> Tensor:
        """The spelling vectors `[words, size]` of all words."""
        words = [folded(word) if self.revision > 1 else word for words in reading.words for word in words]
        return torch.tensor(np.stack([spelling(word, size) for word in words]))

    @torch.inference_mode()
    def logits(self, queries: Sequence[Record], edits: Sequence[Record]) -> NDArray[np.float64]:
        """Log-odds `[n]` that each query asks the same as the edit at the same index.

        They are infinite for the edit's own prompt, word for word.
        """
        logits = np.empty(len(queries))
        order = sorted(range(len(queries)), key=lambda at: len(queries[at].tokens) + len(edits[at].tokens))
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            query, edit = self.side([queries[at] for at in some]), self.side([edits[at] for at in some])
            features, _ = match(edit, query, self.sizes, self.revision)
            logits[some] = self.classify(features).double().numpy()
        same = [same_words(one.tokens, other.tokens) for one, other in zip(queries, edits, strict=True)]
        logits[same] = np.inf
        return logits

    def asks_another(self, query: Record, edit: Record) -> bool:
        """Whether a query asks something else than an edit by its words, however near the two are: for
        another answer than one it names, where the edit does not, with a word that excludes one of the
        edit's, or when instead of where; from revision 3 on, why something is so. Never before revision 2."""
        if self.revision < 2:
            return False
        return (
            (query.has(EXCEPT) and not edit.has(EXCEPT))
            or query.begins_otherwise(edit)
            or query.contrasts_with(edit)
            or (self.revision > 2 and query.asks_why() and not edit.may_say_why())
        )

    def classify(self, features: Tensor) -> Tensor:
        """Log-odds `[pairs]` of features `[pairs, features]`."""
        rows = self.feature_scales(features)
        for at, (weight, bias) in enumerate(self.layers):
            rows = torch.addmm(bias, rows if at == 0 else rows.relu(), weight)
        return rows.squeeze(1)

    def side(self, records: Sequence[Record]) -> Side:
        """Records as one side of pairs, padded to the longest record."""
        longest = max(len(record.tokens) for record in records)
        vectors = np.zeros((len(records), longest, records[0].tokens.shape[1]), np.float32)
        mask = np.zeros((len(records), longest), np.float32)
        for row, record in enumerate(records):
            vectors[row, : len(record.tokens)] = record.tokens
            mask[row, : len(record.tokens)] = 1
        keys = torch.tensor(np.stack([record.key for record in records]))
        return Side(torch.from_numpy(vectors), torch.from_numpy(mask), self.key_parts(keys))

    def question_parts(self, keys: Tensor) -> Tensor:
        """The part of keys that says what is asked, about any subject: `[n, size]`, of unit length."""
        return normalize(keys.split(self._parts, 1)[1], dim=-1)

    def key_parts(self, keys: Tensor) -> Tensor:
        """The parts of keys `[n, key_size]` as `[n, 4, largest]`, each of unit length and padded with
        zeros."""
        largest = max(self._parts)
        parts = keys.split(self._parts, 1)
        padded = [torch.nn.functional.pad(part, (0, largest - part.shape[1])) for part in parts]
        return normalize(torch.stack(padded, 1), dim=-1)

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Settings as JSON values, and float32 arrays by name; `from_arrays` reads them back."""
        arrays = {"sentence": self.sentence, "question": self.question, "plain": self.principal}
        for own in fields(self):
            part = getattr(self, own.name)
            if isinstance(part, Scales | PcaProjection):
                arrays |= {f"{own.name}.{each.name}": getattr(part, each.name) for each in fields(part)}
        arrays |= self.tuning.to_arrays()
        for at, (weight, bias) in enumerate(self.layers):
            arrays |= {f"layers.{at}.weight": weight, f"layers.{at}.bias": bias}
        settings = {
            "vocabulary": self.vocabulary.counts,
            "kinds": self.vocabulary.kinds,
            "revision": self.revision,
        }
        return settings, {name: array.detach().float().cpu().contiguous() for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, settings: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> ScopeModel:
        """The model that `to_arrays` wrote.

        Raises:
            KeyError: a setting or an array is missing.
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
            principal=arrays["plain"],
            feature_scales=Scales(arrays["feature_scales.mean"], arrays["feature_scales.deviation"]),
            layers=tuple(
                (arrays[f"layers.{at}.weight"], arrays[f"layers.{at}.bias"]) for at in range(layers)
            ),
            revision=settings.get("revision", 1),
            tuning=Tuning.from_arrays(arrays),
        )


def pooled(reading: Reading, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """The two pooled vectors of texts, each `[n, 3 d]` float32.

    The first says what is asked about which subject, the second what is asked. Each consists of the mean over
    words at the lower layer, the mean at the higher layer, and the state that stands for the text. In the
    first, rare words have more weight at the lower layer; in the second, names have almost no weight.
    """
    rarity = torch.tensor([vocabulary.rarity(word) for words in reading.words for word in words])
    name = torch.tensor([each for words in reading.words for each in vocabulary.name_like(words)]).float()
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


def flags(reading: Reading, vocabulary: Vocabulary, subjects: Sequence[str | None], revision: int) -> Tensor:
    """The `FLAGS` of all words `[words, FLAGS]` float32; marks from revision 2 on, all of them from 3."""
    rows: list[tuple[float, bool, bool, bool, int]] = []
    for text, words, subject in zip(reading.texts, reading.words, subjects, strict=True):
        names = vocabulary.name_like(words)
        about = {word.casefold() for word in words_of(subject)} if subject else set()
        of_subject = [word.casefold() in about for word in words]
        if not any(of_subject):
            of_subject = names
        sorts = _sorts_and_marks(text, words, revision)
        rows += [
            (vocabulary.rarity(word), any(letter.isdigit() for letter in word), name, own, sort)
            for word, name, own, sort in zip(words, names, of_subject, sorts, strict=True)
        ]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, FLAGS)


def same_words(one: NDArray[np.float16], other: NDArray[np.float16]) -> bool:
    """Whether the token vectors of two prompts stand for the same words in the same order, in any case
    and, from revision 2 on, with or without accents."""
    if one.shape != other.shape:
        return False
    difference = np.abs(one[:, :SPELLING].astype(np.float32) - other[:, :SPELLING])
    return bool(difference.max(initial=0.0) <= _SAME_WORDS)


def _sorts_and_marks(text: str, words: Sequence[str], revision: int) -> list[int]:
    """The sorts of answer of a text's words, from revision 2 on with marks in their places; a word of a long
    text that is not looked at has none."""
    sorts = answer_sorts(words)
    if revision < 2:
        return sorts
    marked = [EXCEPT if excepts else sort for sort, excepts in zip(sorts, exceptions(words), strict=True)]
    found = _instead(text, revision)
    if found is not None:
        mark, at = found
        begins = [begin for begin, _ in looked_at(text)]
        if at in begins:
            marked[begins.index(at)] = mark
    return marked


def _instead(text: str, revision: int) -> tuple[int, int] | None:
    """The mark of what a text wants instead of an answer, and where the marked word stands, in characters."""
    if (verb := asks_whether(text)) is not None:
        return WHETHER, verb
    if revision > 2 and (task := task_in(text)) is not None:
        return TASK, task.begin
    if revision > 2 and (verb := said_in(text)) is not None:
        return STATEMENT, verb
    return None


def _weighted_mean(states: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """The weighted mean `[n, d]` of each text's word states `[words, d]`; `weights` is `[words]`."""
    count = len(starts) - 1
    text = torch.repeat_interleave(torch.arange(count), starts.diff())
    total = states.new_zeros(count, states.shape[1]).index_add_(0, text, states * weights.unsqueeze(1))
    return total / states.new_zeros(count).index_add_(0, text, weights).clamp_min(1e-6).unsqueeze(1)
