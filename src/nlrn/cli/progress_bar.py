"""The progress bar of a batch on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PROGRESS_AFTER_SECONDS = 2.0


class ProgressBar:
    """A progress bar on a terminal's standard error, for work of more than two seconds; elsewhere nothing."""

    def __init__(self, console: Console, count: int) -> None:
        self._console, self._count = console, count
        self._bar: Progress | None = None
        self._started = time.perf_counter()
        self._index, self._name = 0, ""
        self.pages = 1  # of the file at hand
        self.progress: Callable[[float], None] | None = self._update if console.is_terminal else None

    def file(self, index: int, name: str) -> None:
        """Notes which file begins."""
        self._index, self._name = index, name

    def done(self, count: int, name: str) -> None:
        """Notes that so many files are done, the last of which is named."""
        self._index, self._name = count, name
        if self.progress is not None and self._count and count < self._count:
            self._update(0.0)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _update(self, fraction: float) -> None:
        if self._bar is None:
            if time.perf_counter() - self._started < PROGRESS_AFTER_SECONDS:
                return
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._bar.add_task("", total=1.0)
        task = self._bar.task_ids[0]
        name = (
            self._name
            if self._count == 1
            else f"{min(self._index + 1, self._count)}/{self._count} {self._name}"
        )
        if self.pages > 1:
            name += f", page {min(int(fraction * self.pages) + 1, self.pages)} of {self.pages}"
        self._bar.update(task, completed=(self._index + fraction) / self._count, description=name)
