"""Access to the server: its names, the origin of a page, and the token."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from .limits import Refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What a browser may load without the token; nothing of it is the user's.
PUBLIC = ("/", "/health")
PUBLIC_FOLDER = "/static/"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """The rules of access.

    Args:
        hosts: names and addresses under which the server is reached; loopback is always among them.
        token: the secret of a client, or `None` where none is asked for.
        prefix: the path under which the server is mounted, such as `/nlrn`.
    """

    hosts: Collection[str] = ()
    token: str | None = None
    prefix: str = ""


class Guard:
    """An ASGI application around another one, to which it hands the requests that `Access` allows.

    A page of another site cannot ask, since a browser states the page's origin, and the name under which it reached
    the server: a foreign name that resolves to this machine (DNS rebinding) is refused.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access
        self._hosts = {host.lower() for host in (*LOOPBACK, *access.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a refused request, or passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(Headers(scope=scope), scope["path"])
        if refused is None:
            await self._app(scope, receive, send_with_headers)
            return
        headers = {"www-authenticate": "Bearer"} if refused.status == 401 else None
        answer = JSONResponse(refused.as_json(), refused.status, headers)
        await answer(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers, path: str) -> Refused | None:
        host = headers.get("host", "")
        name = _host_name(host)
        if name not in self._hosts and not _is_address(name):
            names = ", ".join(sorted(self._hosts))
            return Refused(
                421, "this server is not reached under that name", expected=names, got=host[:80] or "no host"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return Refused(403, "a page of another origin must not ask", expected=host, got=origin[:80])
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return Refused(403, "a page of another site must not ask")
        own = path.removeprefix(self._access.prefix) or "/"
        if self._access.token is None or own in PUBLIC or own.startswith(PUBLIC_FOLDER):
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self._access.token.encode()
        ):
            return None
        got = "another one" if given else "none"
        return Refused(401, "the token is missing or wrong", expected="Authorization: Bearer TOKEN", got=got)


def _is_address(name: str) -> bool:
    """True for a numeric address, which nobody can make resolve to another machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
