"""Work that lasts as long as a test wants it to."""

from __future__ import annotations

import threading
import time

import pytest

from nlrn.app import engine as engine_module
from nlrn.app.work import restore_file


def wait(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


class Slow:
    """Work of as many steps as a test lets it take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int = 10**6) -> None:
        self.begun, self.let_go, self.steps_done = threading.Event(), threading.Event(), 0

        def work(order, upload, restorers, progress):
            self.begun.set()
            for step in range(steps):
                self.steps_done = step
                progress(step / steps)
                if self.let_go.wait(0.005):
                    return restore_file(order, upload, restorers, progress)
            raise AssertionError("nobody stopped the work")

        monkeypatch.setattr(engine_module, "restore_file", work)
