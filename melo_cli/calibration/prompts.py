"""The prompts that keys are learned from and measured on: pairs of one meaning, and what must not fire."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from melo_cli.calibration.material import Anchor, Material
from melo_cli.variants import Questions, made_rephrase, plain, swap_subject


@dataclass(frozen=True)
class Pair:
    """Two ways to ask one thing; `negatives` are prompts that must not lead to it.

    Attributes:
        prompt, rephrase: places in `PromptPool.texts`.
        group: what the pair is about.
        other_subject: the same question about others: places in `PromptPool.texts`, with their groups.
        other_question: other questions about the same subject.
    """

    prompt: int
    rephrase: int
    group: str
    other_subject: tuple[tuple[int, str], ...] = ()
    other_question: tuple[tuple[int, str], ...] = ()


@dataclass
class PromptPool:
    """Texts by place, each once."""

    texts: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, text: str) -> int:
        """The place of a text, new or old."""
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(text)
        return self._places[text]


class PairMaker:
    """Makes pairs from anchors: those of the data, the same about other subjects, and negatives.

    Args:
        pool: takes the texts.
        donors: anchors whose subjects and questions negatives are made with.
        stored: anchors that are neurons: what these ask is no negative, in whatever words.
    """

    def __init__(
        self,
        pool: PromptPool,
        donors: Sequence[Anchor],
        stored: Sequence[Anchor],
        *,
        seed: int,
    ) -> None:
        self._pool = pool
        self._asked: dict[str, list[Anchor]] = {}
        for anchor in stored:
            self._asked.setdefault(anchor.group, []).append(anchor)
        self._donors = [donor for donor in donors if _speaks_of(donor)]
        self._drawn = random.Random(seed)
        self._questions = Questions([*donors, *stored])

    def pairs(self, anchor: Anchor, *, swaps: int, negatives: int) -> list[Pair]:
        """The anchor's own pairs, and as many more about other subjects as `swaps` says."""
        own = self._rephrased(anchor)
        found = [self._pair(anchor, anchor.prompt, text, negatives) for text in own]
        if not _speaks_of(anchor):
            return found
        for donor in self._sample(anchor, swaps):
            subject = str(donor.subject)
            moved = Anchor(
                self._swap(anchor, anchor.prompt, subject), anchor.answer, (), subject, donor.group
            )
            text = self._swap(anchor, self._drawn.choice(own), subject)
            found.append(self._pair(moved, moved.prompt, text, negatives))
        return found

    def _pair(self, anchor: Anchor, prompt: str, rephrase: str, negatives: int) -> Pair:
        others = [(self._pool.place(text), "") for text in anchor.hard]
        questions: list[tuple[int, str]] = []
        if _speaks_of(anchor):
            for donor in self._other_subjects(anchor, negatives):
                source = self._drawn.choice((prompt, rephrase))
                swapped = self._swap(anchor, source, str(donor.subject))
                if plain(swapped) != plain(source):
                    others.append((self._pool.place(swapped), donor.group))
            for donor in self._other_questions(anchor, negatives):
                asked = self._swap(donor, donor.prompt, str(anchor.subject))
                questions.append((self._pool.place(asked), anchor.group))
        place = self._pool.place
        return Pair(place(prompt), place(rephrase), anchor.group, tuple(others), tuple(questions))

    def _rephrased(self, anchor: Anchor) -> list[str]:
        if anchor.rephrases:
            return list(anchor.rephrases)
        return [made_rephrase(anchor.prompt, anchor.subject, self._drawn) for _ in range(2)]

    def _sample(self, anchor: Anchor, count: int) -> list[Anchor]:
        others = [donor for donor in self._donors if donor.group != anchor.group]
        return self._drawn.sample(others, min(count, len(others)))

    def _other_questions(self, anchor: Anchor, count: int) -> list[Anchor]:
        """Donors that ask what is neither the anchor's question nor another one stored about its subject."""
        some = self._sample(anchor, 10 * count)
        alike = self._questions.alike
        free = [donor for donor in some if not alike(anchor, donor) and not self._asks(anchor.group, donor)]
        return free[:count]

    def _other_subjects(self, anchor: Anchor, count: int) -> list[Anchor]:
        """Donors about whose subject the anchor's question is not stored."""
        some = self._sample(anchor, 5 * count)
        return [donor for donor in some if not self._asks(donor.group, anchor)][:count]

    def _asks(self, group: str, question: Anchor) -> bool:
        return any(self._questions.alike(each, question) for each in self._asked.get(group, ()))

    def _swap(self, anchor: Anchor, text: str, subject: str) -> str:
        return swap_subject(text, str(anchor.subject), subject) or text


def folds(material: Material, count: int) -> list[list[Anchor]]:
    """The anchors in `count` parts; a group is never in two."""
    groups = list(dict.fromkeys(anchor.group for anchor in material.anchors))
    part = {group: at % count for at, group in enumerate(groups)}
    return [[anchor for anchor in material.anchors if part[anchor.group] == at] for at in range(count)]


def _speaks_of(anchor: Anchor) -> bool:
    """Whether the prompt mentions its subject, so that another can be put in its place."""
    return bool(anchor.subject) and swap_subject(anchor.prompt, str(anchor.subject), "") is not None
