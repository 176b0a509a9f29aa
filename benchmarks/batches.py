"""A batch beside a loop over `nlrn.denoise` and beside one process a file, and images of one size together.

    python -m benchmarks.batches --count 24 --size 256 --turns 2
    OMP_WAIT_POLICY=passive python -m benchmarks.batches --busy FILE...     # on Linux

Refuses to report a time before all ways have written the same pixels. The ways take turns; each is a process of its
own, with its start, and the times are the clock's (best of the turns) and the processors'. The clock's say little while
the machine has other work, the processors' leave out what several cores would save.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nlrn import load_model
from nlrn.batch.events import Failed
from nlrn.batch.file_options import FileOptions
from nlrn.batch.job import Job
from nlrn.batch.run import run_batch
from nlrn.restoration import Restorer

LOOP = """
import sys
from pathlib import Path
import nlrn
for path in sorted(Path("in").iterdir()):
    nlrn.denoise(path, sigma=20, model=sys.argv[1], device="cpu", output=Path(sys.argv[2]) / path.name)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nlrn-small-gray")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--ways", default="batch,jobs,loop,process a file,together")
    parser.add_argument(
        "--busy", nargs="+", type=Path, help="measure only how busy these files keep two cores"
    )
    arguments = parser.parse_args()
    if arguments.busy:
        measure_busy(arguments.busy, None if arguments.model == "default" else arguments.model)
        return
    ways = arguments.ways.split(",")
    if ways != ["together"]:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            make_pictures(place / "in", arguments.count, arguments.size)
            compare(place, arguments, ways)
    if "together" in ways:
        compare_together(arguments.model, arguments.size, arguments.turns)


def make_pictures(folder: Path, count: int, size: int) -> None:
    """Writes grey pictures of one size: gradients with noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    for number in range(count):
        clean = 128 + 60 * np.sin(7 * rows + number) * np.cos(5 * columns)
        noisy = np.clip(clean + rng.normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:05}.png")


def compare(place: Path, arguments: argparse.Namespace, ways: list[str]) -> None:
    """Times the ways in turns, and prints each beside the batch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options = ["--sigma", "20", "--model", arguments.model, "--device", "cpu"]
    nlrn = [sys.executable, "-m", "nlrn", "denoise"]
    names = sorted(path.name for path in (place / "in").iterdir())
    commands: dict[str, Callable[[str], list[list[str]]]] = {
        "batch": lambda out: [[*nlrn, "in", "-o", out, *options]],
        "jobs": lambda out: [[*nlrn, "in", "-o", out, *options, "--jobs", str(cores)]],
        "loop": lambda out: [[sys.executable, "-c", LOOP, arguments.model, out]],
        "process a file": lambda out: [[*nlrn, f"in/{n}", "-o", f"{out}/{n}", *options] for n in names],
    }
    wall: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    expected: dict[str, np.ndarray] | None = None
    for turn in range(arguments.turns):
        for way, command in commands.items():
            if way not in ways:
                continue
            out = f"{way.replace(' ', '-')}-{turn}"
            (place / out).mkdir()
            before, started = children(), time.perf_counter()
            for words in command(out):
                subprocess.run(words, cwd=place, check=True, stderr=subprocess.DEVNULL)
            wall.setdefault(way, []).append(time.perf_counter() - started)
            processor.setdefault(way, []).append(children() - before)
            found = {name: np.asarray(Image.open(place / out / name)) for name in names}
            expected = expected or found
            if any((found[name] != expected[name]).any() for name in names):
                raise SystemExit(f"{way} has written other pixels than {ways[0]}")
    print(f"{len(names)} images of {arguments.size}x{arguments.size}, {arguments.model}, {cores} cores")
    first = next(iter(wall))
    for way in wall:
        clock, used = min(wall[way]), min(processor[way])
        print(
            f"{way:15} {clock:7.1f} s by the clock, {used:7.1f} s of processors, "
            f"{clock / min(wall[first]):.2f} and {used / min(processor[first]):.2f} times {first}, "
            f"{len(names) / clock:.2f} files a second"
        )
    print(f"load: {', '.join(f'{one:.1f}' for one in os.getloadavg())}")


def children() -> float:
    """Seconds of processors that the ended children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@torch.inference_mode()
def compare_together(name: str, size: int, turns: int, count: int = 4) -> None:
    """Times images one by one and together through the network, on one thread."""
    torch.set_num_threads(1)
    model = load_model(name)
    images = torch.rand(
        count, model.info.channels or 1, size, size, generator=torch.Generator().manual_seed(0)
    )
    sigma = None if model.info.sigma_range is None else torch.full((count,), 20 / 255)

    def one_by_one() -> torch.Tensor:
        levels = [None] * count if sigma is None else sigma.split(1)
        return torch.cat([model(*pair) for pair in zip(images.split(1), levels, strict=True)])

    def together() -> torch.Tensor:
        return model(images, sigma)

    difference = (one_by_one() - together()).abs().max().item()
    if not difference <= 1e-5:
        raise SystemExit(f"images together differ from images one by one by {difference:.1e}")
    seconds: dict[str, list[float]] = {"one by one": [], "together": []}
    for _ in range(turns):
        for way, run in (("one by one", one_by_one), ("together", together)):
            started = time.process_time()
            run()
            seconds[way].append(time.process_time() - started)
    alone, joined = min(seconds["one by one"]), min(seconds["together"])
    print(
        f"{count} images of {size}x{size} through the network: one by one {alone:.2f} s, together {joined:.2f} s "
        f"of a processor, ratio {joined / alone:.3f}, difference {difference:.1e}"
    )


def measure_busy(paths: list[Path], model: str | None) -> None:
    """Prints how busy a batch of two threads keeps two cores: right on a machine without other work alone.

    Threads that wait must not use a processor (OMP_WAIT_POLICY=passive).
    """
    torch.set_num_threads(2)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        jobs = tuple(Job(path, Path(folder) / f"{i}{path.suffix}") for i, path in enumerate(paths))
        used, clock = time.process_time(), time.perf_counter()
        restorer = Restorer(model, device="cpu")
        events = list(run_batch(jobs, restorer, FileOptions(None, 95, False)))
        used, clock = time.process_time() - used, time.perf_counter() - clock
    for event in events:
        if isinstance(event, Failed):
            raise SystemExit(f"{event.job.origin}: {event.error}")
    print(
        f"{len(paths)} files: {used:.1f} s of processors in {clock:.1f} s, two cores busy to {used / 2 / clock:.1%}; "
        f"load before: {load:.1f}"
    )


if __name__ == "__main__":
    main()
