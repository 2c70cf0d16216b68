"""Files as editors and spreadsheets save them: every separator, encoding and line ending reads the same."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melo_cli.datasets import EditRequest, load_edits
from melo_cli.recipe import DatasetSection
from melo_cli.reporter import SilentReporter

Edits = Callable[..., list[EditRequest]]
Fault = Callable[..., str]

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
signs = st.sampled_from("ab ,;|\t\"'{}é中😀\n")
others = st.characters(codec="utf-8", exclude_characters="\0\r")
texts = st.text(signs | others, min_size=1).filter(
    lambda text: text.strip() and not text.lstrip().startswith(("[", "{")) and "{}" not in text
)
rows_of_texts = st.lists(
    st.fixed_dictionaries({"prompt": texts, "target": texts, "subject": texts}), min_size=1, max_size=3
)


def as_csv(rows: list[dict[str, str]], separator: str, *, excel: bool) -> str:
    """The rows with an empty one before and behind each; `excel` names the separator first."""
    written = io.StringIO()
    writer = csv.writer(written, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(rows[0])
    for row in rows:
        written.write(f"\n{separator * 2}\n")
        writer.writerow(row[name] for name in rows[0])
    return (f"sep={separator}\n" if excel else "") + written.getvalue() + "\n"


def as_jsonl(rows: list[dict[str, str]]) -> str:
    return "\n" + "\n \n".join(json.dumps(row) for row in rows) + "\n\n"


@given(
    rows_of_texts,
    st.sampled_from(["json in jsonl", "json", "jsonl", "ndjson", ",", ";", "\t", "|"]),
    st.sampled_from(ENCODINGS),
    st.booleans(),
    st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=150)
def test_the_same_rows_in_any_file_are_the_same_edits(
    tmp_path: Path, rows: list[dict[str, str]], kind: str, encoding: str, windows: bool, excel: bool
) -> None:
    if "json" in kind:
        text = as_jsonl(rows) if kind in ("jsonl", "ndjson") else json.dumps(rows, indent=1)
        path = tmp_path / f"rows.{kind.split()[-1]}"
        if windows:
            text = text.replace("\n", "\r\n")
    else:
        # A line ending inside a cell is part of its text, so that only those of the file may change.
        kept = [{name: value.replace("\n", " ") for name, value in row.items()} for row in rows]
        rows = kept if windows else rows
        text = as_csv(rows, kind, excel=excel)
        path = tmp_path / ("rows.tsv" if kind == "\t" else "rows.csv")
        if windows:
            text = text.replace("\n", "\r\n")
    path.write_bytes(text.encode(encoding))
    edits = load_edits(DatasetSection(edits=str(path)), "custom", SilentReporter())
    assert edits == [EditRequest(row["prompt"], row["target"], subject=row["subject"]) for row in rows]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_read_from_the_header_alone(separator: str, tmp_path: Path, edits_of: Edits) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'prompt{separator} target{separator}\n"a, b; c | d\te"{separator}t{separator}\n')
    assert edits_of(str(path)) == [EditRequest("a, b; c | d\te", "t")]


def test_a_list_under_the_name_of_lines_is_read(tmp_path: Path, edits_of: Edits, fault_of: Fault) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n[{"prompt": "p", "target": "t"},\n {"prompt": "q",\n  "target": "u"}]\n')
    assert edits_of(str(path)) == [EditRequest("p", "t"), EditRequest("q", "u")]
    path.write_text('[{"prompt": "p", "target": "t"},\n {"prompt": "q"}]\n')
    assert f'{path}: item 2: lacks the field "target"' in fault_of(str(path))


def test_line_numbers_count_the_lines_of_the_file(tmp_path: Path, fault_of: Fault) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('sep=;\r\nprompt;target\r\n\r\n"a\r\nb";t\r\np;\r\n'.encode("utf-16"))
    assert f"{path}:6: target is empty" in fault_of(str(path))


@pytest.mark.parametrize("suffix", [".xlsx", ".xls", ".ods"])
def test_a_workbook_that_is_not_there_is_no_hub_data_set(suffix: str, fault_of: Fault) -> None:
    assert "no such file" in fault_of(f"nowhere{suffix}")
