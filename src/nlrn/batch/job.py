"""The jobs of a batch: one file to restore each, and the place of its result."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# The name of a result of standard input in a folder, without the suffix of its format.
STANDARD_INPUT = "standard-input"


def is_remote(name: str | None) -> bool:
    """True for a URL such as `s3://bucket/folder`."""
    return name is not None and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


class PlanError(ValueError):
    """A batch that cannot start; the message is one line for the user."""


@dataclass(frozen=True)
class Job:
    """One file to restore.

    Args:
        source: the file; `-` is standard input.
        target: that of the result; `-` is standard output.
        origin: what the source is called where it comes from, such as a URL; by default as it is.
        place: the same for the target.
    """

    source: Path | Literal["-"]
    target: Path | Literal["-"]
    origin: str = ""
    place: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", self.origin or str(self.source))
        object.__setattr__(self, "place", self.place or str(self.target))

    @property
    def staged(self) -> bool:
        """True where the source or the target is a URL."""
        return is_remote(self.origin) or is_remote(self.place)


@dataclass(frozen=True)
class Work:
    """The jobs of a batch.

    Args:
        jobs: the files to restore.
        notes: what the batch leaves out, in full sentences.
        folder: the output folder, where there is one.
        watched: folders whose files become jobs as they arrive.
    """

    jobs: tuple[Job, ...]
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    watched: tuple[str, ...] = ()

    def make_folders(self) -> None:
        """Makes the folders of the results.

        Raises:
            PlanError: a folder that cannot be made or written to.
        """
        targets = self._local_targets()
        made = [] if self.folder is None else [self.folder, *(target.parent for target in targets)]
        for folder in dict.fromkeys(made):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise PlanError(
                    f"cannot make the output folder {folder}: {error.strerror or error}"
                ) from error
        merged = False
        for folder in dict.fromkeys([*made[:1], *(target.parent for target in targets)]):
            try:
                merged |= _merges_names(folder)
            except OSError as error:
                raise PlanError(f"cannot write to the folder {folder}: {error.strerror or error}") from error
        if merged:
            self._check_names()

    def room_note(self, growth: float = 1) -> str | None:
        """A note where the disk of the results has less room than the inputs take, times a growth."""
        targets = self._local_targets()
        if not targets:
            return None
        needed = 0.0
        for job in self.jobs:
            with contextlib.suppress(OSError):
                needed += 0 if job.source == "-" else growth * job.source.stat().st_size
        folder = next(parent for parent in targets[0].absolute().parents if parent.is_dir())
        usage = shutil.disk_usage(folder)
        if usage.free >= needed or not usage.total:  # a file system without files, such as /proc
            return None
        return (
            f"results as large as the inputs need {_size(needed)}, and {folder} has {_size(usage.free)} free"
        )

    def _local_targets(self) -> list[Path]:
        """The targets that are files on this computer."""
        return [job.target for job in self.jobs if job.target != "-" and not is_remote(job.place)]

    def _check_names(self) -> None:
        """Raises `PlanError` for two results whose names differ only as the file system does not."""
        seen: dict[str, Job] = {}
        for job in self.jobs:
            other = seen.setdefault(unicodedata.normalize("NFC", str(job.target)).casefold(), job)
            if other is not job:
                raise PlanError(
                    f"{other.source} and {job.source} would both be written to {job.target}, "
                    "as this file system does not tell their names apart; give them other names"
                )


def _merges_names(folder: Path) -> bool:
    """True where a folder does not tell upper from lower case; it is written to."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".nlrn-", suffix=".case") as file:
        return os.path.exists(folder / Path(file.name).name.swapcase())


def _size(count: float) -> str:
    """Bytes in words."""
    units = ("bytes", "KB", "MB", "GB", "TB")
    index = min(len(units) - 1, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**index:.3g} {units[index]}"
