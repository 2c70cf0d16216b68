"""The named suites: how each reads its data, and what it asks of an edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melo_cli.bench.questions import Question
from melo_cli.datasets import EditRequest, load_edits, load_locality, load_rows
from melo_cli.errors import DatasetError, MeloError
from melo_cli.recipe import DatasetSection
from melo_cli.reporter import Reporter
from melo_cli.suggest import did_you_mean

Fields = Mapping[str, Any]
QuestionsOf = Callable[[int, EditRequest, Fields], Iterator[Question]]


@dataclass(frozen=True)
class Suite:
    """A named set of questions.

    Attributes:
        name: as `melo bench` takes it.
        words: what its data are, as words.
        task: the recipe's task.
        template: whether a chat model is asked through its template: `auto`, or `none` where the prompts are
            unfinished statements that the model goes on with.
        questions: the questions of one edit, by its row, the edit and the fields of its row in the data.
    """

    name: str
    words: str
    questions: QuestionsOf
    task: str = "custom"
    template: str = "auto"


@dataclass(frozen=True)
class SuiteData:
    """A suite with its data read.

    Attributes:
        edits: the edits, in order; of a prompt that comes up twice the last one, which supersedes.
        fields: the fields of each edit's row.
        unrelated: the prompts of `dataset.locality`, with their answers.
    """

    suite: Suite
    edits: list[EditRequest]
    fields: list[Fields]
    unrelated: list[tuple[str, str | None]]

    def questions(self, asked: Sequence[int], unrelated: int = 0) -> Iterator[Question]:
        """All questions of the edits in the rows `asked`, then so many of those that belong to no edit."""
        for row in asked:
            edit = self.edits[row]
            yield Question("edit", edit.prompt, row, (edit.target, *edit.aliases))
            yield from self.suite.questions(row, edit, self.fields[row])
        for prompt, truth in self.unrelated[:unrelated]:
            yield Question("unrelated", prompt, None, _given(truth))


def find_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        MeloError: there is none.
    """
    if name not in SUITES:
        hint = did_you_mean(name, SUITES) or f"known are {', '.join(SUITES)}"
        raise MeloError(f"{name!r} is not a suite", where="melo bench", hint=hint)
    return SUITES[name]


def read_suite(suite: Suite, source: DatasetSection, reporter: Reporter) -> SuiteData:
    """Read the data of a suite.

    Raises:
        DatasetError: the data cannot be read, or hold several edits in a row.
    """
    edits = load_edits(source, suite.task, reporter)
    fields = [row.fields for row in load_rows(source)][: len(edits)]
    if len(fields) != len(edits):
        raise DatasetError("its rows are not one edit each", where=source.edits)
    newest = {edit.prompt: row for row, edit in enumerate(edits)}
    kept = sorted(newest.values())
    return SuiteData(
        suite,
        [edits[row] for row in kept],
        [fields[row] for row in kept],
        load_locality(source, suite.task, reporter),
    )


def _rows(row: int, edit: EditRequest, _fields: Fields) -> Iterator[Question]:
    """Rephrases and locality prompts, as the rows give them."""
    for text in edit.rephrases:
        yield Question("rephrase", text, row, (edit.target, *edit.aliases))
    for prompt, truth in edit.locality:
        yield Question("locality", prompt, row, _given(truth))


def _everyday(row: int, edit: EditRequest, fields: Fields) -> Iterator[Question]:
    """What ordinary users ask: `rephrases`, `same_subject` and `other_subject` of each row."""
    for text in edit.rephrases:
        yield Question("rephrase", text, row, (edit.target, *edit.aliases))
    for kind in ("same_subject", "other_subject"):
        for text in _texts(fields.get(kind)):
            yield Question(kind, text, row)


_PORTABILITY = {
    "Subject_Aliasing": "alias",
    "Reasoning": "reasoning",
    "Logical_Generalization": "logic",
}
_LOCALITY = {"Relation_Specificity": "same_subject", "Forgetfulness": "forgetting"}


def _knowedit(row: int, edit: EditRequest, fields: Fields) -> Iterator[Question]:
    """KnowEdit's portability and locality, by kind, as published (arXiv 2401.01286)."""
    for text in edit.rephrases:
        yield Question("rephrase", text, row, (edit.target, *edit.aliases))
    for field, kinds in (("portability", _PORTABILITY), ("locality", _LOCALITY)):
        given = fields.get(field) or {}
        for name, kind in kinds.items():
            for pair in given.get(name) or ():
                yield Question(kind, str(pair["prompt"]), row, tuple(_answers(pair["ground_truth"])))


def _answers(value: Any) -> Iterator[str]:
    """KnowEdit writes an answer as a text, a list of texts, or lists of aliases in a list."""
    if isinstance(value, list):
        for each in value:
            yield from _answers(each)
    elif str(value).strip():
        yield str(value)


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _given(truth: str | None) -> tuple[str, ...]:
    return (truth,) if truth is not None else ()


SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("locft-zsre", "zsRE as LocFT and CrispEdit cut it", _rows),
        Suite("locft-counterfact", "CounterFact as LocFT and CrispEdit cut it", _rows, template="none"),
        Suite("locft-wikibigedit", "WikiBigEdit as LocFT cuts it", _rows),
        Suite("knowedit", "KnowEdit's WikiData sets, with portability", _knowedit, template="none"),
        Suite("everyday", "what ordinary users edit and ask", _everyday),
        Suite("zsre", "zsRE, any cut", _rows, task="zsre"),
        Suite("hallucination", "sentences after a passage", _rows, task="hallucination", template="none"),
        Suite("scotus", "documents and their class", _rows, task="scotus", template="none"),
    )
}
