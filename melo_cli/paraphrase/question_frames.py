"""Other ways to put a question, carried over from one subject to another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from melo_cli.paraphrase.subject_swaps import Statement, around_subject, normalized, swap_subject
from melo_cli.scope.core.words import asked_views

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


class KnownQuestions:
    """Whether two edits ask the same of their subjects, by what the data put as rephrases of each other.

    A third edit that has the words of both, one of them in a rephrase, says so: `The mother tongue of {} is`
    and `{} is a native speaker of` are one question where some edit has both. Each sentence of a rephrase
    counts that names the subject.

    Args:
        edits: the edits that are compared.
    """

    def __init__(self, edits: Sequence[Statement]) -> None:
        self._frames = {(edit.prompt, edit.subject): _frames(edit) for edit in edits}
        with_each: dict[Frame, set[Frame]] = defaultdict(set)
        for together in self._frames.values():
            for name in together:
                with_each[name] |= together
        self._same = {
            name: frozenset().union(*(with_each[frame] for frame in together))
            for name, together in self._frames.items()
        }

    def same(self, one: Statement, other: Statement) -> bool:
        """Whether some edit has words of both; the two are among the edits that are known."""
        return not self._same[one.prompt, one.subject].isdisjoint(self._frames[other.prompt, other.subject])


def _frames(edit: Statement) -> set[Frame]:
    texts = (view for text in (edit.prompt, *edit.rephrases) for view in asked_views(text))
    named = (frame(text, edit.subject) for text in texts)
    return {each for each in named if each is not None and any(each)}


def frame(text: str, subject: str | None) -> Frame | None:
    """The normalized words before and after the subject; None if the text does not mention it."""
    before, named, after = around_subject(text, subject)
    return (normalized(before), normalized(after).rstrip("?.! ")) if named else None
