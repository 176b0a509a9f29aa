"""The reports of a batch for programs and for later: JSON on standard output, and a log file."""

from __future__ import annotations

import datetime
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from .errors import printable
from .options import os_error, worded

if TYPE_CHECKING:
    from ..batch.events import Event
    from ..batch.job import Job
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
        self._stream, self._seen, self._pixels = stream, Counter[str](), 0

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
        from ..batch.events import Failed, Foreseen, Restored

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
            self._pixels += event.pixels
            entry |= {
                "model": report.model,
                "sigma": None if report.sigma is None else 255 * report.sigma,
                "estimated": report.estimated,
                "seconds": report.seconds,
                "pages": event.pages,
                "megapixels": event.pixels / 1e6,
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
        entry = {"files": dict(self._seen), "megapixels": self._pixels / 1e6, "seconds": seconds}
        self._write({"event": "summary", **entry})

    def close(self) -> None:
        """Says nothing."""

    def _write(self, entry: dict[str, Any]) -> None:
        self._stream.write(json.dumps({"version": VERSION, **entry}) + "\n")
        self._stream.flush()


def logged(events: Iterator[Event], log: TextIO | None) -> Iterator[Event]:
    """The events of a batch, each of which has its line in a log before it is passed on.

    A line has the time, the kind of the event, seconds, source, target, and what there is to say of it, with tabs
    between them. A log that cannot be written is named once on standard error, and the batch goes on.
    """
    for event in events:
        if log is not None:
            try:
                log.write(_log_line(event))
                log.flush()
            except OSError as error:
                print(f"nlrn: the log ends here, the batch goes on: {os_error(error)}", file=sys.stderr)
                log = None
        yield event


def _log_line(event: Event) -> str:
    from ..batch.events import Failed, Restored

    said, seconds = list[str](), "-"
    if isinstance(event, Failed):
        said = [reason_of(event.error)]
    elif isinstance(event, Restored):
        seconds = f"{event.report.seconds:.2f}"
        said = [f"note: {worded(note)}" for note in event.report.notes]
        said += [f"warning: {worded(warning)}" for warning in event.report.warnings]
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    fields = (now, kind_of(event), seconds, event.job.origin, event.job.place, "; ".join(said))
    return "\t".join(printable(field) for field in fields) + "\n"


def kind_of(event: Event) -> str:
    """The word for an event."""
    from ..batch.events import Failed, Restored, Skipped

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
