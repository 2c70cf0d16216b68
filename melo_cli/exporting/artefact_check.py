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

Answers = list[dict[str, Any]]


def check_artefact(
    opened: OpenProject, format_name: str, folder: Path, count: int, reporter: Reporter
) -> int:
    """Ask `count` edits, rephrases and unrelated prompts of the project and of the artefact in `folder`.

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
    expected, given = ask_both(opened, format_name, folder, count, reporter)
    require_same(expected, given, ("adapter", "answer"))
    return len(expected)


def ask_both(
    opened: OpenProject, format_name: str, folder: Path, count: int, reporter: Reporter, **more: Any
) -> tuple[Answers, Answers]:
    """What the project answers to a sample of prompts, and what the artefact does.

    The artefact is loaded without melo: a routed folder by transformers, PEFT adapters by PEFT, GGUF adapters
    by llama.cpp, and adapters are chosen by the exported router.

    Args:
        more: what else `ask_artefact` needs for the format.

    Returns:
        For each prompt `adapter`, the block that answers or None, and `answer`, token ids; of the project
        also `ids`, the prompt's.

    Raises:
        ArtefactError: the artefact does not load.
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
    return expected, ask_in_worker(asked | more)


def ask_in_worker(request: dict[str, Any]) -> Answers:
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
        given: Answers = json.loads(answers.read_text(encoding="utf-8"))
        return given


def require_same(expected: Answers, given: Answers, parts: Sequence[str]) -> None:
    """Refuse an artefact that routes or answers otherwise than the project.

    Args:
        parts: what must be the same: `adapter`, `answer`.

    Raises:
        ArtefactError: something differs.
    """
    different = [
        (wanted, answered)
        for wanted, answered in zip(expected, given, strict=True)
        if any(wanted[part] != answered[part] for part in parts)
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
