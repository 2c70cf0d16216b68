"""Other ways to put a question, carried over from one subject to another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from melo_cli.paraphrase.subject_swaps import Statement, around_subject, normalized, swap_subject

Frame = tuple[str, str]


class QuestionFrames:
    """Carries rephrases of a question about one subject over to every other subject.

    If `When was Vostok 1 launched?` is a rephrase of `What is the launch date of Vostok 1?`, the two frames
    ask the same about any subject. Two questions are the same if the words around their subjects are.

    Args:
        known: statements with rephrases that may be learned from.
    """

    def __init__(self, known: Iterable[Statement]) -> None:
        self._equivalent: dict[Frame, dict[Frame, tuple[str, str]]] = defaultdict(dict)
        for each in known:
            framed = {
                name: (text, str(each.subject))
                for text in (each.prompt, *each.rephrases)
                if (name := frame(text, each.subject)) is not None
            }
            for name in framed:
                self._equivalent[name].update(framed)

    def of(self, prompt: str, subject: str | None) -> list[str]:
        """Every known variant of the prompt; empty if the prompt does not name its subject."""
        own = frame(prompt, subject)
        if own is None:
            return []
        others = (phrasing for name, phrasing in self._equivalent.get(own, {}).items() if name != own)
        swapped = (swap_subject(text, theirs, str(subject)) for text, theirs in others)
        return [text for text in swapped if text is not None]


def frame(text: str, subject: str | None) -> Frame | None:
    """The normalized words before and after the subject; None if the text does not mention it."""
    before, named, after = around_subject(text, subject)
    return (normalized(before), normalized(after).rstrip("?.! ")) if named else None
