"""Counts the answers of an application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Match, Route

from .metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Counting:
    """Counts the answers of an ASGI application by route, so that clients cannot make up labels."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Sequence[BaseRoute], prefix: str) -> None:
        self._app, self._metrics, self._prefix = app, metrics, prefix
        self._routes = [route for route in routes if isinstance(route, Route)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on and counts its answer."""
        own = dict(scope, path=scope["path"].removeprefix(self._prefix))
        label = next((r.path for r in self._routes if r.matches(own)[0] is not Match.NONE), "other")

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests[label, message["status"]] += 1
            await send(message)

        await self._app(scope, receive, counted)
