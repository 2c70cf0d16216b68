"""Checks GGUF adapters before they are put in place: read back, routed, and asked where llama.cpp is here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from melo_cli.errors import ArtefactError
from melo_cli.exporting.adapter_folder import ADAPTERS
from melo_cli.exporting.artefact_check import Answers, ask_both, require_same
from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.llama_cpp.files import AdapterFiles
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject

# Of the prompts that a block answers. llama.cpp rounds otherwise than melo, and so an answer near a tie may
# change; where an adapter is wrong, nearly all do.
_LEAST_SAME = 0.75


def check_adapters(
    opened: OpenProject,
    work: Path,
    shape: BlockShape | None,
    block_ids: Sequence[str],
    files: AdapterFiles,
    count: int,
    reporter: Reporter,
) -> str:
    """Read every adapter back, and ask a sample of prompts for their routes and, by llama.cpp, their answers.

    llama.cpp is asked if the package llama_cpp is installed and the base is a GGUF file.

    Args:
        work: the unfinished artefact.
        files: reads the adapters.
        count: largest number of prompts of each kind.

    Returns:
        What was checked, in a sentence.

    Raises:
        ArtefactError: an adapter is not its block, a route differs, or too many answers do.
    """
    if shape is not None:
        for block_id in block_ids:
            files.require_block(opened.project.block(block_id), shape, work / ADAPTERS / f"{block_id}.gguf")
    reason = _why_not_asked(opened)
    base = str(opened.routed.base.gguf) if reason is None else None
    expected, given = ask_both(opened, "gguf", work, count, reporter, gguf=base)
    require_same(expected, given, ("adapter",))
    said = f"each of {len(block_ids)} adapters, read back from its file, is its block; "
    said += f"llama.cpp was not asked, because {reason}" if reason is not None else _compared(expected, given)
    reporter.info(said)
    return said


def _why_not_asked(opened: OpenProject) -> str | None:
    if opened.routed.base.gguf is None:
        return "the base model is not a GGUF file"
    if find_spec("llama_cpp") is None:
        return "the package llama_cpp is not installed"
    return None


def _compared(expected: Answers, given: Answers) -> str:
    same = [
        wanted["answer"] == answered["answer"]
        for wanted, answered in zip(expected, given, strict=True)
        if wanted["adapter"] is not None
    ]
    if sum(same) < _LEAST_SAME * len(same):
        raise ArtefactError(
            f"llama.cpp answers {sum(same)} of {len(same)} prompts of the edits as the project does; "
            "nothing was written",
            where="melo export",
        )
    return f"llama.cpp answers {sum(same)} of {len(same)} prompts of the edits as the project does"
