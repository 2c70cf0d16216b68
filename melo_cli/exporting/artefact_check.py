"""Checks an artefact before it is put in place: in a fresh process, its answers must equal the project's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melo_cli.errors import ArtefactError
from melo_cli.exporting.expected_outputs import expected_outputs
from melo_cli.exporting.standalone import ask_artefact
from melo_cli.exporting.worker import run_in_worker
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject


def check_artefact(
    opened: OpenProject, format_name: str, folder: Path, count: int, reporter: Reporter
) -> int:
    """Ask `count` edits, rephrases and unrelated prompts of the project and of the artefact in `folder`.

    The artefact is loaded without melo: a routed folder by transformers, adapters by PEFT and the exported
    router.

    Args:
        opened: the project, opened.
        format_name: `routed` or `peft`.
        folder: the artefact.
        count: largest number of prompts of each kind.
        reporter: shows progress.

    Returns:
        The number of prompts asked.

    Raises:
        ArtefactError: an answer or a route differs, or the artefact does not load.
    """
    request = {"count": count}
    in_memory = opened.routed.base.has_weights
    wanted = (
        expected_outputs(opened, request, reporter)
        if in_memory
        else run_in_worker("expected outputs", opened, request, reporter)
    )
    expected = wanted["expected"]
    base = opened.routed.base
    asked = {
        "format": format_name,
        "folder": str(folder),
        "base": str(base.folder),
        "tokenizer": opened.recipe.model.tokenizer or str(base.folder),
        "auto_class": base.kind.auto_class,
        "trust_remote_code": opened.recipe.model.trust_remote_code,
        "dtype": wanted["dtype"],
        "device": wanted["device"],
        "questions": [{"ids": each["ids"], "options": each["options"]} for each in expected],
    }
    reporter.info(f"asking the {format_name} folder the same {len(expected)} prompts in a fresh process")
    _compare(expected, ask_in_worker(asked))
    return len(expected)


def ask_in_worker(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The artefact's answers, from a fresh process that imports nothing of melo.

    Raises:
        ArtefactError: it does not load.
    """
    with tempfile.TemporaryDirectory() as scratch:
        answers = Path(scratch) / "answers.json"
        done = subprocess.run(
            [sys.executable, "-P", str(ask_artefact.__file__)],
            input=json.dumps(request | {"answers": str(answers)}),
            # transformers copies the code of a model into this cache, and the folder is renamed afterwards.
            env=os.environ | {"HF_MODULES_CACHE": scratch},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ArtefactError(
                f"the artefact does not load in a fresh process: {reason}", where="melo export"
            )
        given: list[dict[str, Any]] = json.loads(answers.read_text(encoding="utf-8"))
        return given


def _compare(expected: Sequence[dict[str, Any]], given: Sequence[dict[str, Any]]) -> None:
    different = [
        (wanted, answered)
        for wanted, answered in zip(expected, given, strict=True)
        if (wanted["adapter"], wanted["answer"]) != (answered["adapter"], answered["answer"])
    ]
    if not different:
        return
    wanted, answered = different[0]
    what = (
        f"goes to {answered['adapter'] or 'base'} instead of {wanted['adapter'] or 'base'}"
        if wanted["adapter"] != answered["adapter"]
        else "has another answer"
    )
    raise ArtefactError(
        f"{len(different)} of {len(expected)} prompts are not answered as the project answers them: "
        f"{wanted['prompt']!r} {what}; nothing was written",
        where="melo export",
    )
