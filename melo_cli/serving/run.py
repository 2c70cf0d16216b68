"""Starts a server over a project and runs it until it is stopped."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn

from melo_cli.errors import ModelError, ServeError
from melo_cli.exporting.folder import export_record
from melo_cli.exporting.prompt_router import router_of_export
from melo_cli.models.base_model import ModelKind
from melo_cli.models.user_cache import user_cache
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.shared_weights import over_shared_weights
from melo_cli.serving.app import make_app
from melo_cli.serving.engines.adapters import AdapterFolder, WriteAdapter, adapter_writer
from melo_cli.serving.engines.engine import Engine
from melo_cli.serving.engines.inside import InsideEngine
from melo_cli.serving.engines.upstream import DIALECTS, UpstreamEngine
from melo_cli.serving.exported_routes import ExportedRoutes
from melo_cli.serving.project_editor import ProjectEditor
from melo_cli.serving.routing import ProjectRoutes
from melo_cli.serving.server import Server
from melo_cli.serving.settings import Keys, Limits, is_loopback, require_keys
from melo_cli.torch_threads import one_thread

# Seconds; longer than clients keep an idle connection (httpx, and with it OpenAI's package, 5 s): where both
# give it up at the same moment, a request is sent that nobody reads.
_KEEP_ALIVE = 75


@dataclass(frozen=True)
class Upstream:
    """The server behind this one.

    Attributes:
        url: where it is, without `/v1`.
        kind: `vllm`, `sglang` or `lorax`.
        key: its own key.
        adapters: folder for the adapters, which it sees by the same path; None for one in melo's cache.
    """

    url: str
    kind: str = "vllm"
    key: str | None = None
    adapters: Path | None = None


@dataclass(frozen=True)
class ServeSettings:
    """Where and how a project is served.

    Attributes:
        upstream: the server that holds the model; None answers with the model of this process.
        model_name: the name under which clients know the model; None is the base model's.
        threads: threads that torch answers and trains with.
        shows_route: whether answers carry the header `x-melo-route`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    upstream: Upstream | None = None
    model_name: str | None = None
    shows_route: bool = True
    threads: int = field(default_factory=torch.get_num_threads)
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys)


def serve(path: Path, settings: ServeSettings, reporter: Reporter, *, base: str | None = None) -> None:
    """Serve a project, or a folder of `melo export --format routed` or `peft`, until SIGTERM or Ctrl-C.

    Raises:
        MeloError: as `open_project`; or the model writes no text, or the host is open without keys.
    """
    require_keys(settings.host, settings.keys)
    # This thread loads and then waits for requests: helpers of its own would hold up those of the answers.
    with _listening(settings.host, settings.port) as listening, _sigterm_ends_well(), one_thread():
        server = open_server(path, settings, base=base)
        config = uvicorn.Config(
            make_app(server),
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, int(settings.limits.timeout)),
        )
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        behind = settings.upstream
        served = f"the model of {behind.url}" if behind is not None else server.engine.model_name
        reporter.info(f"serving {served} on http://{shown}:{settings.port}")
        if is_loopback(settings.host) and not settings.keys.admins:
            reporter.info("no keys are set: whoever uses this machine may ask and edit")
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The socket of a server, bound before a model is loaded.

    Raises:
        ServeError: the address or the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ServeError(
            f"it cannot listen there ({error.strerror or error})",
            where=f"{host}:{port}",
            hint="choose another --port or --host",
        ) from error
    with listening:
        yield listening


@contextmanager
def _sigterm_ends_well() -> Iterator[None]:
    """Exit with 0 after SIGTERM: uvicorn sends itself the signal again once all requests are answered."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def open_server(path: Path, settings: ServeSettings, *, base: str | None = None) -> Server:
    """The parts of a server over a project or an export.

    Args:
        path: the project, or the folder that `melo export` wrote.
        settings: where and how it is served.
        base: folder or hub id of the base model, if it has moved since the project was made.

    Raises:
        MeloError: as `serve`.
    """
    record = export_record(path)
    if record is None or record["format"] == "routed":
        return make_server(open_project(path, base=base), settings)
    if record["format"] == "peft":
        return _make_export_server(path, record, settings, base)
    raise ServeError(
        f"an export in the format {record['format']} is not served",
        where=str(path),
        hint="serve the project, or export it with --format routed or peft",
    )


def make_server(opened: OpenProject, settings: ServeSettings) -> Server:
    """The parts of a server over an open project.

    Raises:
        ModelError: the model writes no text, or answers of it cannot be written together.
    """
    _require_text(opened.routed.base.kind, opened.project.path)
    return _server(
        settings,
        engine=_engine(opened, settings),
        routes=ProjectRoutes(over_shared_weights(opened)),
        editor=ProjectEditor(over_shared_weights(opened), settings.threads),
        route_threads=route_threads(opened, settings.threads),
    )


def route_threads(opened: OpenProject, threads: int) -> int:
    """Of `threads`, how many torch reads prompts with: a sentence encoder is as fast with one alone."""
    return 1 if opened.routed.base.encoder is not None else threads


def _make_export_server(
    folder: Path, record: Mapping[str, Any], settings: ServeSettings, base: str | None
) -> Server:
    """The upstream answers with the adapters; with a sentence encoder nothing of the base model is loaded."""
    upstream = settings.upstream
    if upstream is None:
        raise ServeError(
            "adapters alone give no answers",
            where=str(folder),
            hint="name the server that answers with --upstream, or serve the project",
        )
    router = router_of_export(folder, base=base)
    _require_text(router.kind, folder)
    routes = ExportedRoutes(folder, record, router)
    engine = _upstream_engine(upstream, settings, record["project"], routes.copy_adapter)
    return _server(settings, engine=engine, routes=routes, editor=None, route_threads=settings.threads)


def _server(settings: ServeSettings, **parts: Any) -> Server:
    return Server(**parts, limits=settings.limits, keys=settings.keys, shows_route=settings.shows_route)


def _require_text(kind: ModelKind, path: Path) -> None:
    if not kind.generates:
        raise ModelError(
            f"its base model is a {kind.described} and writes no text",
            where=str(path),
            hint="ask it with `melo query`",
        )


def _short_name(opened: OpenProject) -> str:
    """The base model's hub id, or the name of its folder: where it lies is nobody's business."""
    name = opened.routed.base.reference.name_or_path
    return Path(name).name if Path(name).is_absolute() else name


def _engine(opened: OpenProject, settings: ServeSettings) -> Engine:
    limits, upstream = settings.limits, settings.upstream
    if upstream is None:
        name = settings.model_name or _short_name(opened)
        return InsideEngine(
            opened, name, rows=limits.rows, max_tokens=limits.max_tokens, threads=settings.threads
        )
    write = adapter_writer(opened, settings.model_name or opened.routed.base.location)
    return _upstream_engine(upstream, settings, opened.project.name, write)


def _upstream_engine(
    upstream: Upstream, settings: ServeSettings, project: str, write: WriteAdapter
) -> UpstreamEngine:
    return UpstreamEngine(
        upstream.url,
        AdapterFolder(upstream.adapters or user_cache() / "adapters" / project, write),
        model_name=settings.model_name,
        dialect=DIALECTS[upstream.kind],
        key=upstream.key,
        timeout=settings.limits.timeout,
    )
