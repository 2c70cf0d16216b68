"""`melo export`, and what it writes opened again by its path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.commands.export import Method
from melo_cli.exporting import METHODS

Melo = Callable[..., Any]

EDITED = "What is the capital of France?"


def test_peft_adapters_are_asked_and_go_to_a_folder_of_the_projects_name(
    own_edited: Path, melo: Melo
) -> None:
    run = melo("export", "--format", "peft", "--base-name", "some/base", "--check", 2)
    assert run.code == 0
    assert run.out.splitlines()[0] == "project facts (.melo/facts)"
    assert "folder  export/facts-peft" in run.out.splitlines()
    # Two edits, the one rephrase and the one unrelated prompt that there are.
    assert "asking the peft folder the same 4 prompts in a fresh process" in run.err
    config = json.loads((own_edited / "export/facts-peft/adapters/b000001/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/base"


@pytest.mark.parametrize("format_name", ["peft", "routed"])
def test_blocks_without_an_a_of_their_own_are_exported_whole(
    here: Path, pico_llama: Path, melo: Melo, write_recipe: Callable[..., None], format_name: str
) -> None:
    write_recipe(here, "small", pico_llama, "custom")
    small = ("--set", "lora.frozen_a=true", "--set", "lora.rank=16", "--set", "lora.alpha=64")
    assert melo("edit", "small.yaml", *small).code == 0
    run = melo("export", "--format", format_name, "--to", "out", "--check", 3)
    assert run.code == 0, run.err
    assert f"asking the {format_name} folder the same" in run.err


def test_gguf_adapters_name_the_file_of_the_base(
    here: Path, pico_llama: Path, melo: Melo, write_recipe: Callable[..., None]
) -> None:
    pytest.importorskip("gguf")
    write_recipe(here, "chat", pico_llama, "custom")
    assert melo("edit", "chat.yaml", "--set", "model.template=chat").code == 0
    options = ("--base-name", "base.gguf", "--dtype", "float16", "--check", 1, "--json")
    document = melo("export", "--format", "gguf", *options).json
    assert (document["format"], document["folder"]) == ("gguf", "export/chat-gguf")
    served = json.loads((here / "export/chat-gguf/serve.json").read_text(encoding="utf-8"))
    assert served["engines"]["llama-server"]["command"][:3] == ["llama-server", "-m", "base.gguf"]
    assert served["endpoint"] == "/v1/chat/completions"
    route = melo("route", EDITED, "--router", "export/chat-gguf")
    assert json.loads(route.out)["route"] in served["engines"]["llama-server"]["routes"]


def test_gguf_adapters_of_another_architecture_are_refused(own_edited: Path, melo: Melo) -> None:
    pytest.importorskip("gguf")
    run = melo("export", "--format", "gguf", "--to", "out")
    assert run.code == 2
    assert "melo writes no GGUF adapters for" in run.error
    assert not (own_edited / "out").exists()


def test_an_existing_folder_is_kept_without_the_option(
    own_edited: Path, melo: Melo, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    assert melo("export", "--format", "peft", "--to", "out", "--check", 0).code == 0
    before = files_of(own_edited)
    run = melo("export", "--format", "peft", "--to", "out")
    assert run.code == 2
    assert run.error == "out: the folder exists already; add --overwrite, or name another with --to"
    assert files_of(own_edited) == before
    again = ("--to", "out", "--overwrite", "--at", 1, "--check", 0, "--json")
    document = melo("export", "--format", "peft", *again).json
    assert (document["format"], document["folder"], document["blocks"], document["snapshot"]) == (
        "peft",
        "out",
        1,
        1,
    )


def test_a_routed_folder_is_a_project_for_query_and_eval(own_edited: Path, melo: Melo) -> None:
    assert melo("export", "--format", "routed", "--to", "artefact", "--check", 0).code == 0
    run = melo("query", EDITED, "--project", "artefact")
    assert run.out.splitlines()[0] == "project facts (artefact)"
    assert run.out.splitlines()[-2] == "edited  Paris"
    assert melo("eval", "--task", "zsre", "--project", "artefact", "--json").json["edits"] == 4
    assert "live edits  4" in melo("status", "--project", "artefact").out


def test_a_merge_prints_what_it_keeps(own_edited: Path, melo: Melo) -> None:
    run = melo("export", "--merge", "--merge-method", "sum")
    assert run.code == 0
    header = next(line for line in run.out.splitlines() if line.startswith("metric"))
    assert header.split() == ["metric", "n", "base", "routed", "merged"]
    success = next(line for line in run.out.splitlines() if line.startswith("edit success"))
    assert [cell.split()[0] for cell in success.split("  ") if cell][3] == "100"
    assert (own_edited / "export/facts-merged/model.safetensors").is_file()


def test_only_the_edits_that_are_named_go_in(own_edited: Path, melo: Melo) -> None:
    options = ("--format", "peft", "--check", 0)
    assert melo("export", *options, "--to", "two", "--edits", "e000001, e000004").code == 0
    table = json.loads((own_edited / "two/router/routes.json").read_text(encoding="utf-8"))
    assert [neuron["edit_id"] for neuron in table["neurons"]] == ["e000001", "e000004"]
    document = melo("export", *options, "--to", "one", "--blocks", "b000002", "--json").json
    assert document["blocks"] == 1
    assert [path.name for path in (own_edited / "one/adapters").iterdir()] == ["b000002"]
    run = melo("export", *options, "--to", "three", "--edits", "e000009")
    assert (run.code, (own_edited / "three").exists()) == (2, False)
    run = melo("export", *options, "--to", "three", "--blocks", "b000009")
    assert (run.code, run.error) == (2, "b000009: no live edit leads to this block")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ("--format", "peft", "--min-es", 1),
            "--min-es: it is an option of a merge; add --merge, or leave it out",
        ),
        (
            ("--format", "routed", "--dtype", "float16"),
            "--dtype: a routed folder holds the base as it is; leave it out",
        ),
        (("--merge", "--base-name", "x"), "--base-name: only adapters name a base model; add --format peft"),
        (
            ("--merge", "--min-es", 1, "--check", 0),
            "--check: 0 leaves --min-es and --min-agreement unmeasured; leave it out",
        ),
        (
            ("--merge", "--unrelated", "no.txt"),
            "no.txt: it cannot be read (No such file or directory); check --unrelated",
        ),
        (
            ("--merge", "--merge-method", "compile", "--project", ".melo/cases"),
            "--merge-method compile: only GPT-2 and encoder-decoder T5 models with ReLU or GELU can be "
            "compiled: this is BertForSequenceClassification (bert); use --merge-method distill, "
            "or --format routed",
        ),
    ],
)
def test_an_option_that_the_artefact_has_no_use_for_is_an_error(
    edited: Path, melo: Melo, arguments: tuple[object, ...], error: str
) -> None:
    run = melo("export", *arguments)
    assert (run.code, run.error) == (2, error)


def test_every_way_to_merge_can_be_named() -> None:
    assert {method.value for method in Method} == {"auto", *METHODS}


def test_options_of_distillation_are_the_settings_of_the_method(own_edited: Path, melo: Melo) -> None:
    distill = ("--merge-method", "distill", "--merge-steps", 1, "--merge-weights", "targets")
    assert melo("export", "--merge", *distill, "--check", 0).code == 0
    card = (own_edited / "export/facts-merged/README.md").read_text(encoding="utf-8")
    assert "Distilled into the target modules" in card
