"""The questions of a suite: what each kind asks, and when an answer is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from melo_cli.bench.scoring import begins_with, contains_one, equals_one
from melo_cli.models.encoding import Message

Matches = Callable[[str, tuple[str, ...]], bool]


@dataclass(frozen=True)
class Question:
    """One question to ask of every method.

    Attributes:
        kind: one of `KINDS`.
        prompt: what the user says last; the route is taken from it.
        edit: row of the edit that it belongs to, among the suite's edits; None where it belongs to none.
        truths: the answers that count as right; none where only the base's own answer is known.
        unwanted: texts that a right answer does not contain.
        before: earlier turns of the conversation.
    """

    kind: str
    prompt: str
    edit: int | None
    truths: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    before: tuple[Message, ...] = ()

    def with_prompt(self, prompt: str) -> Question:
        """The same question in other words."""
        return replace(self, prompt=prompt)

    def right(self, answer: str) -> bool:
        """Whether an answer is right, as the kind of the question measures it."""
        return KINDS[self.kind].matches(answer, self.truths) and not (
            self.unwanted and contains_one(answer, self.unwanted)
        )


@dataclass(frozen=True)
class QuestionKind:
    """What the questions of one kind have in common.

    Attributes:
        column: its name at the head of a column.
        words: what is counted, as words.
        keeps: whether the answer must stay the base's; else it must be the edit's.
        matches: whether an answer is one of the truths.
        tokens: how many tokens an answer may have; None is the length of the truth and a few more, enough
            to see whether it ends there.
    """

    column: str
    words: str
    keeps: bool = False
    matches: Matches = equals_one
    tokens: int | None = None


_ANSWER = 32
"""Tokens in which an answer must come to its point."""

KINDS: Mapping[str, QuestionKind] = {
    "edit": QuestionKind("edits", "the edits' own questions, answered as asked for"),
    "rephrase": QuestionKind("rephrases", "the same questions in other words, answered as asked for"),
    "alias": QuestionKind(
        "aliases",
        "the subject under another name: the answer contains the target",
        matches=contains_one,
        tokens=_ANSWER,
    ),
    "reasoning": QuestionKind(
        "reasoning",
        "one step on from the edit: the answer contains what follows from it",
        matches=contains_one,
        tokens=_ANSWER,
    ),
    "logic": QuestionKind(
        "logic",
        "the edit turned round: the answer contains what follows from it",
        matches=contains_one,
        tokens=_ANSWER,
    ),
    "free_text": QuestionKind(
        "free text",
        "two sentences about the subject: they contain the target, and not the old answer where it is known",
        matches=contains_one,
        tokens=80,
    ),
    "after_talk": QuestionKind("after talk", "the edits' own questions after ten turns of other talk"),
    "yes": QuestionKind(
        "affirmed", "whether the target is the answer: begins with yes", matches=begins_with, tokens=4
    ),
    "no": QuestionKind(
        "denied", "whether another edit's target is the answer: begins with no", matches=begins_with, tokens=4
    ),
    "language": QuestionKind(
        "language",
        "the question in another language: the answer contains the target",
        matches=contains_one,
        tokens=_ANSWER,
    ),
    "locality": QuestionKind("locality", "the data's prompts that must stay, answered as before", keeps=True),
    "same_subject": QuestionKind(
        "same subject", "something else about an edit's subject, answered as before", keeps=True
    ),
    "other_subject": QuestionKind(
        "other subject", "an edit's question about another subject, answered as before", keeps=True
    ),
    "forgetting": QuestionKind(
        "forgetting", "what else is true of the edit's subject and relation, answered as before", keeps=True
    ),
    "unrelated": QuestionKind("unrelated", "unrelated prompts, answered as before", keeps=True),
}
"""All kinds, in the order of a table's columns."""
