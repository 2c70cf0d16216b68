"""An evaluation split by what may stand in an edit's way: others of its subject, others that contradict it.

    melo eval --results RESULTS.parquet
    python benchmarks/split_results.py PROJECT RESULTS.parquet

Another edit contradicts an edit where it asks the same of the same subject in other words and wants another
answer. `melo_cli.paraphrase.subject_swaps.Questions` compares the words around the subject. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from melo_cli.evaluation.results import Result
from melo_cli.paraphrase.subject_swaps import Questions, normalized
from melo_cli.runtime.projects import open_store
from melo_store.records import EditView


def main() -> None:
    """Split, and print."""
    options = _options()
    edits = open_store(options.project).edits()
    live = [edit for edit in edits if edit.status in ("live", "already_right")]
    results = [Result(**row) for row in pq.read_table(options.results).to_pylist()]
    subject_of, contradicted = _company(live)
    groups: list[tuple[str, Callable[[str], bool]]] = [
        ("the only edit of its subject", lambda edit: subject_of[edit] == 1),
        ("two edits of its subject", lambda edit: subject_of[edit] == 2),
        ("three or more", lambda edit: subject_of[edit] > 2),
        ("no other edit contradicts it", lambda edit: edit not in contradicted),
        ("another edit contradicts it", lambda edit: edit in contradicted),
    ]
    columns = ("edits", "n", "edit success", "rephrases", "generality", "nearest edit right")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")  # noqa: T201
    for name, belongs in groups:
        edit_rows, rephrase_rows = (_of(results, kind, belongs) for kind in ("edit", "rephrase"))
        figures = (
            *(len(edit_rows), _share(row.edited_right for row in edit_rows)),
            *(len(rephrase_rows), _share(row.edited_right for row in rephrase_rows)),
            _share(row.nearest_right for row in rephrase_rows),
        )
        print(f"| {name} | {' | '.join(str(figure) for figure in figures)} |")  # noqa: T201
    superseded = sum(edit.status == "superseded" for edit in edits)
    print(f"\n{superseded} superseded by a later edit of the same prompt")  # noqa: T201


def _company(live: Sequence[EditView]) -> tuple[dict[str, int], set[str]]:
    """How many edits there are of each edit's subject, and the edits that another one contradicts."""
    about: dict[str, list[EditView]] = defaultdict(list)
    for edit in live:
        about[normalized(edit.record.subject or edit.prompt)].append(edit)
    questions = Questions([edit.record for edit in live])
    counts, contradicted = {}, set()
    for group in about.values():
        for edit in group:
            counts[edit.edit_id] = len(group)
            others = (other for other in group if normalized(other.target) != normalized(edit.target))
            if any(questions.alike(edit.record, other.record) for other in others):
                contradicted.add(edit.edit_id)
    return counts, contradicted


def _of(results: Sequence[Result], kind: str, belongs: Callable[[str], bool]) -> list[Result]:
    return [row for row in results if row.kind == kind and row.edit_id is not None and belongs(row.edit_id)]


def _share(right: Iterable[bool | None]) -> str:
    outcomes = [bool(each) for each in right]
    return f"{sum(outcomes) / len(outcomes):.3f}" if outcomes else ""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("results", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
