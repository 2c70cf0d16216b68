"""`melo status`, `melo log` and `melo show`: what a project says without its model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.models.fingerprint import fingerprint
from melo_store.errors import StoreWarning
from melo_store.project import Project
from melo_store.records import BaseReference

Make = Callable[..., Any]
Melo = Callable[..., Any]
NOWHERE = "http://127.0.0.1:9"  # in place of the hub: whoever asks it is refused


@pytest.fixture
def facts(here: Path, make_project: Make, add_edits: Make) -> Path:
    """A project of two commits, in which the newer edit supersedes the older."""
    make_project(here / ".melo/facts", prompts=["Who leads?", "Where is it?"])
    add_edits(
        here / ".melo/facts",
        ("Who leads?", "Ada"),
        rephrases=("Who is the leader?",),
        locality=(("What is far?", "Mars"), ("What is near?", None)),
        subject="leader",
    )
    return here / ".melo/facts"


def test_status(facts: Path, melo: Melo) -> None:
    run = melo("status")
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0] == "project facts (.melo/facts)"
    values = dict(line.split("  ", 1) for line in lines[1:])
    values = {name: value.strip() for name, value in values.items()}
    assert values["task"] == "zsre"
    assert values["base model"] == "some/model@main"
    assert (values["live edits"], values["superseded"], values["blocks"]) == ("2", "1", "2")
    assert values["snapshot"].startswith("2, ")
    assert run.err == ""


def test_status_of_an_older_snapshot(facts: Path, melo: Melo) -> None:
    document = melo("status", "--at", 1, "--json").json
    assert document["snapshot"] == 1
    assert document["counts"]["superseded"] == 0
    run = melo("status", "--at", 7)
    assert (run.code, run.error) == (
        2,
        ".melo/facts: there is no snapshot 7; the project keeps snapshots 0 to 2",
    )


def test_json_keeps_stdout_for_the_document(facts: Path, melo: Melo) -> None:
    for arguments in (["status"], ["log"], ["show", "e000003"]):
        run = melo(*arguments, "--json")
        assert run.json
        assert run.err == "melo: project facts (.melo/facts)\n"


def test_log_is_newest_first_with_the_command_of_each(facts: Path, melo: Melo) -> None:
    lines = melo("log").out.splitlines()
    assert lines[0] == "project facts (.melo/facts)"
    assert [line.split()[0] for line in lines[2:]] == ["2", "1", "0"]
    assert lines[2].endswith("melo edit facts.yaml --set dataset.max_edits=2")
    assert [entry["action"] for entry in melo("log", "--json").json] == ["edit", "edit", "create"]


def test_show_an_edit_and_what_replaced_it(facts: Path, melo: Melo) -> None:
    old, new = melo("show", "e000001"), melo("show", "e000003")
    fields = dict(line.split("  ", 1) for line in old.out.splitlines()[1:])
    assert {name: value.strip() for name, value in fields.items()}["superseded by"] == "e000003"
    for line in (
        "status      live",
        "prompt      Who leads?",
        "target      Ada",
        "rephrase    Who is the leader?",
        "unrelated   What is far? -> Mars",
        "unrelated   What is near?",
        "subject     leader",
        "answer      Ada",
        "supersedes  e000001",
        "radius      75",
        "block       b000002",
    ):
        assert line in new.out.splitlines()
    document = melo("show", "e000003", "--json").json
    assert document["supersedes"] == ["e000001"]
    assert document["locality"] == [
        {"prompt": "What is far?", "target": "Mars"},
        {"prompt": "What is near?", "target": None},
    ]


def test_a_warning_of_the_store_is_one_line(facts: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch) -> None:
    def warning(*_: object) -> str:
        warnings.warn("the index was\nbuilt again", StoreWarning, stacklevel=2)
        return "today"

    monkeypatch.setattr("melo_cli.ui.history.shortened", warning)
    assert melo("log").err == "melo: warning: the index was\\nbuilt again\n"
    assert warnings.showwarning.__module__ != "melo_cli.app"


def test_an_edit_that_is_not_there(facts: Path, melo: Melo) -> None:
    run = melo("show", "e000009")
    assert run.code == 2
    assert run.error.startswith(".melo/facts: the project has no edit 'e000009'; the nearest are")


def test_control_characters_of_data_do_not_reach_a_terminal(
    here: Path, make_project: Make, melo: Melo
) -> None:
    make_project(here / ".melo/facts", prompts=["Who?\nMe \x1b]0;owned\x07 [red]\u202e"])
    run = melo("show", "e000001")
    assert r"prompt   Who?\nMe \x1b]0;owned\x07 [red]\u202e" in run.out.splitlines()
    assert melo("show", "e000001", "--json").json["prompt"] == "Who?\nMe \x1b]0;owned\x07 [red]\u202e"


def test_none_of_them_needs_torch(facts: Path, environment: Callable[..., dict[str, str]]) -> None:
    code = (
        "import sys\nfrom melo_cli.app import main\n"
        "assert [main(line) for line in (['status'], ['log'], ['show', 'e000001'], ['verify'])] == [0] * 4\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
    )
    here = facts.parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=here, env=environment(), check=True, timeout=60)


# A command line with options of the same kinds, and none of melo behind it: newer versions of typer load
# pydantic for any option.
BARE = """
import sys, typer
app = typer.Typer()
@app.command()
def bare(name: str = typer.Option(None), at: int = typer.Option(None, min=0), flag: bool = False) -> None: ...
app([], standalone_mode=False)
"""


@pytest.mark.parametrize("verb", ["status", "log"])
def test_status_and_log_load_no_library_but_what_typer_loads(
    facts: Path, environment: Callable[..., dict[str, str]], verb: str
) -> None:
    def libraries(code: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\nprint('MODULES', *sys.modules)"],
            cwd=facts.parents[1],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        names = done.stdout.rpartition("MODULES ")[2].split()
        return {name.partition(".")[0] for name in names} - sys.stdlib_module_names

    ours = libraries(f"import sys\nfrom melo_cli.app import main\nassert main([{verb!r}]) == 0")
    assert ours - libraries(BARE) == {"melo_cli", "melo_store"}


def test_status_and_log_say_what_they_know_of_a_project_whose_edits_are_damaged(
    facts: Path, melo: Melo
) -> None:
    before = melo("status").out.splitlines()[:-1], melo("log").out
    for path in [*facts.glob("clusters/*"), *facts.glob("edits/*"), *facts.glob("states/*")]:
        path.unlink()
    assert (melo("status").out.splitlines()[:-1], melo("log").out) == before
    assert melo("show", "e000001").code == 2


def test_verify_names_a_damaged_file_and_what_is_lost(own_edited: Path, melo: Melo) -> None:
    assert melo("verify", "--json").json["findings"] == []
    damaged = next(own_edited.rglob("blocks/*.arrow"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    run = melo("verify")
    assert run.code == 1
    assert f"blocks/{damaged.name}" in run.out


def test_a_quick_verify_sees_sizes_alone(own_edited: Path, melo: Melo) -> None:
    assert melo("verify", "--quick").code == 0
    file = next(own_edited.rglob("blocks/*.arrow"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert (melo("verify", "--quick").code, melo("verify").code) == (0, 1)
    file.write_bytes(content[:-1])
    run = melo("verify", "--quick", "--json")
    assert run.code == 1 and run.json["findings"][0]["file"] == f"blocks/{file.name}"
    file.unlink()
    run = melo("verify", "--quick")
    assert run.code == 1 and "missing" in run.out
    run = melo("verify", "--quick", "--repair")
    assert (run.code, "whole check" in run.error) == (2, True)


def test_verify_holds_the_base_model_against_its_fingerprint(
    own_edited: Path, melo: Melo, pico_bert: Path
) -> None:
    run = melo("verify", "--project", "facts")
    assert (run.code, run.out.splitlines()[-1], run.err) == (0, "nothing is wrong", "")
    run = melo("verify", "--project", "facts", "--base", pico_bert)
    assert run.code == 1
    assert "differs in config, weights" in run.out
    document = melo("verify", "--project", "facts", "--base", pico_bert, "--json").json
    assert document["findings"][0]["file"] == str(pico_bert)
    assert document["base"] == {"checked": True, "folder": str(pico_bert), "why_not": None}


def test_verify_says_that_the_base_model_is_not_here(own_edited: Path, melo: Melo) -> None:
    for base, why in (
        ("./gone", "there is no folder gone here; name it with --base"),
        (
            "two words",
            "two words is no folder here, and not whole in the hub's local cache; name a folder with --base",
        ),
    ):
        run = melo("verify", "--project", "facts", "--base", base)
        assert (run.code, " ".join(run.out.splitlines()[1:]), run.err) == (
            0,
            f"base model not checked: {why} nothing is wrong with the rest",
            "",
        )
        document = melo("verify", "--project", "facts", "--base", base, "--json").json
        assert document == {"findings": [], "base": {"checked": False, "folder": None, "why_not": why}}


class TestVerifyOfAHubModel:
    """`melo verify` where the base model is one of the hub: it looks into the local cache, and no further."""

    @pytest.fixture
    def snapshot(self, here: Path, pico_gpt2: Path) -> Path:
        """A model in the hub's cache, as the hub's library lays it down."""
        model = here / "hub/models--some--model"
        shutil.copytree(pico_gpt2, model / "snapshots/abc")
        (model / "refs").mkdir()
        (model / "refs/main").write_text("abc")
        return model / "snapshots/abc"

    @pytest.fixture
    def verify(self, snapshot: Path, melo_process: Melo) -> Callable[..., Any]:
        """Run `melo verify` on a project whose base model is `some/model`, as it is in the cache now."""
        base = BaseReference("some/model", None, fingerprint(snapshot))
        here = snapshot.parents[3]
        Project.create(
            here / ".melo/facts", name="facts", base=base, recipe={"task": "custom"}, seed=0, versions={}
        )

        def run(*arguments: object, **changes: str) -> Any:
            environment = {"HF_HUB_CACHE": str(here / "hub"), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": NOWHERE}
            return melo_process("verify", *arguments, cwd=here, **(environment | changes))

        return run

    def test_it_is_checked_where_the_cache_has_it(self, verify: Melo, snapshot: Path) -> None:
        run = verify()
        assert (run.code, run.out.splitlines()[1:], run.err) == (0, ["nothing is wrong"], "")
        assert verify("--json").json["base"]["folder"] == str(snapshot)

    def test_another_one_in_the_cache_is_found(self, verify: Melo, snapshot: Path) -> None:
        settings = json.loads((snapshot / "config.json").read_text(encoding="utf-8"))
        (snapshot / "config.json").write_text(json.dumps(settings | {"n_head": 2}), encoding="utf-8")
        run = verify()
        assert run.code == 1
        assert "the project was made on some/model, but " in run.out
        assert "differs in config" in run.out
        assert "nothing is wrong" not in run.out

    def test_where_the_cache_has_it_not_that_is_said(self, verify: Melo, tmp_path: Path) -> None:
        run = verify(HF_HUB_CACHE=str(tmp_path / "empty"))
        assert (run.code, " ".join(run.out.splitlines()[1:]), run.err) == (
            0,
            "base model not checked: some/model is no folder here, and not whole in the hub's local cache;"
            " name a folder with --base nothing is wrong with the rest",
            "",
        )
        document = verify("--json", HF_HUB_CACHE=str(tmp_path / "empty")).json
        assert (document["findings"], document["base"]["checked"]) == ([], False)

    def test_half_a_download_is_no_other_model(self, verify: Melo, snapshot: Path) -> None:
        (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
        shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        index = snapshot / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
        run = verify()
        assert (run.code, run.out.splitlines()[1].split(":")[0]) == (0, "base model not checked")
        index.write_text("{}", encoding="utf-8")
        assert verify().error == f"{snapshot}: {index.name} cannot be read ('weight_map')"
