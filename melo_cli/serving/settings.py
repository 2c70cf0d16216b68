"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from melo_cli.errors import ServeError


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one client from taking all of a server.

    Attributes:
        body_bytes: largest body of a request.
        max_tokens: longest answer that a request may ask for.
        prompts: most prompts in one request, times the answers wanted of each.
        rows: most answers that are written together.
        queue: most requests at once, those that wait among them; others get 429.
        timeout: seconds after which a request is given up.
    """

    body_bytes: int = 2**20
    max_tokens: int = 1024
    prompts: int = 128
    rows: int = 32
    queue: int = 256
    timeout: float = 600.0


@dataclass(frozen=True)
class Keys:
    """The keys that requests carry as `Authorization: Bearer KEY`.

    Attributes:
        users: for `/v1/`; empty if anybody may ask.
        admins: for `/melo/` too; empty if anybody may edit, which is allowed on loopback alone.
    """

    users: tuple[str, ...] = ()
    admins: tuple[str, ...] = ()


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def require_keys(host: str, keys: Keys) -> None:
    """Refuse to listen to other machines without keys.

    Raises:
        ServeError: the host is not a loopback address, and there is no key for users or none for admins.
    """
    if is_loopback(host):
        return
    missing = [name for name, some in (("users", keys.users), ("admins", keys.admins)) if not some]
    if missing:
        raise ServeError(
            f"it would be open to other machines without a key for {' and '.join(missing)}",
            where=f"--host {host}",
            hint="set MELO_API_KEY and MELO_ADMIN_KEY, or give --api-key-file and --admin-key-file",
        )
