"""What was written is asked in a fresh process, by the libraries it is for, before it is put in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.errors import ArtefactError
from melo_cli.exporting import artefact_check, export_peft, export_routed
from melo_cli.exporting.expected_outputs import expected_outputs
from melo_cli.runtime.loading import OpenProject

Shared = Callable[[str], OpenProject]


def test_a_routed_folder_that_answers_as_the_project_is_put_in_place(
    shared: Shared, reporter: Any, tmp_path: Path
) -> None:
    export_routed(shared("pico_t5"), tmp_path / "out", reporter, check=3)
    assert (tmp_path / "out" / "config.json").is_file()
    # Three edits, both rephrases, three of the four unrelated prompts.
    assert reporter.infos[-1] == "asking the routed folder the same 8 prompts in a fresh process"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"adapter": None}, "goes to base instead of b000001; nothing was written"),
        ({"answer": [7]}, "has another answer; nothing was written"),
    ],
)
def test_an_artefact_that_answers_otherwise_is_not(
    shared: Shared,
    reporter: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    message: str,
) -> None:
    opened = shared("pico_llama")
    expected = expected_outputs(opened, {"count": 1}, reporter)["expected"]
    answers = [{"adapter": each["adapter"], "answer": each["answer"]} for each in expected]
    monkeypatch.setattr(artefact_check, "ask_in_worker", lambda request: [answers[0] | changed, *answers[1:]])
    with pytest.raises(ArtefactError, match=message) as caught:
        export_peft(opened, tmp_path / "out", reporter, check=1)
    assert "1 of 3 prompts are not answered as the project answers them" in str(caught.value)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(artefact_check, "ask_in_worker", lambda request: answers)
    export_peft(opened, tmp_path / "out", reporter, check=1)
