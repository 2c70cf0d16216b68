"""`melo export`: a project as artefacts that other tools load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._options import AtOption, BaseOption, JsonOption, ProjectOption
from melo_cli.commands._project_choice import choose_project
from melo_cli.errors import MeloError
from melo_cli.ui.exports import export_view
from melo_cli.ui.output import make_renderer
from melo_cli.ui.renderer import Renderer

if TYPE_CHECKING:
    from melo_cli.exporting import ExportSummary, MergeMethod
    from melo_cli.runtime.loading import OpenProject

# Edits, rephrases and unrelated prompts that are asked of an artefact, where --check does not say.
_CHECKED = 8
MERGED = "merged"


class Format(StrEnum):
    """What `--format` takes; `--merge` is the third way."""

    PEFT = "peft"
    GGUF = "gguf"
    ROUTED = "routed"


# The formats that are one adapter a block.
_ADAPTERS = (Format.PEFT, Format.GGUF)


class Method(StrEnum):
    """What `--merge-method` takes."""

    AUTO = "auto"
    SUM = "sum"
    COMPILE = "compile"
    DISTILL = "distill"


class DType(StrEnum):
    """What `--dtype` takes."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Trained(StrEnum):
    """What `--merge-weights` takes."""

    ALL = "all"
    TARGETS = "targets"


def export(
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="peft: one adapter a block; gguf: the same for llama.cpp; routed: a folder for transformers "
            "and melo.",
        ),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write a plain checkpoint with the edits in its weights.")
    ] = False,
    merge_method: Annotated[
        Method | None,
        typer.Option(help="How to merge; auto, the default, takes the cheapest that keeps nearly the most."),
    ] = None,
    merge_steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Steps of --merge-method distill.")
    ] = None,
    merge_weights: Annotated[
        Trained | None, typer.Option(help="The weights that --merge-method distill trains.")
    ] = None,
    unrelated: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts or passages, one a line, that a merge must not change. "
            "Default: half of the project's unrelated prompts.",
        ),
    ] = None,
    min_es: Annotated[
        float | None,
        typer.Option(
            "--min-es", metavar="SHARE", min=0.0, max=1.0, help="Edit success that a merge must keep."
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", min=0.0, max=1.0, help="Agreement with the base that a merge must keep."
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Default: export/PROJECT-FORMAT.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FOLDER if it is there.")] = False,
    edits: Annotated[
        str | None, typer.Option(metavar="IDS", help="Only these edits: e000001,e000002,...")
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(metavar="IDS", help="Only the edits of these blocks: b000001,...")
    ] = None,
    base_name: Annotated[
        str | None,
        typer.Option(
            "--base-name", metavar="NAME", help="The base model that peft adapters name; of gguf, its file."
        ),
    ] = None,
    dtype: Annotated[
        DType | None,
        typer.Option(help="Type of the written weights. Default: the base model's; float32 for adapters."),
    ] = None,
    check: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Ask the artefact N edits, N rephrases and N unrelated prompts; 0 asks none. "
            f"Default: {_CHECKED}; for a merge, all.",
        ),
    ] = None,
    project: ProjectOption = None,
    at: AtOption = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a project as adapters, as a routed model, or merged into one checkpoint.

    The artefact is loaded in a fresh process and asked. It is put in place
    only if it answers as expected.
    """
    renderer = make_renderer(json=as_json)
    kind = _kind(format_, merge=merge)
    asked = {
        "--merge-method": merge_method,
        "--merge-steps": merge_steps,
        "--merge-weights": merge_weights,
        "--unrelated": unrelated,
        "--min-es": min_es,
        "--min-agreement": min_agreement,
    }
    _require_fitting(kind, asked, base_name=base_name, dtype=dtype, check=check)
    source = choose_project(project)
    folder = to if to is not None else Path("export") / f"{source.name}-{kind}"
    if folder.exists() and not overwrite:
        raise MeloError(
            "the folder exists already", where=str(folder), hint="add --overwrite, or name another with --to"
        )
    renderer.heading(f"project {source}")
    options = _options(kind, asked, base_name=base_name, dtype=dtype, check=check) | {"overwrite": overwrite}
    from melo_cli.exporting import chosen
    from melo_cli.runtime.loading import open_project

    in_memory = kind == MERGED and merge_method is not Method.SUM
    opened = open_project(source.path, at=at, base=base, weights=in_memory)
    collect_from_here()
    with chosen(opened, _ids(edits), _ids(blocks), folder.parent) as narrowed:
        summary = _write(kind, narrowed, folder, renderer, options)
    renderer.show(export_view(summary, opened.project, opened.recipe.task))


def _kind(format_: Format | None, *, merge: bool) -> str:
    if merge == (format_ is not None):
        raise MeloError(
            "--format and --merge do not go together" if merge else "no format is given",
            where="melo export",
            hint="give one of --format peft, --format gguf, --format routed and --merge",
        )
    return MERGED if format_ is None else format_.value


def _require_fitting(
    kind: str,
    of_a_merge: Mapping[str, object],
    *,
    base_name: str | None,
    dtype: DType | None,
    check: int | None,
) -> None:
    """Refuse an option that the artefact has no use for."""
    given = next((name for name, value in of_a_merge.items() if value is not None), None)
    if given is not None and kind != MERGED:
        raise MeloError("it is an option of a merge", where=given, hint="add --merge, or leave it out")
    if base_name is not None and kind not in _ADAPTERS:
        raise MeloError("only adapters name a base model", where="--base-name", hint="add --format peft")
    if dtype is not None and kind == Format.ROUTED:
        raise MeloError("a routed folder holds the base as it is", where="--dtype", hint="leave it out")
    floors = of_a_merge["--min-es"], of_a_merge["--min-agreement"]
    if check == 0 and floors != (None, None):
        raise MeloError(
            "0 leaves --min-es and --min-agreement unmeasured", where="--check", hint="leave it out"
        )


def _options(
    kind: str,
    of_a_merge: Mapping[str, Any],
    *,
    base_name: str | None,
    dtype: DType | None,
    check: int | None,
) -> dict[str, Any]:
    """The keyword arguments of the function that writes this kind of artefact."""
    import torch

    from melo_cli.exporting import ExampleSettings, Floors

    typed = {} if dtype is None else {"dtype": getattr(torch, dtype.value)}
    if kind != MERGED:
        counted = {"check": _CHECKED if check is None else check}
        return counted | ({"base_name": base_name} | typed if kind in _ADAPTERS else {})
    path = of_a_merge["--unrelated"]
    return {
        "methods": _methods(of_a_merge),
        "examples": ExampleSettings(unrelated=() if path is None else _lines(path)),
        "floors": Floors(of_a_merge["--min-es"], of_a_merge["--min-agreement"]),
        "check": check,
    } | typed


def _methods(of_a_merge: Mapping[str, Any]) -> list[MergeMethod]:
    """The methods to try, each with the settings that options give it."""
    from melo_cli.exporting import METHODS

    options = {"steps": of_a_merge["--merge-steps"], "weights": of_a_merge["--merge-weights"]}
    given = {Method.DISTILL: {name: value for name, value in options.items() if value is not None}}
    asked = of_a_merge["--merge-method"] or Method.AUTO
    names = list(METHODS) if asked is Method.AUTO else [asked]
    return [METHODS[name](**given.get(Method(name), {})) for name in names]


def _write(
    kind: str, opened: OpenProject, folder: Path, renderer: Renderer, options: dict[str, Any]
) -> ExportSummary:
    from melo_cli.exporting import export_gguf, export_merged, export_peft, export_routed

    write: Mapping[str, Callable[..., ExportSummary]] = {
        Format.PEFT: export_peft,
        Format.GGUF: export_gguf,
        Format.ROUTED: export_routed,
        MERGED: export_merged,
    }
    return write[kind](opened, folder, renderer, **options)


def _ids(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise MeloError(f"it cannot be read ({reason})", where=str(path), hint="check --unrelated") from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise MeloError("there is no text in it", where=str(path), hint="write one prompt or passage a line")
    return lines
