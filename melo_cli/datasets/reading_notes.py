"""Counts oddities of a data set while it is read, and warns of them once at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from melo_cli.datasets.request import EditRequest
from melo_cli.datasets.rows import Row
from melo_cli.reporter import Reporter


@dataclass(slots=True)
class ReadingNotes:
    """Counts of oddities in one data set.

    Attributes:
        empty_answers: unrelated prompts whose true answer is empty.
        empty_rephrases: rephrases without text, dropped.
        same_rephrases: rephrases equal to their prompt, dropped since they would flatter generality.
        short_texts: texts too short to cut into a prompt and its continuation, left out.
        no_targets: rows of published files whose new answer is empty, left out as by their own loaders.
        longer_talks: conversations with questions before the last one.
        filled_in: prompts whose `{}` the subject has taken.
        braces: prompts with `{}` that were taken word for word.
        without_subject: those of them that have no subject.
        seen_fields: names of unknown fields that were looked at.
        misspelt: fields kept as metadata that look like a known one, with that one.
    """

    empty_answers: int = 0
    empty_rephrases: int = 0
    same_rephrases: int = 0
    short_texts: int = 0
    no_targets: int = 0
    longer_talks: int = 0
    filled_in: int = 0
    braces: int = 0
    without_subject: list[Row] = field(default_factory=list)
    seen_fields: set[str] = field(default_factory=set)
    misspelt: dict[str, str] = field(default_factory=dict)

    def rephrases(self, given: Sequence[str], prompt: str) -> tuple[str, ...]:
        """The rephrases that say something new."""
        texts = [text for text in given if text.strip()]
        kept = tuple(text for text in texts if text.strip() != prompt.strip())
        self.empty_rephrases += len(given) - len(texts)
        self.same_rephrases += len(texts) - len(kept)
        return kept

    def report(self, reporter: Reporter, name: str) -> None:
        """Write one warning for each kind of oddity."""
        for line in self._lines():
            reporter.warn(f"{name}: {line}")

    def _lines(self) -> list[str]:
        lines = []
        if self.empty_answers:
            lines.append(
                f"{_count(self.empty_answers, 'unrelated prompt')} with an empty answer; "
                "locality is measured by agreement with the base model alone"
            )
        if self.empty_rephrases or self.same_rephrases:
            lines.append(
                f"{_count(self.empty_rephrases + self.same_rephrases, 'rephrase')} dropped: "
                f"{self.empty_rephrases} empty, {self.same_rephrases} equal to the prompt"
            )
        if self.short_texts:
            lines.append(
                f"{_count(self.short_texts, 'text')} left out, because they are too short to cut in two"
            )
        if self.no_targets:
            lines.append(f"{_count(self.no_targets, 'row')} left out, because they have no new answer")
        if self.longer_talks:
            lines.append(
                f"{_count(self.longer_talks, 'conversation')} of several questions; "
                "the last one and its answer are the edit"
            )
        if self.braces:
            lines.append(
                f"{_count(self.braces, 'prompt')} with {{}} that was kept; to fill in {{}}, "
                "give the subject in a field of its own"
            )
        for written, known in self.misspelt.items():
            lines.append(f'the field "{written}" is kept as metadata; did you mean {known}?')
        return lines


def warn_of_repeats(edits: Sequence[EditRequest], reporter: Reporter, name: str) -> None:
    """Warn, in one line, of prompts that are edited more than once."""
    targets: dict[str, set[str]] = defaultdict(set)
    superseding = doubles = 0
    for edit in edits:
        known = targets[edit.prompt]
        doubles += edit.target in known
        superseding += bool(known) and edit.target not in known
        known.add(edit.target)
    if not superseding and not doubles:
        return
    parts = []
    if superseding:
        parts.append(
            f"{_count(superseding, 'edit')} for a prompt that an earlier row gives another target "
            "(the later edit supersedes)"
        )
    if doubles:
        parts.append(f"{_count(doubles, 'edit')} repeated word for word")
    reporter.warn(f"{name}: {', '.join(parts)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
