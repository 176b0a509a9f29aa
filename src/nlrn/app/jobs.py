"""A job: an order, the upload it is for, and what has become of it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .limits import Refused
from .order import Order
from .work import Result

State = Literal["queued", "running", "done", "failed", "cancelled"]
FINAL: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(eq=False)
class Job:
    """A job; the engine alone changes it.

    Args:
        order: what is to be done.
        upload: the file's content, until the work is over.
        id: a name that cannot be guessed.
        state: what has become of it.
        fraction: the part that is done, 0 to 1.
        result: the restored file of a job that is done.
        error: the reason of a job that failed.
        seconds: time that the work took so far.
    """

    order: Order
    upload: bytes | None = field(repr=False)
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "queued"
    fraction: float = 0.0
    result: Result | None = None
    error: Refused | None = None
    seconds: float = 0.0
    deadline: float = float("inf")
    stop: threading.Event = field(default_factory=threading.Event)
    _listeners: set[Callable[[], None]] = field(default_factory=set)

    @property
    def finished(self) -> bool:
        """True if nothing more will happen."""
        return self.state in FINAL

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every change, in the thread that made it."""
        self._listeners = self._listeners | {listener}

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Ends `listen`."""
        self._listeners = self._listeners - {listener}

    def changed(self) -> None:
        """Tells the listeners."""
        for listener in self._listeners:
            listener()

    def as_json(self, position: int | None = None) -> dict[str, Any]:
        """The state of the job for a client; `position` is the number of jobs before it."""
        body: dict[str, Any] = {
            "id": self.id,
            "task": self.order.task,
            "state": self.state,
            "progress": round(self.fraction, 4),
            "seconds": round(self.seconds, 3),
        }
        if position is not None:
            body["position"] = position
        if self.error is not None:
            body |= self.error.as_json()
        if self.result is not None:
            body["result"] = describe(self.result)
        return body


def describe(result: Result) -> dict[str, Any]:
    """A result without its content; the noise level is in 8-bit grey levels."""
    report = result.report
    return {
        "media_type": result.media_type,
        "bytes": len(result.data),
        "width": result.width,
        "height": result.height,
        "model": report.model,
        "sigma": None if report.sigma is None else round(255 * report.sigma, 3),
        "sigma_estimated": report.estimated,
        "seconds": round(report.seconds, 3),
        "notes": list(report.notes),
        "warnings": list(report.warnings),
    }


class Watch:
    """The progress of a job that is worked on: passes it on a few times a second, and stops the work by raising."""

    PERIOD = 0.05

    def __init__(self, job: Job) -> None:
        self._job = job
        self._started = time.monotonic()
        self._told = 0.0

    def __call__(self, fraction: float) -> None:
        """Notes the fraction done.

        Raises:
            Stopped: the job was cancelled, or is out of time.
        """
        job, now = self._job, time.monotonic()
        job.seconds = now - self._started
        if job.stop.is_set() or now > job.deadline:
            raise Stopped
        job.fraction = max(job.fraction, min(fraction, 1.0))
        if now - self._told >= self.PERIOD:
            self._told = now
            job.changed()


class Stopped(Exception):
    """The work on a job stops before its end."""
