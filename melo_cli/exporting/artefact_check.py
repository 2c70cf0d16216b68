"""Checks an artefact before it is put in place: it is asked, in a fresh process, what the project answers."""

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

    The artefact is loaded by the libraries it is for alone: a routed folder by transformers, adapters by PEFT
    with the router beside them.

    Returns:
        How many prompts were asked.

    Raises:
        ArtefactError: an answer or a route differs, or the artefact does not load.
    """
    request = {"count": count}
    in_memory = opened.routed.base.has_weights
    promised = (
        expected_outputs(opened, request, reporter)
        if in_memory
        else run_in_worker("promise", opened, request, reporter)
    )
    promises = promised["promises"]
    base = opened.routed.base
    asked = {
        "format": format_name,
        "folder": str(folder),
        "base": str(base.folder),
        "tokenizer": opened.recipe.model.tokenizer or str(base.folder),
        "auto_class": base.kind.auto_class,
        "trust_remote_code": opened.recipe.model.trust_remote_code,
        "dtype": promised["dtype"],
        "device": promised["device"],
        "questions": [{"ids": each["ids"], "options": each["options"]} for each in promises],
    }
    reporter.info(f"asking the {format_name} folder the same {len(promises)} prompts in a fresh process")
    _compare(promises, ask_in_worker(asked))
    return len(promises)


def ask_in_worker(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The artefact's answers, from a fresh process that has nothing of melo.

    Raises:
        ArtefactError: it does not load.
    """
    with tempfile.TemporaryDirectory() as place:
        answers = Path(place) / "answers.json"
        done = subprocess.run(
            [sys.executable, "-P", str(ask_artefact.__file__)],
            input=json.dumps(request | {"answers": str(answers)}),
            # transformers copies code that comes with a model into this cache: the folder moves in a moment.
            env=os.environ | {"HF_MODULES_CACHE": place},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ArtefactError(f"it does not load in a fresh process: {reason}", where="melo export")
        found: list[dict[str, Any]] = json.loads(answers.read_text(encoding="utf-8"))
        return found


def _compare(promises: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> None:
    different = [
        (promised, said)
        for promised, said in zip(promises, found, strict=True)
        if (promised["adapter"], promised["answer"]) != (said["adapter"], said["answer"])
    ]
    if not different:
        return
    promised, said = different[0]
    what = (
        f"goes to {said['adapter'] or 'base'} instead of {promised['adapter'] or 'base'}"
        if promised["adapter"] != said["adapter"]
        else "is answered otherwise"
    )
    raise ArtefactError(
        f"{len(different)} of {len(promises)} prompts are not answered as the project does: "
        f"{promised['prompt']!r} {what}; nothing was put in place",
        where="melo export",
    )
