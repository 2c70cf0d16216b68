"""Makes an edit on a tiny model, asks it and takes it back: all that melo stands on, in some seconds."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melo_cli.doctor.attempt import attempt
from melo_cli.doctor.pico_model import write_pico_model
from melo_store.writer import open_writer

if TYPE_CHECKING:
    from melo_cli.runtime.querying import QueryAnswer

_PROMPT, _TARGET = "Who leads the support team?", "Paris"
_COMMAND = "melo doctor"


@dataclass(frozen=True)
class Step:
    """One part of the self-test.

    Attributes:
        fault: what went wrong; None where it passed.
    """

    name: str
    seconds: float
    fault: str | None


def self_test() -> list[Step]:
    """Run the parts in order, in a temporary folder that is removed; the first that fails is the last."""
    made, fault = attempt(lambda: tempfile.TemporaryDirectory(prefix="melo-doctor-"))
    if made is None:
        return [Step("make a temporary folder", 0.0, fault)]
    with made as folder:
        test = _SelfTest(Path(folder))
        return _run(
            [
                ("make a tiny model", test.make_model),
                ("edit it", test.edit),
                ("ask it", test.ask),
                ("take the edit back", test.revert),
            ]
        )


def _run(parts: Sequence[tuple[str, Callable[[], None]]]) -> list[Step]:
    steps = []
    for name, part in parts:
        started = time.monotonic()
        _, fault = attempt(part)
        steps.append(Step(name, time.monotonic() - started, fault))
        if fault is not None:
            break
    return steps


class _WrongAnswerError(Exception):
    """The model does not answer as it must."""


class _SelfTest:
    """The parts, each with what the ones before it left in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._project = folder / "project"

    def make_model(self) -> None:
        write_pico_model(self._folder / "model")

    def edit(self) -> None:
        from melo_cli.editing import edit_dataset
        from melo_cli.recipe import recipe_from_mapping
        from melo_cli.reporter import SilentReporter

        data = self._folder / "edits.jsonl"
        data.write_text(json.dumps({"prompt": _PROMPT, "target": _TARGET}), encoding="utf-8")
        recipe = recipe_from_mapping(_recipe(self._folder / "model", data))
        summary = edit_dataset(recipe, self._project, SilentReporter(), command=_COMMAND)
        if summary.count("solved") != 1:
            raise _WrongAnswerError(f"the edit failed: {summary.outcomes}")

    def ask(self) -> None:
        answer = self._asked()
        if answer.route.fired is None or answer.edited != _TARGET:
            raise _WrongAnswerError(f"the answer is {answer.edited!r} instead of {_TARGET!r}")

    def revert(self) -> None:
        from melo_cli.versions import library_versions
        from melo_store.project import Project

        with open_writer(Project.open(self._project)) as writer:
            edits = [view.edit_id for view in writer.project.edits()]
            writer.revert(edits, versions=library_versions(), command=_COMMAND)
        answer = self._asked()
        if answer.route.fired is not None or answer.edited != answer.base:
            raise _WrongAnswerError(
                f"after the revert, the answer is {answer.edited!r} instead of the base model's "
                f"{answer.base!r}"
            )

    def _asked(self) -> QueryAnswer:
        from melo_cli.runtime.loading import open_project
        from melo_cli.runtime.querying import query

        (answer,) = query(open_project(self._project), [_PROMPT])
        return answer


def _recipe(model: Path, data: Path) -> dict[str, Any]:
    """Settings under which a pico model learns; the rule `radius`, since it knows no words to verify."""
    return {
        "name": "self-test",
        "task": "custom",
        "model": {"name_or_path": str(model)},
        "dataset": {"edits": str(data)},
        "key": {"radius": 0.05},
        "lora": {"rank": 4, "alpha": 8.0},
        "training": {
            "variants": 0,
            "max_steps": 60,
            "optimizer": {"name": "Adam", "lr": 0.02},
        },
    }
