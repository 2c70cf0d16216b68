"""Other ways to put a question, carried over from one subject to another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from melo_cli.paraphrase.subject_swaps import Statement, around_subject, normalized, swap_subject

Frame = tuple[str, str]


class Wordings:
    """Ways to put a question that are known of one subject, carried over to every other.

    `When was Vostok 1 launched?`, known as another wording of `What is the launch date of Vostok 1?`, asks
    the same of any subject. Questions are the same where the words around their subjects are.

    Args:
        known: statements with rephrases that may be learned from.
    """

    def __init__(self, known: Iterable[Statement]) -> None:
        self._alike: dict[Frame, dict[Frame, tuple[str, str]]] = defaultdict(dict)
        for each in known:
            framed = {
                name: (text, str(each.subject))
                for text in (each.prompt, *each.rephrases)
                if (name := frame(text, each.subject)) is not None
            }
            for name in framed:
                self._alike[name].update(framed)

    def of(self, prompt: str, subject: str | None) -> list[str]:
        """The prompt in every other wording that is known; none where it does not name its subject."""
        own = frame(prompt, subject)
        if own is None:
            return []
        others = (place for name, place in self._alike.get(own, {}).items() if name != own)
        moved = (swap_subject(text, theirs, str(subject)) for text, theirs in others)
        return [text for text in moved if text is not None]


def frame(text: str, subject: str | None) -> Frame | None:
    """The words before and behind the subject; None where it is not mentioned."""
    before, named, after = around_subject(text, subject)
    return (normalized(before), normalized(after).rstrip("?.! ")) if named else None
