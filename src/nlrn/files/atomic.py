"""Files that no reader ever sees half written, and JSON that every reader understands."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Seconds after which a temporary file of another computer counts as abandoned.
ABANDONED_AFTER = 86400.0


def finite_json(value: object, indent: int | None = None) -> str:
    """JSON of numbers, texts, lists and dictionaries, in which a number that is NaN or infinite is null."""

    def finite(part: object) -> object:
        if isinstance(part, dict):
            return {name: finite(entry) for name, entry in part.items()}
        if isinstance(part, list | tuple):
            return [finite(entry) for entry in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(finite(value), indent=indent, allow_nan=False)


def check_name(path: Path) -> None:
    """Raises `OSError` for a name under which no file can be: too long, or below a folder that cannot be entered."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return


def write_atomically(
    path: Path, data: bytes, *, overwrite: bool, mode: int | None = None, modified: int | None = None
) -> None:
    """Writes a file as a whole; arguments and errors are those of `replacing`."""
    with replacing(path, overwrite=overwrite, mode=mode, modified=modified) as file:
        file.write(data)


def temporary_beside(path: Path) -> Path:
    """A name for a file that is not complete, which says what computer and process it is of."""
    return path.parent / f".nlrn-{_this_computer()}-{os.getpid()}-{secrets.token_hex(8)}.part"


@contextlib.contextmanager
def replacing(
    path: Path, *, overwrite: bool, mode: int | None = None, modified: int | None = None
) -> Iterator[BinaryIO]:
    """A new file under a temporary name beside `path`, which gets its name in one step when it is complete.

    Args:
        path: the file.
        overwrite: whether an existing file is replaced.
        mode: permissions; by default what the process gives to new files.
        modified: time of the last change in nanoseconds since 1970, in place of now.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        OSError: the folder cannot be written to; it names `path`. Nothing is left behind, nor after another error.
    """
    temporary = temporary_beside(path)
    try:
        # Not by `tempfile`, whose files nobody else may read.
        with temporary.open("x+b") as file:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if modified is not None:
            os.utime(temporary, ns=(time.time_ns(), modified))
        if overwrite:
            os.replace(temporary, path)
            return
        try:
            os.link(temporary, path)  # unlike a rename, this fails where a file has come meanwhile
        except FileExistsError:
            raise FileExistsError(f"{path} exists") from None
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise FileExistsError(f"{path} exists") from None
            os.replace(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        # It names a temporary file that nobody asked for.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # where it was never made, or has its name already
            temporary.unlink()


def remove_abandoned(folder: Path) -> None:
    """Removes the temporary files of `replacing` whose process has ended, in a folder and below.

    Of a process on another computer it is not known whether it has ended: its files are left for a day.
    """
    for path in folder.rglob(".nlrn-*-*-*.part"):
        _, computer, pid, _ = path.name.split("-", 3)
        with contextlib.suppress(OSError):
            if computer == _this_computer():
                ended = pid.isdigit() and not _is_running(int(pid))
            else:
                ended = time.time() - path.stat().st_mtime > ABANDONED_AFTER
            if ended:
                path.unlink()


@functools.cache
def _this_computer() -> str:
    """A few letters by which computers that share a file system differ."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    if sys.platform == "linux":
        return Path(f"/proc/{pid}").exists()
    import psutil

    return bool(psutil.pid_exists(pid))
