"""Makes variants and hard prompts from the prompts of edits.

Prompts that an evaluation measures are never used: of rephrases, only those that calibration has seen.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from melo_cli.paraphrase.question_frames import QuestionFrames, frame
from melo_cli.paraphrase.subject_swaps import Questions, Statement, made_rephrase, normalized, swap_subject

# Share of the hard prompts that ask another question about the edit's subject.
_OTHER_QUESTION = 0.25
# Draws for each wanted prompt; after that, fewer prompts are returned.
_TRIES = 4


def phrasings(prompt: str, subject: str | None, count: int, drawn: random.Random) -> list[str]:
    """Up to `count` distinct variants of a prompt, made without knowledge of its language."""
    made = (made_rephrase(prompt, subject, drawn) for _ in range(_TRIES * count))
    return _first(made, count, {normalized(prompt)})


class HardPrompts:
    """Makes hard prompts: prompts that read like an edit and ask something else.

    These are the edit's question, in any variant, about other subjects, and other edits' questions about its
    subject. If an edit names no subject, its words are combined with those of another prompt.

    Args:
        edits: all edits; none of their prompts is returned.
        names: other subjects to ask about.
        words: text from which further subjects are made up.
        frames: other ways to put the questions.
        drawn: source of randomness.
    """

    def __init__(
        self,
        edits: Sequence[Statement],
        names: Sequence[str],
        words: Sequence[str],
        frames: QuestionFrames,
        drawn: random.Random,
    ) -> None:
        self._edits, self._frames, self._drawn = edits, frames, drawn
        self._questions = Questions(edits)
        self._about: dict[str, list[Statement]] = defaultdict(list)
        for edit in edits:
            if edit.subject and edit.subject.strip():
                self._about[normalized(edit.subject)].append(edit)
        own = [str(named[0].subject) for named in self._about.values()]
        self._subjects = list(dict.fromkeys([*own, *(name.strip() for name in names if name.strip())]))
        self._pieces = [*self._subjects, *(text for text in words if text.strip())]

    def of(self, edit: Statement, count: int, excluded: Collection[str]) -> list[str]:
        """Up to `count` distinct hard prompts, none of them in `excluded` (normalized texts)."""
        made = (text for _ in range(_TRIES * count) if (text := self._one(edit)) is not None)
        return _first(made, count, excluded)

    def _one(self, edit: Statement) -> str | None:
        if frame(edit.prompt, edit.subject) is None:
            return self._crossed(edit.prompt)
        if self._drawn.random() < _OTHER_QUESTION:
            return self._other_question(edit)
        return self._other_subject(edit)

    def _other_subject(self, edit: Statement) -> str | None:
        other = self._subject()
        if normalized(str(edit.subject)) in normalized(other):
            return None
        if any(self._questions.alike(edit, each) for each in self._about.get(normalized(other), ())):
            return None  # this would be a variant of that edit
        return swap_subject(self._rephrased(edit), str(edit.subject), other)

    def _other_question(self, edit: Statement) -> str | None:
        other = self._drawn.choice(self._edits)
        about = self._about[normalized(str(edit.subject))]
        if not other.subject or any(self._questions.alike(other, each) for each in about):
            return None
        return swap_subject(self._rephrased(other), other.subject, str(edit.subject))

    def _rephrased(self, edit: Statement) -> str:
        frames = self._frames.of(edit.prompt, edit.subject)
        made = made_rephrase(edit.prompt, edit.subject, self._drawn)
        return self._drawn.choice([edit.prompt, self._drawn.choice([*frames, made]), made])

    def _subject(self) -> str:
        """A known subject, or a made-up one: the beginning of one name and the end of another."""
        if self._drawn.random() < 0.5:
            return self._drawn.choice(self._subjects)
        one, other = (self._drawn.choice(self._pieces).split() for _ in range(2))
        return " ".join([*one[: self._drawn.randint(1, 2)], *other[-self._drawn.randint(1, 2) :]])

    def _crossed(self, prompt: str) -> str:
        words, others = prompt.split(), self._drawn.choice(self._edits).prompt.split()
        return " ".join([*words[: len(words) // 2], *others[len(others) // 2 :]])


def _first(texts: Iterator[str], count: int, excluded: Collection[str]) -> list[str]:
    """The first `count` distinct texts that are not in `excluded`."""
    distinct: dict[str, str] = {}
    for text in texts:
        if len(distinct) == count:
            break
        if text.strip() and normalized(text) not in excluded:
            distinct.setdefault(normalized(text), text)
    return list(distinct.values())
