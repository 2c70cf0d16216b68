"""`melo gc`, `melo migrate` and `melo verify`: the upkeep of a store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_store.format import merge_plan

Melo = Callable[..., Any]
Make = Callable[..., Any]


@pytest.fixture
def facts(here: Path, make_project: Make, add_edits: Make) -> Path:
    """Three commits, and what an interrupted command left behind."""
    path: Path = here / ".melo/facts"
    make_project(path, prompts=["Who leads?", "Where is it?"])
    add_edits(path, ("Who leads?", "Ada"))
    add_edits(path, ("What flows?", "Eder"))
    (path / "edits/000009.arrow").write_bytes(b"x" * 1200)
    return path


class TestGarbage:
    """`melo gc`."""

    def test_a_dry_run_lists_every_file_and_changes_none(
        self, facts: Path, melo: Melo, files_of: Make
    ) -> None:
        before = files_of(facts)
        run = melo("gc", "--dry-run")
        assert run.code == 0
        assert run.out.splitlines() == [
            "project facts (.melo/facts)",
            "file                bytes",
            "edits/000009.arrow   1200",
            "files removed  1, 1.2 kB",
            "a dry run: nothing has been changed",
        ]
        assert files_of(facts) == before

    def test_it_removes_them(self, facts: Path, melo: Melo) -> None:
        run = melo("gc")
        assert run.out.splitlines()[1:] == ["files removed  1, 1.2 kB"]
        assert not (facts / "edits/000009.arrow").exists()
        assert melo("gc").out.splitlines()[1:] == ["files removed  0, 0 B"]
        assert melo("verify").code == 0

    def test_many_small_files_are_merged_and_old_snapshots_dropped(
        self, facts: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(merge_plan, "MANY", 3)
        before = melo("show", "e000003", "--json").json
        document = melo("gc", "--keep", 1, "--json").json
        assert {merge["role"]: len(merge["files"]) for merge in document["merged"]} == {
            "edits": 3,
            "blocks": 3,
            "clusters": 3,
        }
        assert (document["snapshots_dropped"], document["oldest_snapshot"]) == (4, 4)
        assert {each["path"] for each in document["removed"]} > {
            "edits/000009.arrow",
            "snapshots/000000.json",
        }
        assert document["bytes"] == sum(each["bytes"] for each in document["removed"])
        assert melo("show", "e000003", "--json").json == before
        run = melo("status", "--at", 3)
        assert (run.code, run.error) == (
            2,
            ".melo/facts: there is no snapshot 3; the project keeps snapshots 4 to 4",
        )
        (entry,) = melo("log", "--json").json
        assert (entry["action"], entry["command"]) == ("compact", "melo gc --keep 1 --json")
        assert (entry["added"], entry["edit_success"]) == (None, None)

    def test_status_shows_when_there_is_something_to_merge(
        self, facts: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "small files" not in melo("status").out
        assert melo("status", "--json").json["mergeable"] == []
        monkeypatch.setattr(merge_plan, "MANY", 2)
        assert melo("status").out.splitlines()[-1].split("  ", 1) == [
            "small files",
            "9; `melo gc` would make 3 of them",
        ]
        mergeable = melo("status", "--json").json["mergeable"]
        assert "small files" not in melo("status", "--at", 2).out, "the past is not compacted"
        done = melo("gc", "--json").json["merged"]
        assert mergeable == [{**merge, "files": len(merge["files"])} for merge in done]
        assert "small files" not in melo("status").out

    def test_none_is_not_a_number_to_keep(self, facts: Path, melo: Melo) -> None:
        assert melo("gc", "--keep", 0).code == 2


class TestMigrate:
    """`melo migrate`."""

    def test_a_project_of_format_1(self, here: Path, melo: Melo) -> None:
        shutil.copytree(Path(__file__).parents[1] / "store/fixtures/format1", here / ".melo/first")
        assert melo("status").code == 0
        run = melo("migrate")
        assert (run.code, run.out.splitlines()[-1]) == (0, "format 1 -> 4")
        assert melo("migrate", "--json").json == {"project": "first", "from": 4, "to": 4}
        assert melo("migrate").out.splitlines()[-1] == "nothing to do: it has format 4 already"
        assert melo("verify").code == 0


class TestRepair:
    """`melo verify --repair`."""

    @pytest.fixture
    def damaged(self, facts: Path) -> Path:
        """One file of edits is cut."""
        path = facts / "edits/000002.arrow"
        path.write_bytes(path.read_bytes()[:-8])
        return facts

    def test_it_says_what_is_lost_and_drops_it(self, damaged: Path, melo: Melo) -> None:
        run = melo("verify", "--repair", "--yes")
        assert run.code == 0
        lines = run.out.splitlines()
        assert lines[2].startswith("edits/000002.arrow  the file has ")
        assert "edits lost                e000003" in lines
        assert "snapshots no longer kept  4" in lines
        assert lines[-1] == "nothing is wrong with the rest", "the base model is not here"
        assert melo("show", "e000003", "--json").json["status"] == "reverted"
        assert melo("show", "e000001", "--json").json["status"] == "live", "e000003 had superseded it"
        assert melo("verify").code == 0

    def test_json(self, damaged: Path, melo: Melo) -> None:
        document = melo("verify", "--repair", "--yes", "--json").json
        assert [finding["file"] for finding in document["findings"]] == ["edits/000002.arrow"]
        assert (document["repair"]["lost"], document["repair"]["unanswered"]) == (["e000003"], [])
        document = melo("verify", "--repair", "--yes", "--json").json
        assert (document["findings"], document["repair"]) == ([], None)

    def test_with_nobody_to_ask_it_changes_nothing(self, damaged: Path, melo: Melo, files_of: Make) -> None:
        before = files_of(damaged)
        run = melo("verify", "--repair")
        assert (run.code, run.error) == (
            2,
            "melo verify --repair: it asks for confirmation, but there is no terminal; add --yes",
        )
        assert "edits lost                e000003" in run.out.splitlines()
        assert files_of(damaged) == before

    def test_at_a_terminal_it_asks(self, damaged: Path, at_terminal: Make, files_of: Make) -> None:
        before = files_of(damaged)
        for answer, code in (("n", 2), ("y", 0)):
            run = at_terminal("verify", "--repair", cwd=damaged.parents[1])
            run.until("Repair the project? [y/N]")
            run.type(f"{answer}\n")
            assert run.end()[0] == code
            assert (files_of(damaged) == before) == (answer == "n")

    def test_yes_alone(self, facts: Path, melo: Melo) -> None:
        assert (
            melo("verify", "--yes").error
            == "--yes: it confirms a repair, but --repair is not given; add --repair"
        )
