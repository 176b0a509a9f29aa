"""The log of a run: a line for each entry, and the same for TensorBoard where it is installed."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files.atomic import finite_json

log = logging.getLogger(__name__)

CHECKPOINT, WEIGHTS, LOG, PICTURES = "checkpoint.safetensors", "model.safetensors", "log.jsonl", "validation"


class RunLog:
    """The log of a run.

    It is opened after the first step, so that a run that cannot take one leaves an earlier run's files alone.

    Args:
        folder: the run's folder, made if it is missing.
        report: function that is called with each entry.
    """

    def __init__(self, folder: Path, report: Callable[[dict[str, Any]], None]) -> None:
        self._folder, self._report = folder, report
        self._opened, self._board = False, None
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, *, anew: bool) -> None:
        """Opens the log if it is not open; `anew` removes the files of an earlier run first."""
        if self._opened:
            return
        if anew:
            _remove_run(self._folder)
        self._opened, self._board = True, _tensorboard(self._folder)

    def write(self, entry: dict[str, Any]) -> None:
        with (self._folder / LOG).open("a") as file:
            file.write(finite_json({**entry, "time": round(time.time(), 1)}) + "\n")
        if self._board is not None:
            psnr = {f"psnr/{level}".rstrip("/"): value for level, value in entry.get("psnr", {}).items()}
            for name, value in {**entry, **psnr}.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, entry["step"])
            self._board.flush()
        self._report(entry)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _remove_run(folder: Path) -> None:
    """Removes the files that an earlier run left in a folder, if there was one."""
    if not (folder / CHECKPOINT).exists():
        return
    for pattern in (CHECKPOINT, WEIGHTS, LOG, f"{PICTURES}/{8 * '[0-9]'}.png", "events.out.tfevents.*"):
        for path in folder.glob(pattern):
            path.unlink()


def _tensorboard(folder: Path) -> Any:
    """A writer of TensorBoard's files, or `None` where it is not installed."""
    try:
        writer: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        return None
    except Exception:  # of versions that do not fit each other
        log.warning("no files for TensorBoard", exc_info=True)
        return None
    return writer(folder)
