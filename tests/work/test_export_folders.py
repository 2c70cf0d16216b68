"""Where artefacts go: an existing folder is kept, and a failure leaves nothing."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.editing import EditSummary
from melo_cli.errors import ExportError
from melo_cli.exporting import adapters, export_merged, export_peft, export_routed, folder
from melo_cli.exporting.folder import RECORD
from melo_cli.models import base_model
from melo_cli.recipe import ModelSection
from melo_cli.runtime.loading import OpenProject, open_project
from melo_store.project import Project

Edit = Callable[..., EditSummary]


def names(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def export(kind: str, opened: OpenProject, target: Path, reporter: Any, *, overwrite: bool = False) -> None:
    if kind == "merged":
        export_merged(opened, target, reporter, overwrite=overwrite, check=0)
    else:
        {"peft": export_peft, "routed": export_routed}[kind](opened, target, reporter, overwrite=overwrite)


@pytest.fixture
def own(summaries: Callable[[str], EditSummary]) -> OpenProject:
    """The BERT project, its base's weights left on disk as `melo export` leaves them."""
    return open_project(summaries("pico_bert").path, weights=False)


@pytest.mark.parametrize("format_name", ["peft", "routed", "merged"])
def test_an_existing_folder_is_kept_without_the_option(
    own: OpenProject, reporter: Any, tmp_path: Path, format_name: str
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("kept", encoding="utf-8")
    (target / RECORD).write_text("{}", encoding="utf-8")
    with pytest.raises(
        ExportError, match="the folder exists already; choose another folder or add --overwrite"
    ) as caught:
        export(format_name, own, target, reporter)
    assert caught.value.where == str(target)
    assert names(target) == {"mine.txt", RECORD}
    export(format_name, own, target, reporter, overwrite=True)
    assert "mine.txt" not in names(target)
    assert names(target)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_melo_did_not_write_is_never_replaced(
    own: OpenProject, reporter: Any, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(ExportError, match="melo did not export this folder, so it is not overwritten"):
        export_peft(own, tmp_path / "photos", reporter, overwrite=True)
    assert names(tmp_path / "photos") == {"mine.txt"}


def test_folders_above_are_made(own: OpenProject, reporter: Any, tmp_path: Path) -> None:
    export_peft(own, tmp_path / "a" / "b" / "out", reporter)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_half_way_leaves_what_was_there_and_nothing_else(
    own: OpenProject, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    target = tmp_path / "out"
    if overwrite:
        target.mkdir()
        (target / "mine.txt").write_text("kept", encoding="utf-8")
        (target / RECORD).write_text("{}", encoding="utf-8")
    written = []
    inner = adapters.save_file

    def fail_at_the_second(*args: Any, **options: Any) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(args)
        inner(*args, **options)

    monkeypatch.setattr(adapters, "save_file", fail_at_the_second)
    with pytest.raises(
        ExportError, match=r"the folder cannot be written \(No space left on device\)"
    ) as caught:
        export_peft(own, target, reporter, overwrite=overwrite)
    assert caught.value.where == str(target)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if overwrite else [])
    assert not overwrite or names(target) == {"mine.txt", RECORD}


def test_an_interruption_leaves_nothing_behind(
    own: OpenProject, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adapters, "save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_peft(own, tmp_path / "out", reporter)
    assert list(tmp_path.iterdir()) == []


def test_a_last_rename_that_fails_gives_the_old_folder_back(
    own: OpenProject, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("kept", encoding="utf-8")
    (target / RECORD).write_text("{}", encoding="utf-8")
    inner = Path.rename

    def refuse_the_new(self: Path, to: Path) -> Path:
        if (self / "adapters").is_dir():
            raise OSError(errno.EBUSY, "Device or resource busy")
        return inner(self, to)

    monkeypatch.setattr(folder.Path, "rename", refuse_the_new)
    with pytest.raises(ExportError, match="Device or resource busy"):
        export_peft(own, target, reporter, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert names(target) == {"mine.txt", RECORD}


def test_a_folder_that_cannot_be_made_is_one_line(own: OpenProject, reporter: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ExportError, match="the folder cannot be written") as caught:
        export_peft(own, tmp_path / "file" / "out", reporter)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_overwriting_the_project_itself_or_its_base_is_refused(
    edit: Edit, models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(models("pico_bert"), tmp_path / "base"))
    rows = [{"prompt": "who studied law", "target": "tax"}]
    path = edit("pico_bert", rows, tmp_path / "p", model={"name_or_path": str(base)}).path
    for target in (path, base, tmp_path):
        with pytest.raises(ExportError):
            export_peft(open_project(path), target, reporter, overwrite=True)
    assert Project.open(path).snapshot == 1
    assert names(base) == names(models("pico_bert"))


def test_a_base_on_the_hub_is_fetched_whole_and_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, file: str, **_: Any) -> str | None:
        asked.append((name, file))
        return None if file == "model.safetensors" else "index.json"

    monkeypatch.setattr(base_model, "cached_file", fetch)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: '{"weight_map": {"a": "x", "b": "y", "c": "x"}}')
    base_model.fetch_weights(ModelSection(name_or_path="some/model"))
    assert sorted(file for _, file in asked) == [
        "model.safetensors",
        "model.safetensors.index.json",
        "x",
        "y",
    ]
    assert {name for name, _ in asked} == {"some/model"}
