"""The time that is left of a batch, by how fast it has gone so far, and what would be faster.

A trial before the work would say little: small pictures have other costs than large ones, and what else the machine
does changes while it works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..files.image import Image
    from ..restoration import Restorer, Sigma

# Less time than this is not worth a line.
LONG_JOB_SECONDS = 60.0
# The part of the work that is measured takes at least so long; the first moments are slower than the rest.
MEASURED_SECONDS = 5.0
# Options for the settings of `Restorer.faster_settings`.
FASTER = {
    "ensemble": "no --ensemble",
    "precision": "--precision {}",
    "steps": "--steps {}",
    "window_size": "--window {} (approximate)",
    "model": "--model {}",
    "device": "a CUDA GPU",
}


class Pace:
    """The speed of work that is under way, from when it is first known to be.

    Args:
        clock: seconds that have passed since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def left(self, done: float, total: float = 1.0) -> float | None:
        """Seconds that are left after so much of the work; `None` while too little is known."""
        now = self._clock()
        if self._first is None:
            self._first = now, done
            return None
        seconds, since = now - self._first[0], done - self._first[1]
        if seconds < MEASURED_SECONDS or since <= 0:
            return None
        return (total - done) * seconds / since


class Announcement:
    """The line that says, once, that a batch is long, and what would be faster.

    Args:
        restorer: of the batch.
        sigma: noise level in 8-bit grey levels, `"auto"`, or `None` where nlrn chooses.
        count: number of files.
        pace: of the work.
    """

    def __init__(self, restorer: Restorer, sigma: Sigma | None, count: int, pace: Pace | None = None) -> None:
        self._restorer, self._sigma, self._pace = restorer, sigma, pace or Pace()
        self._count, self._finished = count, 0
        self._shape: tuple[int, ...] | None = None
        self._said = False

    def read(self, image: Image) -> None:
        """Notes the shape of the file that begins."""
        self._shape = image.pixels.shape

    def file(self, restored: bool) -> str | None:
        """The line after a file, which took no time where it was not `restored`; `None` for no line."""
        if restored:
            self._finished += 1
        else:
            self._count -= 1
        return self.at(0.0) if self._count > self._finished else None

    def at(self, fraction: float) -> str | None:
        """The line at this fraction of a file; `None` for no line."""
        seconds = self._pace.left(self._finished + fraction, self._count)
        if self._said or seconds is None or seconds < LONG_JOB_SECONDS:
            return None
        self._said = True
        hints = []
        if self._shape is not None:
            faster = self._restorer.faster_settings(self._shape, self._sigma)
            hints = [FASTER[name].format(value) for name, value in faster.items()]
        hint = f"; faster: {', '.join(hints)}" if hints else ""
        files = self._count - self._finished
        what = f" for {files} files" if files > 1 else ""
        return f"about {duration(seconds)} left{what}{hint}"


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
