"""Estimates of the time that is left, by a clock of their own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from nlrn.cli.pace import Announcement, Pace, duration
from nlrn.files.image import Image


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(clock: Clock, line, seconds: list[tuple[float, float]]) -> list[str]:
    """The lines of work that has reached fractions at times."""
    said = []
    for now, fraction in seconds:
        clock.now = now
        said.append(line(fraction))
    return [one for one in said if one is not None]


def announcement(clock: Clock, count: int = 1) -> Announcement:
    restorer = SimpleNamespace(faster_settings=lambda shape, sigma: {"steps": 4})
    found = Announcement(restorer, None, count, Pace(clock))
    found.read(Image(np.zeros((4, 5), np.uint8)))
    return found


@pytest.mark.parametrize("total", [20.0, 200.0, 4000.0])
@pytest.mark.parametrize("warm_up", [0.0, 3.0])
def test_the_time_left_is_right_from_the_first_line(total, warm_up):
    """Whatever it took until the first rows."""
    clock, places = Clock(), np.linspace(0.001, 1, 997)
    pace, checked = Pace(clock), 0
    for fraction in places:
        clock.now = warm_up + fraction * total
        left = pace.left(fraction)
        if left is not None:
            checked += 1
            assert left == pytest.approx(total * (1 - fraction), abs=1e-6)
    assert checked > 600
    assert Pace(clock).left(0.5) is None


def test_nothing_is_said_of_nothing():
    clock = Clock()
    pace = Pace(clock)
    assert pace.left(0.1) is None
    clock.now = 100
    assert pace.left(0.1) is None  # no row has come since
    clock.now = 101
    assert pace.left(0.2) == pytest.approx(101 * 8)


def test_one_line_and_only_of_long_work():
    clock = Clock()
    steady = [(second, second / 600) for second in range(1, 601)]
    (line,) = run(clock, announcement(clock).at, steady)
    assert line == "about 10 minutes left; faster: --steps 4"
    assert run(clock, announcement(clock).at, [(second, second / 60) for second in range(61)]) == []


def test_work_that_becomes_slow():
    """Other work has begun on the machine: what is measured says so, and not the first seconds."""
    clock = Clock()
    quick = [(second, second / 40) for second in range(1, 21)]
    slow = [(20 + second, 0.5 + second / 1000) for second in range(1, 100)]
    (line,) = run(clock, announcement(clock).at, quick + slow)
    assert "left" in line


def test_a_batch_counts_what_it_has_to_do():
    """Files that are done already take no time, and count for nothing."""
    clock, lines = Clock(), []
    batch = announcement(clock, 30)
    for index in range(30):
        skipped = index < 5 or 6 < index < 12
        clock.now += 0.001 if skipped else 6
        lines.append(batch.file(restored=not skipped))
    said = [line for line in lines if line is not None]
    # The first line comes after the first file that took time, when it seems that 24 are left.
    assert said == ["about 2 minutes left for 24 files; faster: --steps 4"]


def test_units():
    assert [duration(x) for x in (4, 89, 90, 5000, 7200)] == [
        "4 seconds",
        "89 seconds",
        "2 minutes",
        "83 minutes",
        "2.0 hours",
    ]
