"""`melo serve`: the edited model behind OpenAI's API."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._options import BaseOption, require_text
from melo_cli.commands._project_choice import choose_project, known_names
from melo_cli.errors import ServeError
from melo_cli.runtime.projects import is_project, store_path
from melo_cli.ui.output import make_renderer

_UPSTREAM_KEY = "MELO_UPSTREAM_KEY"


def serve(
    project: Annotated[
        str | None,
        typer.Argument(
            metavar="PROJECT",
            help="A project's folder or name, or a folder that `melo export` wrote: routed, or peft with "
            "--upstream.",
            autocompletion=known_names,
        ),
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="The port to listen on.")] = 8000,
    base: BaseOption = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model's name for clients; else the base model's own.",
            callback=require_text,
        ),
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A server of the base model that takes adapters. It answers; this one routes.",
        ),
    ] = None,
    upstream_kind: Annotated[
        str, typer.Option(metavar="KIND", help="What the upstream is: vllm, sglang or lorax.")
    ] = "vllm",
    adapters: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where adapters for the upstream are written, which reads them by the same path.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keys of users, one a line; else $MELO_API_KEY."),
    ] = None,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keys of those who may edit, one a line; else $MELO_ADMIN_KEY."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Longest answer that a request may ask for.")
    ] = 1024,
    max_rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Answers that are written together; others wait.")
    ] = 32,
    max_requests: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests at once, waiting ones too; others get 429.")
    ] = 256,
    max_body_kb: Annotated[
        int, typer.Option(metavar="KB", min=1, help="Largest body of a request, in KiB.")
    ] = 1024,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="When a request is given up.")
    ] = 600.0,
    route_header: Annotated[
        bool,
        typer.Option("--route-header/--no-route-header", help="Say in x-melo-route which edit answers."),
    ] = True,
) -> None:
    """Serve the edited model behind OpenAI's API, with a page at /.

    Commits and reverts of other processes are followed. Without keys, the
    server listens to this machine alone. The key of an upstream is taken
    from $MELO_UPSTREAM_KEY. Needs the extra melo-cli[serve].
    """
    renderer = make_renderer()
    path, described = _served(project)
    renderer.info(described)
    _require_extra()
    from melo_cli.serving.engines.upstream import DIALECTS
    from melo_cli.serving.run import ServeSettings, Upstream
    from melo_cli.serving.run import serve as run
    from melo_cli.serving.settings import Keys, Limits

    if upstream_kind not in DIALECTS:
        raise typer.BadParameter(f"choose one of {', '.join(DIALECTS)}", param_hint="--upstream-kind")
    behind = Upstream(upstream, upstream_kind, os.environ.get(_UPSTREAM_KEY), adapters) if upstream else None
    settings = ServeSettings(
        host=host,
        port=port,
        upstream=behind,
        model_name=model_name,
        shows_route=route_header,
        limits=Limits(
            body_bytes=max_body_kb * 1024,
            max_tokens=max_tokens,
            rows=max_rows,
            queue=max_requests,
            timeout=timeout,
        ),
        keys=Keys(_keys(api_key_file, "MELO_API_KEY"), _keys(admin_key_file, "MELO_ADMIN_KEY")),
    )
    collect_from_here()
    run(path, settings, renderer, base=base)


def _served(named: str | None) -> tuple[Path, str]:
    """Where that lies which is served, and what it is: exported adapters, or a project."""
    folder = Path(named).expanduser() if named else None
    if folder is not None and folder.is_dir() and not is_project(store_path(folder)):
        from melo_cli.exporting.folder import export_record

        record = export_record(folder)
        if record is not None:
            return folder, f"{record['format']} export of {record['project']} ({folder})"
    chosen = choose_project(named)
    return chosen.path, f"project {chosen}"


def _require_extra() -> None:
    missing = [
        name for name in ("fastapi", "uvicorn", "httpx", "prometheus_client") if find_spec(name) is None
    ]
    if missing:
        raise ServeError(
            f"it needs {', '.join(missing)}", where="melo serve", hint="pip install 'melo-cli[serve]'"
        )


def _keys(file: Path | None, variable: str) -> tuple[str, ...]:
    """The keys of a file, one a line, else the one of an environment variable."""
    if file is None:
        key = os.environ.get(variable, "").strip()
        return (key,) if key else ()
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError("the keys cannot be read", where=str(file), hint=str(error)) from error
    if not lines:
        raise ServeError("there is no key in it", where=str(file), hint="write one key a line")
    return tuple(lines)
