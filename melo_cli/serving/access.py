"""Who may ask, and who may edit."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import Request

from melo_cli.serving.errors import ApiError
from melo_cli.serving.settings import Keys, is_loopback

PAGE = "/page/"
_OPEN = frozenset(("/", "/health", "/ready"))


class Access:
    """Checks the key of each request.

    Without a key the server is on loopback: there, a page of another site could still ask through the user's
    browser. So the request must name this machine as its host, and a body must say that it is JSON, which
    browsers send to other sites only with their leave.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def require(self, request: Request) -> None:
        """Let a request pass, before its body is read: `/melo/` is for admins, all else for users too.

        Raises:
            ApiError: the key is missing or wrong.
        """
        path = request.scope["path"]
        if path in _OPEN or path.startswith(PAGE):
            return
        if path.startswith("/melo/"):
            self._require(request, self._keys.admins)
        else:
            self._require(request, (*self._keys.users, *self._keys.admins) if self._keys.users else ())

    def _require(self, request: Request, keys: Sequence[str]) -> None:
        if request.method == "POST" and not _is_json(request):
            raise ApiError(415, "send the body as JSON, with the header Content-Type: application/json")
        if not keys:
            if not is_loopback(_host(request)):
                raise ApiError(403, "without a key, this server answers to its own machine alone")
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        # All are compared, each in constant time: the time says nothing of the keys.
        right = [hmac.compare_digest(key.strip().encode(), known.encode()) for known in keys]
        if scheme.lower() != "bearer" or not any(right):
            raise ApiError(
                401,
                "the key is missing or wrong; send it as Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _host(request: Request) -> str:
    """The host that a request names, without its port; empty where the header is none."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
