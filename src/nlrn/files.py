"""Writing files so that no reader ever sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Writes a file under a temporary name beside it, then gives it its name in one step.

    Args:
        path: the file.
        data: its content.
        overwrite: whether an existing file is replaced.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        OSError: the folder cannot be written to. Nothing is left behind.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".nlrn-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
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
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
