"""`melo export`, and what it writes opened again by its path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Melo = Callable[..., Any]

EDITED = "What is the capital of France?"


def test_peft_adapters_go_to_a_folder_of_the_projects_name(own_edited: Path, melo: Melo) -> None:
    run = melo("export", "--format", "peft", "--base-name", "some/base")
    assert run.code == 0
    assert run.out.splitlines()[0] == "project facts (.melo/facts)"
    assert "folder  export/facts-peft" in run.out.splitlines()
    config = json.loads((own_edited / "export/facts-peft/adapters/b000001/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/base"


def test_a_folder_that_is_there_is_kept_unless_told_otherwise(
    own_edited: Path, melo: Melo, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    assert melo("export", "--format", "peft", "--to", "out").code == 0
    before = files_of(own_edited)
    run = melo("export", "--format", "peft", "--to", "out")
    assert (run.code, run.error) == (2, "out: it exists already; add --overwrite, or name another with --to")
    assert files_of(own_edited) == before
    document = melo("export", "--format", "peft", "--to", "out", "--overwrite", "--at", 1, "--json").json
    assert (document["format"], document["folder"], document["blocks"], document["snapshot"]) == (
        "peft",
        "out",
        1,
        1,
    )


def test_a_routed_folder_is_a_project_for_query_and_eval(own_edited: Path, melo: Melo) -> None:
    assert melo("export", "--format", "routed", "--to", "artefact").code == 0
    run = melo("query", EDITED, "--project", "artefact")
    assert run.out.splitlines()[0] == "project facts (artefact)"
    assert run.out.splitlines()[-2] == "edited  Paris"
    assert melo("eval", "--task", "zsre", "--project", "artefact", "--json").json["edits"] == 4
    assert "live edits  4" in melo("status", "--project", "artefact").out


def test_a_merge_prints_what_it_keeps(own_edited: Path, melo: Melo) -> None:
    run = melo("export", "--merge")
    assert run.code == 0
    header = next(line for line in run.out.splitlines() if line.startswith("metric"))
    assert header.split() == ["metric", "n", "base", "routed", "merged"]
    success = next(line for line in run.out.splitlines() if line.startswith("edit success"))
    assert [cell.split()[0] for cell in success.split("  ") if cell][3] == "100"
    assert (own_edited / "export/facts-merged/model.safetensors").is_file()
    document = melo("export", "--merge", "--overwrite", "--json").json
    assert document["routed"]["edit_success"]["generation"] == 1.0
    assert set(document["merged"]) == set(document["base"])
