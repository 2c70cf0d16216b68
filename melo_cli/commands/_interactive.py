"""`melo edit --interactive`: a single edit, asked for at the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from melo_cli.errors import MeloError
from melo_cli.paraphrase.subject_guess import guessed_subject
from melo_cli.ui.renderer import Renderer

if TYPE_CHECKING:
    from melo_cli.datasets import EditRequest


def ask_for_edit(
    renderer: Renderer, prompt: str | None, target: str | None, rephrases: list[str], subject: str | None
) -> EditRequest:
    """Ask for what the options leave open, then for questions whose answers must not change.

    Raises:
        MeloError: there is nobody at a terminal to ask.
    """
    if not sys.stdin.isatty():
        raise MeloError(
            "--interactive needs a terminal, but stdin is none",
            where="melo edit",
            hint="give --prompt and --target",
        )
    prompt = prompt or _asked("What is asked")
    target = target or _asked("The right answer")
    subject = subject or _asked("What it is about", guessed_subject(prompt) or "")
    renderer.info("Which questions must keep their answers? One a line; an empty line ends the list.")
    locality = []
    while text := _asked("stays", ""):
        locality.append((text, None))
    from melo_cli.datasets import EditRequest

    return EditRequest(
        prompt, target, rephrases=tuple(rephrases), locality=tuple(locality), subject=subject or None
    )


def _asked(question: str, otherwise: str | None = None) -> str:
    answer: str = typer.prompt(
        question, default=otherwise, show_default=bool(otherwise), err=True, prompt_suffix=": "
    )
    return answer.strip()
