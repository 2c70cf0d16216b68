"""Makes paraphrases of an edit's prompt: a block that is trained on one phrasing alone answers rephrases
worse.

What a block learns too much does no harm: it answers only prompts that are routed to it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from melo_cli.paraphrase.subject_swaps import made_rephrase, swap_subject
from melo_cli.scope.corpus import Corpus, Question

_ALIKE = 0.4
"""Cosine from which on a kind of the corpus asks what a prompt asks, or nearly so."""


class Paraphraser:
    """Puts a question as the corpus puts the questions nearest to it, and with text around it.

    Args:
        kinds: for each kind of the corpus what is asked, a unit vector `[size]`; without any, nothing is
            carried over from the corpus.
    """

    def __init__(self, corpus: Corpus, kinds: Mapping[str, NDArray[np.float32]]) -> None:
        self._names = list(kinds)
        self._vectors = np.stack(list(kinds.values())) if kinds else None
        self._around = corpus.around
        self._questions: dict[str, list[Question]] = defaultdict(list)
        for question in corpus.questions:
            if question.value is None:
                self._questions[question.kind].append(question)

    def paraphrases(
        self,
        prompt: str,
        subject: str | None,
        asked: NDArray[np.float32] | None,
        count: int,
        drawn: random.Random,
    ) -> list[str]:
        """So many other ways to put a prompt.

        Args:
            asked: what the prompt asks, a unit vector `[size]`, to compare with the kinds.
        """
        carried = self._carried_over(prompt, subject, asked)
        texts = [prompt]
        for at in range(count):
            if carried and at % 2 == 0:
                text = carried.pop(drawn.randrange(len(carried)))
            elif at % 4 == 1 or not self._around:
                text = made_rephrase(prompt, subject, drawn)
            else:
                text = self._surrounded(drawn.choice(texts), drawn)
            texts.append(text)
        return texts[1:]

    def questions_about(
        self, subject: str | None, asked: NDArray[np.float32] | None, kinds: int
    ) -> list[str]:
        """Questions of the corpus about a subject, of the kinds nearest to what is asked: the nearest first.

        None without a subject, and under the rule `radius`.
        """
        if asked is None or self._vectors is None or not subject:
            return []
        nearest = np.argsort(-(self._vectors @ asked), kind="stable")[:kinds]
        texts = []
        for kind in nearest:
            for question in self._questions[self._names[kind]][:1]:
                ways = (swap_subject(text, question.subject, subject) for text in question.clean)
                texts += [way for way in ways if way is not None][:2]
        return list(dict.fromkeys(texts))

    def _carried_over(self, prompt: str, subject: str | None, asked: NDArray[np.float32] | None) -> list[str]:
        """The ways in which the corpus asks what is nearest to the prompt, about the prompt's subject."""
        if asked is None or self._vectors is None or not subject or not subject.strip():
            return []
        if swap_subject(prompt, subject, subject) is None:
            return []
        likeness = self._vectors @ asked
        nearest = int(likeness.argmax())
        if likeness[nearest] < _ALIKE:
            return []
        ways = (
            swap_subject(text, question.subject, subject)
            for question in self._questions[self._names[nearest]]
            for text in question.clean
        )
        return list(dict.fromkeys(way for way in ways if way is not None))

    def _surrounded(self, text: str, drawn: random.Random) -> str:
        """A question as it stands in a longer message, or in lower case."""
        where = drawn.choice(("greetings", "lead_ins", "before", "after", "lower case"))
        if where == "lower case":
            return text.rstrip("?.").lower()
        beside = drawn.choice(self._around[where])
        return f"{text} {beside}" if where == "after" else f"{beside} {text}"


def kinds_of(
    settings: Mapping[str, object], arrays: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """The kinds that a project's key map holds; none under the rule `radius`."""
    names = settings.get("kinds")
    if not isinstance(names, Sequence) or "kinds" not in arrays:
        return {}
    return {str(name): vector for name, vector in zip(names, arrays["kinds"], strict=True)}
