"""Prompts made from other prompts: the same question about another subject, and the text around a subject.

An edit of one subject says nothing of another, however alike the two questions read: such prompts are the
hard negatives of calibration and evaluation.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

_LEADS = (
    *("", "", "", "", "Tell me: ", "Question: ", "Do you know this? ", "I would like to know: "),
    *("Please answer: ", "Can you say "),
)
_DROPPED = 0.2
# What two questions have in common, as a share of the shorter one, from which on they ask the same.
_ALIKE = 0.4
# Tries before an edit is left without a swap: others' prompts may take every result.
_TRIES = 20


class Statement(Protocol):
    """What a swap needs to know of an edit; `EditRequest` and the store's `EditRecord` fit."""

    @property
    def prompt(self) -> str: ...

    @property
    def rephrases(self) -> Sequence[str]: ...

    @property
    def subject(self) -> str | None: ...


class Questions:
    """Tells whether two edits ask the same of their subjects, by the words around these.

    A word counts by the square of its inverse document frequency: one that most questions have says nothing
    of what is asked.
    """

    def __init__(self, edits: Sequence[Statement]) -> None:
        counts = Counter(word for edit in edits for word in _question_words(edit))
        self._weights = {word: math.log(len(edits) / count) ** 2 for word, count in counts.items()}
        self._new = math.log(len(edits) + 1) ** 2
        self._known: dict[tuple[str, str | None], tuple[set[str], float]] = {}

    def alike(self, one: Statement, other: Statement) -> bool:
        """Whether the words that both questions have make up much of the shorter one."""
        (mine, my_weight), (theirs, their_weight) = self._words(one), self._words(other)
        least = min(my_weight, their_weight)
        if least == 0:  # nothing but words that every question has
            return mine == theirs
        return self._weight(mine & theirs) >= _ALIKE * least

    def _words(self, edit: Statement) -> tuple[set[str], float]:
        """The words around the subject and their weight; a long prompt is analysed once."""
        name = edit.prompt, edit.subject
        if name not in self._known:
            words = _question_words(edit)
            self._known[name] = words, self._weight(words)
        return self._known[name]

    def _weight(self, words: Iterable[str]) -> float:
        return sum(self._weights.get(word, self._new) for word in words)


def swap_subject(prompt: str, subject: str, other: str) -> str | None:
    """The prompt with every mention of `subject` (whole words, in any case) replaced by `other`.

    None where the prompt does not mention it.
    """
    swapped, mentions = _mention(subject).subn(lambda _: other.strip(), prompt)
    return swapped if mentions else None


def subject_swaps(edits: Sequence[Statement], *, seed: int) -> list[str | None]:
    """For each edit its question about another edit's subject, of which that edit asks something else.

    A result is never a prompt or rephrase of an edit (case and white space aside), and none comes twice.
    The same edits and seed give the same swaps.

    Returns:
        One entry an edit, in order; None where the edit has no subject, its prompt does not mention it, or
        no other subject gives a new prompt.
    """
    taken = {normalized(text) for edit in edits for text in (edit.prompt, *edit.rephrases)}
    about: dict[str, list[Statement]] = {}
    for edit in edits:
        if edit.subject and edit.subject.strip():
            about.setdefault(normalized(edit.subject), []).append(edit)
    questions = Questions(edits)
    drawn = random.Random(seed)
    swaps: list[str | None] = []
    for edit in edits:
        swap = _swap(edit, about, questions, taken, drawn)
        if swap is not None:
            taken.add(normalized(swap))
        swaps.append(swap)
    return swaps


def shares_frame(prompt: str, subject: str | None, other: str) -> bool:
    """Whether `other` has the words of `prompt` around the subject, and another text instead of it.

    `The official religion of Edwin of Northumbria is` and `The official religion of Paul is` do. A prompt
    that is nothing but its subject has no frame.
    """
    mention = _mention(subject).search(prompt) if subject and subject.strip() else None
    if mention is None:
        return False
    before, after = normalized(prompt[: mention.start()]), normalized(prompt[mention.end() :])
    framed = rf"{re.escape(before)}(?P<inside>.+){re.escape(after)}"
    inside = re.fullmatch(framed, normalized(other))
    if inside is None or not re.search(r"\w", before + after):
        return False
    whole_words = re.fullmatch(rf".*(?<!\w){re.escape(inside['inside'].strip())}(?!\w).*", normalized(other))
    return whole_words is not None and normalized(inside["inside"]) != normalized(mention[0])


def is_hard_locality(edit: Statement, prompt: str, task: str) -> bool:
    """Whether a locality prompt of an edit is a hard negative, which reads like the edit.

    In task counterfact all are, since its rows give another subject of the same relation there; in other
    tasks those that have the edit's words around its subject.
    """
    return task == "counterfact" or shares_frame(edit.prompt, edit.subject, prompt)


def asks_of_same_subject(edit: Statement, prompt: str) -> bool:
    """Whether a locality prompt of an edit names its subject, and does not read like the edit itself.

    One that has the edit's words around a longer name is about another thing, as `Edwin the Elder` is.
    """
    named = bool(around_subject(prompt, edit.subject)[1])
    return named and not shares_frame(edit.prompt, edit.subject, prompt)


def made_rephrase(prompt: str, subject: str | None, drawn: random.Random) -> str:
    """A prompt in other words, without knowing its language.

    Words of the question are left out and moved, the subject is kept whole, a phrase may come in front.
    """
    before, named, after = around_subject(prompt, subject)
    words = [word for word in f"{before} {after}".split() if drawn.random() > _DROPPED]
    if drawn.random() < 0.5:
        drawn.shuffle(words)
    cut = drawn.choice((0, len(words), len(before.split())))
    asked = " ".join((*words[:cut], *named.split(), *words[cut:]))
    return f"{drawn.choice(_LEADS)}{asked or prompt}"


def around_subject(prompt: str, subject: str | None) -> tuple[str, str, str]:
    """What stands before the subject, the subject as it is written, and what stands behind it.

    All of it stands before, where the prompt does not mention a subject.
    """
    mention = _mention(subject).search(prompt) if subject and subject.strip() else None
    if mention is None:
        return prompt, "", ""
    return prompt[: mention.start()], mention[0], prompt[mention.end() :]


def _question_words(edit: Statement) -> set[str]:
    before, _, after = around_subject(edit.prompt, edit.subject)
    return set(re.findall(r"\w+", f"{before} {after}".casefold()))


def normalized(text: str) -> str:
    """A text without regard to case and white space, for comparing."""
    return " ".join(text.casefold().split())


def _swap(
    edit: Statement,
    about: Mapping[str, Sequence[Statement]],
    questions: Questions,
    taken: Collection[str],
    drawn: random.Random,
) -> str | None:
    if not edit.subject or not edit.subject.strip():
        return None
    for others in drawn.sample(list(about.values()), min(_TRIES, len(about))):
        if normalized(str(others[0].subject)) == normalized(edit.subject):
            continue
        if any(questions.alike(edit, other) for other in others):
            continue  # this would be a rephrase of that edit
        swapped = swap_subject(edit.prompt, edit.subject, str(others[0].subject))
        if swapped is None:
            return None
        if normalized(swapped) not in taken:
            return swapped
    return None


def _mention(subject: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in subject.split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
