"""The time of a run: seconds of training, and what is due after so many of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """The seconds of training, without what lies in `pause`.

    Args:
        seconds: those before, of the parts of the run that are done.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._began = time.perf_counter() - seconds
        self.last_pause = 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Stops the watch within; `last_pause` has the length in seconds."""
        began = time.perf_counter()
        yield
        self.last_pause = time.perf_counter() - began
        self._began += self.last_pause


class Due:
    """An interval that comes due again and again.

    Args:
        interval: in seconds; it may be changed.
        seconds: the reading at which the first interval begins.
    """

    def __init__(self, interval: float, seconds: float) -> None:
        self.interval, self._last = interval, seconds

    def at(self, seconds: float) -> bool:
        """True where it is due at a reading of the watch; the next interval then begins there."""
        if seconds - self._last < self.interval:
            return False
        self._last = seconds
        return True
