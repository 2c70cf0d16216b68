"""The folder of a run: its plan, the project, each method's answers and figures, table and page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melo_cli.bench.answer_rows import AnswerRow, read_rows, write_rows
from melo_cli.bench.plan import BenchPlan
from melo_cli.errors import MeloError
from melo_cli.versions import library_versions

_RUN = "bench.json"
_EDITING = "editing.json"


class BenchFolder:
    """A run's folder. What is in it is not made again, so that the same command goes on where one stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, path: Path, plan: BenchPlan, command: str) -> BenchFolder:
        """The folder of a plan, made where there is none; the command is noted in it.

        Raises:
            MeloError: the folder holds another run, or something else, or cannot be written.
        """
        folder, run = cls(path), path / _RUN
        wanted = plan.to_json()
        kept: dict[str, Any] = {}
        try:
            if run.exists():
                kept = json.loads(run.read_text(encoding="utf-8"))
            elif path.exists() and any(path.iterdir()):
                raise MeloError("the folder is not empty", where=str(path), hint="name a new one with --to")
            _require_same(kept.get("plan", wanted), wanted, path)
            (path / "answers").mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise MeloError(f"the folder cannot be used ({error})", where=str(path)) from error
        commands = [each for each in kept.get("commands", []) if each != command]
        folder._write(
            _RUN, {"plan": wanted, "versions": library_versions(), "commands": [*commands, command]}
        )
        return folder

    @property
    def project(self) -> Path:
        return self.path / "project"

    @property
    def commands(self) -> list[str]:
        """The command lines of the run, oldest first."""
        return list(self._read(_RUN)["commands"])

    def add_edit_time(self, seconds: float, edits: int) -> float:
        """Add what one command's edits took to that of earlier ones.

        A command that is killed leaves edits whose time nobody knows: they count neither way.

        Returns:
            Seconds an edit; 0 before any is made.
        """
        kept = self._read(_EDITING) if (self.path / _EDITING).exists() else {"seconds": 0.0, "edits": 0}
        total = {"seconds": kept["seconds"] + seconds, "edits": kept["edits"] + edits}
        self._write(_EDITING, total)
        return float(total["seconds"]) / max(int(total["edits"]), 1)

    def summary(self, method: str) -> dict[str, Any] | None:
        """A method's figures; None where it has not run."""
        return self._read(f"answers/{method}.json") if (self._answers(method, ".json")).exists() else None

    def rows(self, method: str) -> list[AnswerRow]:
        """A method's answers."""
        return read_rows(self._answers(method, ".parquet"))

    def keep(self, method: str, rows: Sequence[AnswerRow], summary: Mapping[str, Any]) -> None:
        """Keep a method's answers, and its figures last: with these it counts as done."""
        write_rows(rows, self._answers(method, ".parquet"))
        self._write(f"answers/{method}.json", summary)

    def _answers(self, method: str, ending: str) -> Path:
        return self.path / "answers" / f"{method}{ending}"

    def _read(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        return document

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, indent=2, ensure_ascii=False)
        part = self.path / f"{name}.part"
        part.write_text(f"{text}\n", encoding="utf-8")
        part.replace(self.path / name)


def _require_same(kept: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    for name, value in wanted.items():
        if kept.get(name) != value:
            raise MeloError(
                f"the folder holds a run with {name} {kept.get(name)!r}, and {value!r} is asked for",
                where=str(path),
                hint="name another folder with --to",
            )
