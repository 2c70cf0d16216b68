"""The examples run as they are written, on a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_every_example_has_a_test() -> None:
    assert [path.name for path in EXAMPLES.glob("*.py")] == ["python_api.py"]


def test_the_python_api_goes_from_an_edit_to_its_end(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / "python_api.py"), "--to", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=EXAMPLES.parent,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "edit      e000001 solved: Who leads the support team? -> Mara Lindqvist"
    assert lines[1] == "edit      e000002 solved: In which year was the tower built? -> 1889"
    assert lines[2] == "query     Who leads the support team? -> e000001: 'Mara Lindqvist'"
    assert lines[3].startswith("query     What is the capital of France? -> base: ")
    assert [line.partition(":")[0] for line in lines[4:7]] == [
        "generate  b000001",
        "generate  b000002",
        "generate  base",
    ]
    assert "Mara Lindqvist" in lines[4]
    assert lines[7:10] == [
        "history   snapshot 0: create",
        "history   snapshot 1: edit",
        "history   snapshot 2: edit",
    ]
    assert "export    transformers alone: Who leads the support team? -> e000001" in lines
    assert lines[-1].startswith("revert    snapshot 3")
    assert lines[-1].endswith(", as the base answers")
    assert (tmp_path / "exported" / "config.json").is_file()
