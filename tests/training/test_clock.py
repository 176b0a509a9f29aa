"""The clock of a run: pauses do not count, and what is due comes once an interval."""

from __future__ import annotations

import pytest

from nlrn.training import clock
from nlrn.training.clock import Due, Stopwatch


class Time:
    now = 100.0

    def perf_counter(self):
        return self.now


def test_pauses_do_not_count(monkeypatch):
    time = Time()
    monkeypatch.setattr(clock, "time", time)
    watch = Stopwatch(7.0)
    time.now += 3
    with watch.pause():
        time.now += 20
    time.now += 1
    assert watch.seconds == pytest.approx(11)
    assert watch.last_pause == pytest.approx(20)


def test_due_once_an_interval():
    due = Due(10.0, 5.0)
    assert [seconds for seconds in (5, 14, 15, 16, 24, 26, 40) if due.at(seconds)] == [15, 26, 40]
    due.interval = 3.0
    assert due.at(43.0)
