"""Connections that end when their client is too slow, so that it keeps no place."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# What a client must take of an answer in each period.
LEAST_TAKEN = 64 << 10


class Connection(H11Protocol):
    """A connection whose client has `seconds` for the head of a request, and for each 64 KiB of an answer.

    The body of a request has the time of `Limits.receive_seconds`, which the application measures.
    """

    def __init__(self, *arguments: Any, seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seconds = seconds
        self._head: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the head of a request."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Takes what has come, and waits on if no request, or nothing but the rest of an answered one, has."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels both timers."""
        super().connection_lost(exc)
        for timer in (self._head, self._taking):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """Starts to watch whether the client takes its answer."""
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        """Stops watching."""
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()

    def _watch_head(self) -> None:
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        waits = self.conn.their_state is h11.IDLE or (self.conn.their_state is h11.SEND_BODY and answered)
        if not waits and self._head is not None:
            self._head.cancel()
            self._head = None
        elif waits and self._head is None:
            self._head = self.loop.call_later(self._seconds, self.transport.abort)

    def _watch_taking(self) -> None:
        left = self.transport.get_write_buffer_size()

        def check() -> None:
            if self.transport.get_write_buffer_size() > max(0, left - LEAST_TAKEN):
                self.transport.abort()
            else:
                self._watch_taking()

        self._taking = self.loop.call_later(self._seconds, check)


def connections(seconds: float) -> Any:
    """The protocol for uvicorn's option `http`."""
    return partial(Connection, seconds=seconds)
