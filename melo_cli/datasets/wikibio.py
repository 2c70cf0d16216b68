"""potsawee/wiki_bio_gpt3_hallucination: biographies that GPT-3 made up, sentence by sentence.

The rows hold GPT-3's sentences, an annotation for each and the Wikipedia text, but not whom they are about;
that comes from a text file of names, one a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from melo_cli.datasets.files import require_file
from melo_cli.datasets.formats import RowFormat
from melo_cli.datasets.lines import read_lines
from melo_cli.datasets.reading_notes import ReadingNotes
from melo_cli.datasets.request import EditRequest
from melo_cli.datasets.rows import Row
from melo_cli.datasets.sentences import split_sentences
from melo_cli.errors import DatasetError

ACCURATE = "accurate"
INACCURATE = ("minor_inaccurate", "major_inaccurate")

HOW_TO_NAME = (
    "set dataset.concepts to a text file with one name a row, in the order of the rows: the title "
    "(input_text.context) of article wiki_bio_test_idx in the test split of wiki_bio; the GRACE code writes "
    "such a file as wiki_bio_concepts.txt"
)


class WikiBioRows(RowFormat):
    """Passages with `gpt3_sentences`, `annotation` and `wiki_bio_text`.

    The prompt of sentence j is "This is a Wikipedia passage about NAME." and GPT-3's sentences before j.
    An edit is a sentence annotated inaccurate; its target is the Wikipedia sentence at the same index, or
    the last one where Wikipedia has fewer. A sentence annotated accurate is accurate text.
    """

    name = "wikibio-hallucination"
    needs = ("gpt3_sentences", "annotation", "wiki_bio_text")
    tasks = frozenset({"hallucination", "custom"})

    def __init__(self, concepts: Path) -> None:
        self.concepts = concepts

    def edits(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[EditRequest]:
        """One edit for each inaccurate sentence."""
        for row, name in self._named(rows):
            truth = split_sentences(row.text("wiki_bio_text"))
            for i, (prompt, sentence, annotation) in enumerate(_passage(row, name)):
                if annotation in INACCURATE:
                    yield EditRequest(
                        prompt=prompt,
                        target=truth[min(i, len(truth) - 1)],
                        subject=name,
                        metadata={
                            "original": sentence,
                            "annotation": annotation,
                            "sentence": i,
                            **row.rest(frozenset(row.fields) - {"wiki_bio_test_idx"}),
                        },
                    )

    def accurate(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[tuple[str, str]]:
        """The accurate sentences with their prompts."""
        for row, name in self._named(rows):
            for prompt, sentence, annotation in _passage(row, name):
                if annotation == ACCURATE:
                    yield prompt, sentence

    def _named(self, rows: Iterable[Row]) -> Iterator[tuple[Row, str]]:
        names, passages = read_concepts(self.concepts), list(rows)
        if len(names) != len(passages):
            raise DatasetError(
                f"holds {len(names)} names for {len(passages)} passages",
                where=str(self.concepts),
                hint=HOW_TO_NAME,
            )
        yield from zip(passages, names, strict=True)


def read_concepts(path: Path) -> list[str]:
    """The names in a text file, one a line; brackets as WikiBio writes them (-lrb-, -rrb-) are left out.

    Raises:
        DatasetError: no such file, not UTF-8, or an empty line.
    """
    require_file(path)
    names = []
    for number, line in read_lines(path):
        name = line.strip().replace("-lrb- ", "").replace(" -rrb-", "")
        if not name:
            raise DatasetError(
                "the line is empty", where=f"{path}:{number}", hint="write one name on each line"
            )
        names.append(name)
    return names


def _passage(row: Row, name: str) -> Iterator[tuple[str, str, str]]:
    """Each sentence of GPT-3 with its prompt and its annotation."""
    sentences, annotations = row.texts("gpt3_sentences"), row.texts("annotation")
    if len(sentences) != len(annotations):
        raise row.error(f"has {len(sentences)} sentences and {len(annotations)} annotations")
    header = f"This is a Wikipedia passage about {name}."
    for i, (sentence, annotation) in enumerate(zip(sentences, annotations, strict=True)):
        if annotation not in (ACCURATE, *INACCURATE):
            known = ", ".join((ACCURATE, *INACCURATE))
            raise row.error(f'annotation[{i}] is "{annotation}"', f"it must be one of {known}")
        yield " ".join([header, *sentences[:i]]), sentence, annotation
