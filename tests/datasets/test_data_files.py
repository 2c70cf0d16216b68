"""Files of every suffix give the same rows, and every error names the file and the line."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from melo_cli.datasets import EditRequest, load_edits
from melo_cli.errors import DatasetError
from melo_cli.recipe import DatasetSection
from melo_cli.reporter import SilentReporter

Edits = Callable[..., list[EditRequest]]
Fault = Callable[..., str]

ROWS: list[dict[str, Any]] = [
    {"prompt": "Who leads, exactly?", "target": "2006", "rephrases": ["Who is\nthe lead?"], "subject": "it"},
    {"prompt": 'The "end"', "target": "né", "rephrases": ["a", "b"], "subject": None},
]
EXPECTED = [
    EditRequest("Who leads, exactly?", "2006", ("Who is\nthe lead?",), subject="it"),
    EditRequest('The "end"', "né", ("a", "b")),
]


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")


def write_columns(path: Path) -> None:
    path.write_text(json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows({**row, "rephrases": json.dumps(row["rephrases"])} for row in ROWS)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", write_jsonl),
        ("a.JSONL", write_jsonl),
        ("a.json", write_json),
        ("columns.json", write_columns),
        ("a.csv", write_csv),
        ("a.parquet", write_parquet),
    ],
)
def test_the_same_edits_come_from_every_kind_of_file(
    name: str, write: Callable[[Path], None], tmp_path: Path, edits_of: Edits
) -> None:
    write(tmp_path / name)
    assert edits_of(str(tmp_path / name)) == EXPECTED


@pytest.mark.parametrize("write", [write_jsonl, write_json, write_csv])
def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(
    write: Callable[[Path], None], tmp_path: Path, edits_of: Edits
) -> None:
    path = tmp_path / f"a.{write.__name__.removeprefix('write_')}"
    write(path)
    text = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text)
    edits = edits_of(str(path))
    assert [edit.prompt for edit in edits] == [edit.prompt for edit in EXPECTED]
    assert [edit.target for edit in edits] == ["2006", "né"]


def test_a_hub_like_name_that_exists_here_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edits_of: Edits
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    write_jsonl(tmp_path / "owner" / "name.jsonl")
    assert edits_of("owner/name.jsonl") == EXPECTED


GOOD = b'{"prompt": "p", "target": "t"}\n'


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.jsonl", b"", "a.jsonl: holds no rows"),
        ("a.jsonl", GOOD + b"{oops}\n", "a.jsonl:2: is not JSON"),
        ("a.jsonl", b"\n" + GOOD + b" \r\n{}\n", 'a.jsonl:4: lacks the field "prompt"'),
        ("a.jsonl", b"\n \n", "a.jsonl: holds no rows"),
        ("a.jsonl", b'{\n "prompt": "p"\n}\n', "a.jsonl:1: has an object that continues on the next line"),
        ("a.jsonl", b'[{"prompt": "p", "target": "t"}, 3]', "a.jsonl: item 2: is a number (3)"),
        ("a.jsonl", GOOD + b"[1]\n", "a.jsonl:2: is a list; it must be an object"),
        ("a.jsonl", GOOD + b'"text"\n', "a.jsonl:2: is text; it must be an object"),
        ("a.jsonl", GOOD + GOOD[:-3], "a.jsonl:2: is not JSON"),
        ("a.jsonl", GOOD + b'{"prompt": "\xe9"}\n', "a.jsonl:2: is not UTF-8 (byte 13 of the line)"),
        (
            "a.jsonl",
            (GOOD + GOOD).decode().encode("utf-16") + b"x",
            "is not valid UTF-16, although the file begins so",
        ),
        ("a.jsonl", GOOD + b'{"prompt": "p"}\n', 'a.jsonl:2: lacks the field "target"; fields found: prompt'),
        ("a.jsonl", GOOD + b'{"prompt": "", "target": "t"}\n', "a.jsonl:2: prompt is empty"),
        ("a.jsonl", GOOD + b'{"prompt": "p", "target": " "}\n', "a.jsonl:2: target is empty"),
        ("a.jsonl", GOOD + b'{"prompt": 12, "target": "t"}\n', "a.jsonl:2: prompt is a number (12)"),
        ("a.jsonl", GOOD + b'{"prompt": "p", "target": null}\n', "a.jsonl:2: target is null"),
        (
            "a.jsonl",
            b'{"prompt": "p", "target": "\\ud800"}\n',
            "a.jsonl:1: target has an incomplete surrogate",
        ),
        ("a.jsonl", GOOD + b'{"a": NaN}\n', "a.jsonl:2: is not JSON (NaN is not a JSON number)"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", "a.jsonl:1: is nested too deeply"),
        ("a.json", b"", "a.json: holds no rows"),
        ("a.json", b"[]", "a.json: holds no rows"),
        ("a.json", b'[{"prompt": "p",\n "target" "t"}]', "a.json:2: is not JSON"),
        ("a.json", GOOD + GOOD, "if every line is an object of its own, name the file .jsonl"),
        ("a.json", GOOD, "a.json: holds a single object"),
        ("a.json", b"3", "a.json: holds a number (3)"),
        ("a.json", b'[{"prompt": "p", "target": "t"}, 3]', "a.json: item 2: is a number (3)"),
        ("a.json", b'{"prompt": ["p", "q"], "target": ["t"]}', "different lengths (prompt 2, target 1)"),
        ("a.csv", b"", "a.csv: holds no rows"),
        ("a.csv", b"prompt,target\n", "a.csv: holds no rows"),
        ("a.csv", b"prompt,prompt\n1,2\n", "a.csv:1: has a column name twice"),
        ("a.csv", b"prompt,target\np,t\np\n", "a.csv:3: has 1 cells, but the header has 2"),
        ("a.csv", b'prompt,target\n"p\nq",t\np,\n', "a.csv:4: target is empty"),
        ("a.csv", b'prompt,target\np,"t\n', "a.csv:2: is not CSV"),
        ("a.csv", b"prompt,target\n\n,\np,\n", "a.csv:4: target is empty"),
        ("a.csv", b"sep=;\nprompt;target\np;\n", "a.csv:3: target is empty"),
        ("a.csv", b"sep=;\n", "a.csv: holds no rows"),
        ("a.csv", b"prompt;target;;\np;t;;x\n", "a.csv:2: has 4 cells, but the header has 2; put quotes"),
        ("a.csv", b"prompt,target\np,\xff\n", "a.csv:2: is not UTF-8"),
        ("a.csv", b"prompt,target\np,\xe9\n", 'in Excel: as "CSV UTF-8 (comma delimited)"'),
        ("a.xlsx", b"PK", "a.xlsx: is an Excel workbook; save the sheet as CSV UTF-8"),
        ("a.parquet", b"PAR1 and no more", "a.parquet: is not a Parquet file"),
        ("a.parquet", b"", "a.parquet: is not a Parquet file"),
        ("a.txt", GOOD, 'a.txt: has the unknown suffix ".txt"; use one of .jsonl, .json, .csv, .parquet'),
        ("rows", GOOD, 'rows: has the unknown suffix ""'),
    ],
)
def test_each_broken_file_is_named_with_its_line(
    name: str, content: bytes, line: str, tmp_path: Path, fault_of: Fault
) -> None:
    (tmp_path / name).write_bytes(content)
    assert line in fault_of(str(tmp_path / name))


def test_rows_of_parquet_are_numbered(tmp_path: Path, fault_of: Fault) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["p", "q"], "target": ["t", ""]}), path)
    assert "a.parquet: row 2: target is empty" in fault_of(str(path))


def test_what_json_cannot_hold_becomes_metadata_that_it_can(tmp_path: Path, edits_of: Edits) -> None:
    path = tmp_path / "a.parquet"
    columns = {"prompt": ["p"], "target": ["t"], "score": [float("nan")], "day": [datetime.date(2006, 5, 4)]}
    pq.write_table(pa.table(columns), path)
    assert edits_of(str(path))[0].metadata == {"score": None, "day": "2006-05-04"}


def test_metadata_that_cannot_be_stored_is_refused(
    tmp_path: Path, jsonl: Callable[..., str], fault_of: Fault
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["p"], "target": ["t"], "image": [b"\x00"]}), path)
    assert "row 1: image is of type bytes, which cannot be stored; remove the column" in fault_of(str(path))
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    assert "tree is nested more than 50 levels deep" in fault_of(
        jsonl({"prompt": "p", "target": "t", "tree": deep})
    )


def test_a_cut_parquet_file_is_refused(tmp_path: Path, fault_of: Fault) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "a.parquet: is not a Parquet file, or is damaged" in fault_of(str(path))


def test_a_missing_file_offers_the_nearest_beside_it(tmp_path: Path, fault_of: Fault) -> None:
    write_jsonl(tmp_path / "zsre_train.jsonl")
    assert "no such file; did you mean zsre_train.jsonl?" in fault_of(str(tmp_path / "zsre_trian.jsonl"))
    assert "relative to the current directory" in fault_of(str(tmp_path / "no" / "where.jsonl"))


def test_a_folder_is_no_data_set(tmp_path: Path, fault_of: Fault) -> None:
    assert "is a folder; name a data file in it" in fault_of(str(tmp_path))


def test_a_file_has_no_splits(tmp_path: Path, fault_of: Fault) -> None:
    write_jsonl(tmp_path / "a.jsonl")
    assert 'files have no split "test"; remove dataset.split' in fault_of(
        str(tmp_path / "a.jsonl"), split="test"
    )


def test_a_long_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """The first rows of a file are there before its end, which is broken, is read."""
    from melo_cli.datasets.files import read_file

    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 5 + b"{oops}\n")
    rows = read_file(path)
    assert [next(rows).where for _ in range(5)] == [f"{path}:{number}" for number in range(1, 6)]
    with pytest.raises(DatasetError):
        next(rows)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=6,
)
fields = st.sampled_from(
    ["prompt", "target", "rephrases", "locality", "locality_prompt", "locality_target", "metadata", "text",
     "label", "input", "output", "filtered_rephrases", "questions", "answers", "subject", "x",
     "question", "answer", "completion", "instruction", "messages", "role", "content"]
)  # fmt: skip


@given(st.lists(st.dictionaries(fields, values, min_size=1), min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_rows_are_edits_or_a_dataset_error(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "fuzz.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    try:
        edits = load_edits(DatasetSection(edits=str(path)), "custom", SilentReporter())
    except DatasetError as error:
        assert str(error).startswith(str(path))
    else:
        assert all(edit.prompt.strip() and edit.target.strip() for edit in edits)
        json.dumps([edit.metadata for edit in edits], allow_nan=False).encode()


@example(b"\r\x01", ".csv")
@given(st.binary(max_size=80), st.sampled_from([".jsonl", ".json", ".csv", ".parquet"]))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_bytes_are_edits_or_a_dataset_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(content)
    with pytest.raises(DatasetError):
        load_edits(DatasetSection(edits=str(path)), "custom", SilentReporter())
