"""The events of a batch: one for each file, whether it was restored or not."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from ..restoration import Report, Sigma
from .job import Job

# What may be wrong with one file; the rest of the batch goes on.
FILE_ERRORS = (ValueError, OSError, MemoryError)
# Of a disk without room, or a user without room on it; Windows has no quota of this name.
NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


@dataclass(frozen=True)
class Restored:
    """A file that was restored.

    Args:
        job: the file.
        report: on its restoration.
        pages: their number.
        pixels: of all pages, as they were read.
    """

    job: Job
    report: Report
    pages: int = 1
    pixels: int = 0


@dataclass(frozen=True)
class Failed:
    """A file that was not restored, and the reason."""

    job: Job
    error: Exception

    @property
    def no_room(self) -> bool:
        """True where the disk is full, which ends a batch: the next file would be computed in vain."""
        return isinstance(self.error, OSError) and self.error.errno in NO_ROOM


@dataclass(frozen=True)
class Skipped:
    """A file that an earlier run has restored, or that another run is restoring."""

    job: Job
    elsewhere: bool


@dataclass(frozen=True)
class Foreseen:
    """A forecast for a file.

    Args:
        job: the file.
        model: name of the model.
        sigma: noise level in 8-bit grey levels, `"auto"` where it is estimated, or `None` for a model that takes none
            or where nlrn chooses.
        seconds: about the time that it takes.
        pages: their number.
    """

    job: Job
    model: str
    sigma: Sigma | None
    seconds: float
    pages: int = 1


Event = Restored | Failed | Skipped | Foreseen
