"""The web application: its endpoints, and what every request passes on its way to them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from melo_cli.serving.access import PAGE
from melo_cli.serving.errors import ApiError
from melo_cli.serving.melo_api import melo_router
from melo_cli.serving.openai_api import openai_router
from melo_cli.serving.server import Server
from melo_cli.versions import library_versions

_log = logging.getLogger("melo.serve")
_PAGE = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def make_app(server: Server) -> FastAPI:
    """The application that serves a project."""

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        async with server.running():
            yield

    app = FastAPI(
        title="melo",
        version=library_versions()["melo-cli"],
        lifespan=running,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(_Gate, server=server)
    app.include_router(openai_router(server))
    app.include_router(melo_router(server))
    _add_health(app, server)
    _add_page(app)
    _add_errors(app)
    return app


def _add_health(app: FastAPI, server: Server) -> None:
    @app.get("/health", tags=["health"])
    async def health() -> dict[str, str]:
        """Say that the process runs."""
        return {"status": "ok"}

    @app.get("/ready", tags=["health"])
    async def ready() -> dict[str, str]:
        """Say whether requests are answered now."""
        if not await server.engine.is_ready():
            raise ApiError(503, "the engine does not answer", headers={"Retry-After": "1"})
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"])
    async def metrics() -> Response:
        """Give out the counters for Prometheus."""
        return Response(server.metrics.page(), media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI) -> None:
    folder = files("melo_cli.serving") / "page"
    pages = {name: (folder / name).read_bytes() for name in _PAGE}

    def respond(name: str) -> Response:
        return Response(pages[name], media_type=_PAGE[name], headers=_PAGE_HEADERS)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return respond("index.html")

    @app.get(f"{PAGE}{{name}}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in pages:
            raise ApiError(404, "there is no such page")
        return respond(name)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def on_api_error(_request: Request, error: ApiError) -> Response:
        return JSONResponse(error.document(), error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        # The input is left out: it may be a prompt, which has no place in a log of errors.
        field = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{field}: {first['msg']}" if field else str(first["msg"])
        return JSONResponse(ApiError(400, message, param=field or None).document(), 400)

    @app.exception_handler(HTTPException)
    async def on_http_error(_request: Request, error: HTTPException) -> Response:
        failure = ApiError(error.status_code, str(error.detail))
        return JSONResponse(failure.document(), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def on_fault(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse(ApiError(500, f"melo failed: {type(error).__name__}").document(), 500)


class _Gate:
    """Checks keys, then the size of bodies, and counts requests by path and status."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._server.access.require(Request(scope))
            body = await self._body(scope, receive)
            await self._app(scope, _replayed(body, receive), sending)
        except ApiError as error:
            await JSONResponse(error.document(), error.status, error.headers)(scope, receive, sending)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._server.metrics.requests.labels(path, str(status)).inc()

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            ApiError: it is too large.
        """
        limit = self._server.limits.body_bytes
        too_large = ApiError(413, f"the body is larger than {limit} bytes")
        if any(name == b"content-length" and _length(value) > limit for name, value in scope["headers"]):
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return bytes(body)
            body += message.get("body", b"")
            if len(body) > limit:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)


def _length(value: bytes) -> int:
    return int(value) if value.isdigit() else 0


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives out a body that was read already, then whatever comes."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
