"""The progress bar of a batch on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .errors import printable

PROGRESS_AFTER_SECONDS = 2.0


class ProgressBar:
    """A progress bar on a terminal's standard error, for work of more than two seconds; elsewhere nothing."""

    def __init__(self, console: Console, count: int) -> None:
        self._console, self._count = console, count
        self._bar: Progress | None = None
        self._started = time.perf_counter()
        self._index, self._name, self._fraction = 0, "", 0.0
        self.pages, self.pixels = 1, 0  # of the file at hand
        self._done, self._failed = 0, 0  # pixels and files
        self.progress: Callable[[float], None] | None = self._update if console.is_terminal else None

    def file(self, index: int, name: str) -> None:
        """Notes which file begins."""
        self._index, self._name, self._fraction = index, printable(name), 0.0
        self.pages, self.pixels = 1, 0

    def done(self, count: int, name: str, pixels: int = 0, failed: bool = False) -> None:
        """Notes that so many files are done, the last of which is named and had so many pixels."""
        self._done += pixels
        self._failed += failed
        if count > self._index:  # otherwise the next one is at hand already
            self._index, self._name, self._fraction = count, printable(name), 0.0
            self.pages, self.pixels = 1, 0
        if self.progress is not None and self._count and count < self._count:
            self._update(self._fraction)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _update(self, fraction: float) -> None:
        self._fraction = fraction
        if self._bar is None:
            if time.perf_counter() - self._started < PROGRESS_AFTER_SECONDS:
                return
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%{task.fields[so_far]}", markup=False),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._bar.add_task("", total=1.0, so_far="")
        task = self._bar.task_ids[0]
        name = (
            self._name
            if self._count == 1
            else f"{min(self._index + 1, self._count)}/{self._count} {self._name}"
        )
        if self.pages > 1:
            name += f", page {min(int(fraction * self.pages) + 1, self.pages)} of {self.pages}"
        completed = (self._index + fraction) / self._count
        so_far = self._so_far(fraction) if self._count > 1 else ""
        self._bar.update(task, completed=completed, description=name, so_far=so_far)

    def _so_far(self, fraction: float) -> str:
        """The pixels that are done, how many a second, and the files that failed, after a comma."""
        pixels = self._done + fraction * self.pixels
        seconds = time.perf_counter() - self._started
        failed = f", {self._failed} failed" if self._failed else ""
        return f", {millions(pixels)} MP, {millions(pixels / seconds)} MP/s{failed}"


def millions(count: float) -> str:
    """A number in millions, with two digits at least."""
    value = count / 1e6
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"
