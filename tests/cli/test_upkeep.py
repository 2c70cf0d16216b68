"""`melo gc`, `melo migrate` and `melo verify`: the upkeep of a store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store import compact

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
        monkeypatch.setattr(compact, "MANY", 3)
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

    def test_none_is_not_a_number_to_keep(self, facts: Path, melo: Melo) -> None:
        assert melo("gc", "--keep", 0).code == 2


class TestMigrate:
    """`melo migrate`."""

    def test_a_project_of_format_1(self, here: Path, melo: Melo) -> None:
        shutil.copytree(Path(__file__).parents[1] / "store/fixtures/format1", here / ".melo/first")
        assert melo("status").code == 0
        run = melo("migrate")
        assert (run.code, run.out.splitlines()[-1]) == (0, "format 1 -> 2")
        assert melo("migrate", "--json").json == {"project": "first", "from": 2, "to": 2}
        assert melo("migrate").out.splitlines()[-1] == "nothing to do: it has format 2 already"
        assert melo("verify").code == 0
