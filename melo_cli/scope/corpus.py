"""The corpus from which scope is learned: questions with rephrases, and unrelated prompts."""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SHIPPED_PACKAGE = "shipped_scope"
"""The folder of an installed melo_cli that holds `data/scope/corpus.jsonl`."""
_FILE = "corpus.jsonl"
_FEWEST_OF_A_KIND = 3
"""Least number of questions of each kind with which a sample has all kinds."""
_SUBJECTS = 4
"""Questions of each kind in a sample that has not all kinds."""


@dataclass(frozen=True)
class Question:
    """One question with its rephrases.

    Attributes:
        kind: what is asked; questions of one kind ask the same about different subjects.
        subject: what it is about.
        value: distinguishes questions of one kind about one subject: a day, a year.
        clean: ways to ask it, on its own. `plain` in the corpus file.
        noisy: ways to ask it within other text, in lower case, or with typos.
    """

    kind: str
    subject: str
    value: str | None
    clean: tuple[str, ...]
    noisy: tuple[str, ...]

    @property
    def type(self) -> str:
        """The type of its subject."""
        return self.kind.partition(".")[0]

    @property
    def asked(self) -> tuple[str, str | None]:
        """What it asks, about any subject."""
        return self.kind, self.value

    def texts(self) -> tuple[str, ...]:
        """All ways to ask it."""
        return self.clean + self.noisy


@dataclass(frozen=True)
class Corpus:
    """The corpus.

    Attributes:
        questions: the questions.
        unrelated: prompts that ask none of them.
        around: texts to put before or after a question, by their position.
    """

    questions: tuple[Question, ...]
    unrelated: tuple[str, ...]
    around: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def sample(self, questions: int, seed: int, *, clean: int = 4, noisy: int = 1) -> Corpus:
        """A smaller corpus with questions of all kinds, each with fewer rephrases.

        Subjects of a type are taken from the front, where similar subjects are neighbours. So the questions
        that are kept have hard prompts and same-subject prompts among them.

        Args:
            questions: approximate number of questions.
            seed: seed of the sample.
            clean: largest number of clean texts of a question.
            noisy: largest number of noisy texts of a question.
        """
        by_asked: dict[tuple[str, str | None], list[Question]] = defaultdict(list)
        for question in self.questions:
            by_asked[question.asked].append(question)
        each = round(questions / len(by_asked))
        drawn = random.Random(seed)
        kinds = list(by_asked.values())
        if each < _FEWEST_OF_A_KIND:  # too few to be mistaken for each other: rather fewer kinds
            types: dict[str, list[list[Question]]] = defaultdict(list)
            for some in kinds:
                types[some[0].type].append(some)
            # Whole types are kept, so that the other questions about their subjects are kept too.
            order = drawn.sample(sorted(types), len(types))
            kinds = [some for name in order for some in types[name]][: max(2, questions // _SUBJECTS)]
            each = _SUBJECTS
        kept = [
            Question(one.kind, one.subject, one.value, one.clean[:clean], one.noisy[:noisy])
            for some in kinds
            for one in some[:each]
        ]
        unrelated = drawn.sample(self.unrelated, min(len(self.unrelated), max(20, questions // 2)))
        return Corpus(tuple(kept), tuple(unrelated), self.around)


def corpus_digest() -> str:
    """Checksum of the corpus file, sha256."""
    return hashlib.sha256(_path().read_bytes()).hexdigest()


@cache
def load_corpus() -> Corpus:
    """The corpus that melo carries, read once."""
    path = _path()
    questions: list[Question] = []
    unrelated: list[str] = []
    around: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if "unrelated" in row:
                unrelated.append(row["unrelated"])
            elif "around" in row:
                around[row["around"]].append(row["text"])
            else:
                value = None if row["value"] is None else str(row["value"])
                clean, noisy = tuple(row["plain"]), tuple(row["noisy"])
                questions.append(Question(row["kind"], row["subject"], value, clean, noisy))
    return Corpus(tuple(questions), tuple(unrelated), {name: tuple(some) for name, some in around.items()})


def scope_folder() -> Path:
    """The folder with what scope is learned from: of the installed package, or of a checkout."""
    here = Path(__file__).resolve().parents[1]
    shipped = here / SHIPPED_PACKAGE
    return shipped if (shipped / _FILE).is_file() else here.parent / "data" / "scope"


def _path() -> Path:
    return scope_folder() / _FILE


def without_subject(question: Question) -> Sequence[str]:
    """The clean texts of a question without its subject."""
    return [text.replace(question.subject, " ") for text in question.clean]
