"""The report of a batch for programs: JSON on standard output."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from .options import os_error, worded

if TYPE_CHECKING:
    from ..batch.job import Job
    from ..batch.run import Event
    from ..files.image import Image

# The version of the JSON objects; names are added without a new one.
VERSION = 1


class Json:
    """One JSON object a line: one for each file, and a summary.

    Args:
        stream: standard output.
    """

    progress: Callable[[float], None] | None = None

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._seen = stream, Counter[str]()

    def notes(self, notes: Sequence[str]) -> None:
        """Writes notes on the plan."""
        if notes:
            self._write({"event": "plan", "notes": list(notes)})

    def start(self, index: int, job: Job) -> None:
        """Says nothing."""

    def read(self, image: Image, pages: int) -> None:
        """Says nothing."""

    def event(self, event: Event) -> None:
        """Writes what became of a file; sigma is in 8-bit grey levels."""
        from ..batch.run import Failed, Foreseen, Restored

        kind = kind_of(event)
        self._seen[kind] += 1
        entry: dict[str, Any] = {
            "event": kind,
            "source": event.job.origin,
            "target": event.job.place,
        }
        if isinstance(event, Failed):
            entry["reason"] = reason_of(event.error)
        elif isinstance(event, Restored):
            report = event.report
            entry |= {
                "model": report.model,
                "sigma": None if report.sigma is None else 255 * report.sigma,
                "estimated": report.estimated,
                "seconds": report.seconds,
                "pages": event.pages,
                "notes": [worded(note) for note in report.notes],
                "warnings": [worded(warning) for warning in report.warnings],
            }
        elif isinstance(event, Foreseen):
            entry |= {
                "model": event.model,
                "sigma": event.sigma,
                "seconds": event.seconds,
                "pages": event.pages,
            }
        self._write(entry)

    def summary(self, seconds: float) -> None:
        """Writes the number of files of each kind."""
        self._write({"event": "summary", "files": dict(self._seen), "seconds": seconds})

    def close(self) -> None:
        """Says nothing."""

    def _write(self, entry: dict[str, Any]) -> None:
        self._stream.write(json.dumps({"version": VERSION, **entry}) + "\n")
        self._stream.flush()


def kind_of(event: Event) -> str:
    """The word for an event."""
    from ..batch.run import Failed, Restored, Skipped

    if isinstance(event, Skipped):
        return "elsewhere" if event.elsewhere else "done"
    return (
        "restored" if isinstance(event, Restored) else "failed" if isinstance(event, Failed) else "foreseen"
    )


def reason_of(error: Exception) -> str:
    """One line on why a file failed."""
    if isinstance(error, OSError):
        return os_error(error)
    return worded(" ".join(str(error).split())) or type(error).__name__
