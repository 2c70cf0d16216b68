"""`melo bench`: a suite's figures, the run's folder, and what goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

Melo = Callable[..., Any]

EDITS = [
    {
        "prompt": "Who is the prime minister of Britain?",
        "target": "London",
        "subject": "Britain",
        "rephrases": ["Hello! Who is the prime minister of Britain?"],
        "same_subject": ["In which year was Britain built?"],
        "other_subject": ["Who is the prime minister of Cologne?"],
    },
    {"prompt": "What was built in <b>1889</b>?", "target": "Paris"},
    {"prompt": "What is the name of the river", "target": "John"},
]
SETTINGS = {
    "calibration.questions": 200,
    "lora.rank": 4,
    "lora.alpha": 16,
    "training.variants": 0,
    "training.max_steps": 60,
    "training.optimizer": "{name: Adam, lr: 0.03}",
    "generation.max_new_tokens": 4,
}


def command(folder: Path, model: Path, *more: object) -> list[object]:
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    return ["bench", "everyday", "--data", folder / "edits.jsonl", "--model", model, *settings, *more]


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory, pico_llama: Path, melo_process: Melo) -> Path:
    """A folder with a run in `bench/everyday`; to be read only."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "edits.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in EDITS))
    (folder / "loose.jsonl").write_text('{"prompt": "It was opened in 1889."}\n')
    more = (
        "--set",
        f"dataset.locality={folder / 'loose.jsonl'}",
        "--methods",
        "melo,lookup,icl,rag,finetune",
    )
    run = melo_process(*command(folder, pico_llama, *more, "--forms", "--json"), cwd=folder)
    assert run.code == 0, run.err
    (folder / "document.json").write_text(run.out)
    (folder / "messages.txt").write_text(run.err)
    return folder


@pytest.fixture
def again(benched: Path, pico_llama: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the same command once more, with other methods or options."""
    monkeypatch.chdir(benched)

    def run(*more: object) -> Any:
        loose = ("--set", f"dataset.locality={benched / 'loose.jsonl'}")
        return melo(*command(benched, pico_llama, *loose, "--forms", *more))

    return run


def answers(folder: Path, method: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(
        folder / "bench" / "everyday" / "answers" / f"{method}.parquet"
    ).to_pylist()
    return rows


def test_edits_hold_and_what_no_edit_takes_is_the_base_s(benched: Path) -> None:
    document = json.loads((benched / "document.json").read_text())
    methods = document["methods"]
    assert list(methods) == ["base", "melo", "lookup", "icl", "rag", "finetune"]
    assert methods["base"]["figures"]["edit"]["right"] == 0.0
    for name in ("melo", "lookup"):
        figures = methods[name]["figures"]
        assert figures["edit"]["right"] == figures["edit"]["strict"] == figures["edit"]["fired"] == 1.0
        assert figures["unrelated"]["right"] == 1.0
        assert figures["unrelated"]["fired"] == 0.0
    assert methods["melo"]["bytes_an_edit"] > methods["lookup"]["bytes_an_edit"] > 0
    assert methods["melo"]["seconds_an_edit"] > methods["lookup"]["seconds_an_edit"] == 0
    for row in answers(benched, "melo"):
        assert row["edit_id"] is not None or row["answer"] == row["base"]


def test_lookup_says_the_stored_target_word_for_word(benched: Path) -> None:
    for row in answers(benched, "lookup"):
        if row["edit_id"] is not None:
            assert row["answer"] == EDITS[int(row["edit_id"][1:]) - 1]["target"]
        else:
            assert row["answer"] == row["base"]


def test_retrieval_leaves_nothing_alone_and_in_context_only_what_the_router_takes(benched: Path) -> None:
    assert all(row["edit_id"] is not None for row in answers(benched, "rag"))
    taken = [row["edit_id"] for row in answers(benched, "icl")]
    assert taken == [row["edit_id"] for row in answers(benched, "lookup")]
    before = {row["prompt"]: row["base"] for row in answers(benched, "icl")}
    changed = [row for row in answers(benched, "icl") if row["edit_id"] and row["answer"] != row["base"]]
    assert changed and len(before) > len(changed)


def test_what_else_the_model_can_do_changes_with_its_weights_alone(benched: Path) -> None:
    methods = json.loads((benched / "document.json").read_text())["methods"]
    base, melo = methods["base"]["ability"], methods["melo"]["ability"]
    assert melo["fired"] == 0
    assert {name: melo[name] for name in base} == base
    assert methods["finetune"]["ability"]["perplexity"] != base["perplexity"]
    assert methods["lookup"]["ability"] is None


def test_the_forms_ask_of_every_edit_what_the_model_has_room_for(benched: Path) -> None:
    asked = [row["kind"] for row in answers(benched, "base")]
    assert {kind: asked.count(kind) for kind in dict.fromkeys(asked)} == {
        "edit": 3,
        "rephrase": 1,
        "same_subject": 1,
        "other_subject": 1,
        "unrelated": 1,
        "free_text": 1,
        "yes": 3,
        "no": 3,
    }
    # An open request is answered with the edit's fact, by melo alone.
    told = {
        method: [row["edit_id"] for row in answers(benched, method) if row["kind"] == "free_text"]
        for method in ("melo", "lookup")
    }
    assert told == {"melo": ["e000001"], "lookup": [None]}
    assert "3 questions are left out" in (benched / "messages.txt").read_text()


def test_the_folder_tells_what_was_run(benched: Path) -> None:
    folder = benched / "bench" / "everyday"
    table = (folder / "table.md").read_text()
    assert "| melo | 100 |" in table
    assert "melo bench everyday --data" in table
    page = (folder / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "<b>1889</b>" not in page and "&lt;b&gt;1889&lt;/b&gt;" in page
    kept = json.loads((folder / "bench.json").read_text())
    assert kept["plan"]["suite"] == "everyday"
    assert kept["versions"]["torch"]


def test_the_same_command_makes_nothing_twice_and_another_method_is_added(
    benched: Path, again: Callable[..., Any]
) -> None:
    folder = benched / "bench" / "everyday"
    before = {path.name: path.read_bytes() for path in (folder / "answers").iterdir()}
    run = again("--methods", "melo,lookup,lora")
    assert run.code == 0, run.err
    assert "melo: melo is there already" in run.err and "training lora" in run.err
    heads, counts, *rows = (line.split() for line in run.out.splitlines()[2:12])
    assert heads == ["method", "n", "base", "melo", "lookup", "lora"]
    assert rows[0][:2] == ["rephrases", "1"] and counts[0] == "edits"
    after = {path.name: path.read_bytes() for path in (folder / "answers").iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"lora.json", "lora.parquet"}


def test_what_answers_by_the_project_is_asked_again_when_that_has_changed(
    benched: Path, tmp_path: Path, pico_llama: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "bench" / "everyday"
    shutil.copytree(benched / "bench" / "everyday", copy)
    monkeypatch.chdir(tmp_path)
    assert melo("revert", "e000002", "--project", copy / "project").code == 0
    loose = ("--set", f"dataset.locality={benched / 'loose.jsonl'}")
    run = melo(*command(benched, pico_llama, *loose, "--forms", "--methods", "lookup,finetune"))
    assert run.code == 0, run.err
    assert "lookup is asked again: the project has changed since snapshot" in run.err
    assert "finetune is there already" in run.err
    for row in answers(tmp_path, "lookup"):
        assert row["edit_id"] != "e000002"
    assert any(row["edit_id"] == "e000002" for row in answers(benched, "lookup"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--edits", 2), "the folder holds a run with edits 1000, and 2 is asked for; name another folder"),
        (("--methods", "finetun"), "--methods: 'finetun' is not a method; did you mean finetune?"),
        (("--method-set", "lora.rank=0"), "--method-set lora.rank=0: 0 is out of range"),
        (("--methods", "melo", "--method-set", "lora.rank=2"), "lora is not selected; add --methods lora"),
        (("--set", "lora.rnk=3"), "lora.rnk"),
        (("--methods", "finetune", "--method-set", "finetune.lr=1e-5"), "the folder has finetune with"),
    ],
)
def test_what_does_not_fit_is_refused(again: Callable[..., Any], arguments: Any, line: str) -> None:
    run = again(*arguments)
    assert run.code == 2
    assert line in run.error


def test_an_unknown_suite_and_a_folder_of_something_else(
    benched: Path, pico_llama: Path, melo: Melo, tmp_path: Path
) -> None:
    run = melo("bench", "evryday", "--data", benched / "edits.jsonl", "--model", pico_llama)
    assert run.code == 2
    assert "'evryday' is not a suite; did you mean everyday?" in run.error
    (tmp_path / "notes.txt").touch()
    run = melo(*command(benched, pico_llama, "--to", tmp_path))
    assert run.code == 2
    assert "the folder is not empty" in run.error
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_classifier_has_no_context(
    tmp_path: Path, pico_bert: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "prompt": "Which court was it",
            "target": "tax",
            "locality_prompt": "by whom",
            "locality_target": "civil",
        },
        {"prompt": "who studied law", "target": "civil"},
    ]
    (tmp_path / "edits.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    arguments = [
        "bench",
        "scotus",
        "--data",
        "edits.jsonl",
        "--model",
        pico_bert,
        "--methods",
        "melo,icl,rag",
    ]
    run = melo(*arguments, *settings, "--json")
    assert run.code == 0, run.err
    assert list(run.json["methods"]) == ["base", "melo"]
    assert "icl is left out" in run.err and "rag is left out" in run.err
    assert run.json["methods"]["melo"]["figures"]["edit"]["right"] == 1.0
    assert run.json["methods"]["base"]["ability"] is None
    shutil.rmtree(tmp_path / "bench")
