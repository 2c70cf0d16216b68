"""Prompts made from prompts: an edit in other words, and what reads like an edit and is none.

What an evaluation measures is never among them: a rephrase is known only where calibration has seen it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from melo_cli.paraphrase.question_frames import Wordings, frame
from melo_cli.paraphrase.subject_swaps import Questions, Statement, made_rephrase, normalized, swap_subject

# Of the prompts that read like an edit, so many ask something else of its subject.
_OTHER_QUESTION = 0.25
# Draws for each prompt that is wanted, before fewer have to do.
_TRIES = 4


def phrasings(prompt: str, subject: str | None, count: int, drawn: random.Random) -> list[str]:
    """Up to `count` distinct other ways to put a prompt, made without knowing its language."""
    made = (made_rephrase(prompt, subject, drawn) for _ in range(_TRIES * count))
    return _first(made, count, {normalized(prompt)})


class Lookalikes:
    """Makes prompts that read like an edit and are about something else.

    Its question, in any wording, of other subjects; other edits' questions of its subject; where an edit
    names no subject, its words crossed with those of another prompt.

    Args:
        edits: all that are made; none of their prompts is given out.
        names: other subjects to ask about.
        words: text to make up subjects from, beside those.
        wordings: other ways to put the questions.
    """

    def __init__(
        self,
        edits: Sequence[Statement],
        names: Sequence[str],
        words: Sequence[str],
        wordings: Wordings,
        drawn: random.Random,
    ) -> None:
        self._edits, self._wordings, self._drawn = edits, wordings, drawn
        self._questions = Questions(edits)
        self._about: dict[str, list[Statement]] = defaultdict(list)
        for edit in edits:
            if edit.subject and edit.subject.strip():
                self._about[normalized(edit.subject)].append(edit)
        own = [str(named[0].subject) for named in self._about.values()]
        self._subjects = list(dict.fromkeys([*own, *(name.strip() for name in names if name.strip())]))
        self._pieces = [*self._subjects, *(text for text in words if text.strip())]

    def of(self, edit: Statement, count: int, apart_from: Collection[str]) -> list[str]:
        """Up to `count` distinct prompts, none of them in `apart_from` (plain texts)."""
        made = (text for _ in range(_TRIES * count) if (text := self._one(edit)) is not None)
        return _first(made, count, apart_from)

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
            return None  # it would be another wording of that edit
        return swap_subject(self._worded(edit), str(edit.subject), other)

    def _other_question(self, edit: Statement) -> str | None:
        other = self._drawn.choice(self._edits)
        about = self._about[normalized(str(edit.subject))]
        if not other.subject or any(self._questions.alike(other, each) for each in about):
            return None
        return swap_subject(self._worded(other), other.subject, str(edit.subject))

    def _worded(self, edit: Statement) -> str:
        wordings = self._wordings.of(edit.prompt, edit.subject)
        made = made_rephrase(edit.prompt, edit.subject, self._drawn)
        return self._drawn.choice([edit.prompt, self._drawn.choice([*wordings, made]), made])

    def _subject(self) -> str:
        """One that there is, or one made up: the beginning of a name and the end of another."""
        if self._drawn.random() < 0.5:
            return self._drawn.choice(self._subjects)
        one, other = (self._drawn.choice(self._pieces).split() for _ in range(2))
        return " ".join([*one[: self._drawn.randint(1, 2)], *other[-self._drawn.randint(1, 2) :]])

    def _crossed(self, prompt: str) -> str:
        words, others = prompt.split(), self._drawn.choice(self._edits).prompt.split()
        return " ".join([*words[: len(words) // 2], *others[len(others) // 2 :]])


def _first(texts: Iterator[str], count: int, apart_from: Collection[str]) -> list[str]:
    """The first `count` distinct texts that are not in `apart_from`."""
    found: dict[str, str] = {}
    for text in texts:
        if len(found) == count:
            break
        if text.strip() and normalized(text) not in apart_from:
            found.setdefault(normalized(text), text)
    return list(found.values())
