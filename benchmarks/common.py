"""What the benchmarks share: timing, peak memory, tables and records."""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nlrn.evaluation.benchmark import provenance
from nlrn.evaluation.chart import Axis
from nlrn.evaluation.series_chart import Series, series_chart
from nlrn.files.images import Image, write_image
from nlrn.ops.nonlocal_attention import dispatch

MIB = 1 << 20
COLORS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (90, 90, 90))
SHORTEST = 0.5  # seconds that are measured at least


@contextmanager
def only(backend: str) -> Iterator[None]:
    """Within, every non-local operation is computed by one backend."""
    refusals, on_request = dispatch.refusals, dispatch.serves_on_request

    def others_refuse(*arguments: object) -> dict[str, str | None]:
        reasons = refusals(*arguments)
        return {
            name: reason if name == backend else "not in this comparison" for name, reason in reasons.items()
        }

    dispatch.refusals, dispatch.serves_on_request = others_refuse, lambda *arguments: False
    try:
        yield
    finally:
        dispatch.refusals, dispatch.serves_on_request = refusals, on_request


def seconds(function: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """The best of some runs and of half a second, after one that warms up."""
    times: list[float] = []
    while len(times) <= repeats or sum(times[1:]) < SHORTEST:
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def peak_memory(function: Callable[[], object], device: torch.device) -> float:
    """MiB that a run holds at most beyond what was held before; on the CPU sampled every millisecond."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    pages, stop, most = Path("/proc/self/statm"), threading.Event(), 0

    def resident() -> int:
        return int(pages.read_text().split()[1]) * 4096

    def watch() -> None:
        nonlocal most
        while not stop.is_set():
            most = max(most, resident())
            time.sleep(0.001)

    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what earlier runs left would hide what this one takes
    before = resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        stop.set()
        watcher.join()
    return max(0, most - before) / MIB


def tell(text: str) -> None:
    """A figure as soon as it is known: tables come at the end, and many of these take minutes."""
    print(text, file=sys.stderr, flush=True)


def show(title: str, rows: list[dict[str, object]]) -> None:
    """A table of all rows; columns are those of the first."""
    table = Table(title=title, box=None)
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row.values()))
    # In a file no wide table is cut.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def write(path: Path, rows: list[dict[str, object]], device: torch.device, about: str) -> None:
    """Appends the rows as JSON lines, each with device, versions, commit and date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for row in rows:
            file.write(json.dumps({**row, **provenance(device, about)}) + "\n")


def plot(path: Path, rows: list[dict[str, object]], name: str, x: str) -> None:
    """Seconds and MiB over `x`, a line for each value of `name`, on logarithmic axes."""
    names = list(dict.fromkeys(row[name] for row in rows))
    charts = []
    for y in ("seconds", "MiB"):
        series = [
            Series(str(one), [(row[x], row[y]) for row in rows if row[name] == one], COLORS[i % len(COLORS)])
            for i, one in enumerate(names)
        ]
        across, up = (sorted(point[i] for one in series for point in one.points) for i in (0, 1))
        axes = (Axis.powers_of_ten(label, v[0], v[-1]) for label, v in ((x, across), (y, up)))
        charts.append(series_chart("", *axes, series))
    write_image(Image(np.concatenate(charts)), path, overwrite=True)
