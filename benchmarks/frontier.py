"""PSNR against time: the grey denoisers of nlrn with every head, and others, in one run on this machine.

    python -m benchmarks.frontier --data DIR --out results

`DIR` holds BSD68, on which PSNR at sigma 25 is measured for nlrn's own models. The others' PSNR is the published one,
and their times are those of their architectures with random weights (`benchmarks/peers.py`). Times are for 256x256
pixels. PSNR that `results/psnr.json` has from an earlier run for the same weights is not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from nlrn import load_model
from nlrn.evaluation.benchmark import measure
from nlrn.evaluation.chart import Axis
from nlrn.evaluation.protocol import DataSet
from nlrn.evaluation.series_chart import Series, series_chart
from nlrn.files.images import Image, write_image
from nlrn.inference import restore
from nlrn.models.zoo import MODELS

from .common import COLORS, seconds, show, tell, write
from .peers import PEERS

SIDE, SIGMA = 256, 25
CPU = torch.device("cpu")
BM3D_PSNR = 28.57  # published, BSD68 at sigma 25
OTHER = (0, 0, 0)


def own_figures(dataset: DataSet, known: Path | None) -> dict[str, float]:
    """PSNR of every grey denoiser, head and precision; what `known` has for the same weights and images is kept."""
    kept: dict[str, float] = json.loads(known.read_text()) if known and known.is_file() else {}
    figures = {}
    for name, steps, precision in own_methods():
        key = f"{label(name, steps, precision)}, {MODELS[name].sha256[:12]}, {len(dataset.files)} images"
        if key not in kept:
            result = measure(
                load_model(name),
                name,
                dataset,
                SIGMA,
                channels=1,
                steps=steps,
                precision=precision,
                device=CPU,
            )
            kept[key] = result.psnr
            tell(f"{key}: {result.psnr:.2f} dB")
            if known:
                known.parent.mkdir(parents=True, exist_ok=True)
                known.write_text(json.dumps(kept, indent=1))
        figures[label(name, steps, precision)] = kept[key]
    return figures


def own_methods() -> Iterator[tuple[str, int, torch.dtype]]:
    """The names, steps and precisions of the grey denoisers of nlrn."""
    for name, entry in MODELS.items():
        if (entry.task, entry.channels) == ("denoise", 1):
            yield from ((name, steps, p) for steps in entry.steps for p in (torch.float32, torch.bfloat16))


def label(name: str, steps: int, precision: torch.dtype) -> str:
    """The name of a row."""
    return f"{name}, {steps} steps{', bfloat16' if precision is torch.bfloat16 else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds BSD68")
    parser.add_argument("--out", type=Path, help="folder for frontier.jsonl, frontier.png and psnr.json")
    parser.add_argument("--images", type=int, default=68, help="the first of BSD68, for a quick look")
    options = parser.parse_args()
    dataset = DataSet.find(options.data, "BSD68")
    dataset = DataSet(dataset.name, dataset.files[: options.images])
    image = torch.rand(1, 1, SIDE, SIDE)
    rows: list[dict[str, object]] = []
    # First all figures, which need no quiet machine, then all times.
    figures = own_figures(dataset, options.out and options.out / "psnr.json")

    def add(name: str, psnr: float, source: str, run) -> None:
        took = seconds(run, CPU, repeats=5)
        rows.append({"method": name, "PSNR": psnr, "PSNR from": source, "seconds": took})
        tell(f"{name}: {psnr:.2f} dB, {took:.3f} s")

    for name, steps, precision in own_methods():
        model = load_model(name)

        def run(model=model, steps=steps, precision=precision) -> object:
            return restore(model, image, SIGMA / 255, steps=steps, precision=precision)

        add(label(name, steps, precision), figures[label(name, steps, precision)], "measured", run)
    bm3d = load_model("bm3d")
    add("BM3D (ours)", BM3D_PSNR, "published", lambda: bm3d(image, SIGMA / 255))
    for name, peer in PEERS.items():
        network = peer.build().eval().requires_grad_(False)
        network.to(memory_format=torch.channels_last)

        def run(network=network) -> object:
            with torch.no_grad():
                return network(image)

        add(name, peer.psnr, "published", run)
    best = 0.0
    for row in sorted(rows, key=lambda row: (row["seconds"], -row["PSNR"])):
        # On the frontier: nothing faster is as accurate.
        row["frontier"] = "*" if row["PSNR"] > best else ""
        best = max(best, row["PSNR"])
    show(f"BSD68 at sigma {SIGMA}, seconds for {SIDE}x{SIDE}, {torch.get_num_threads()} threads", rows)
    if options.out:
        write(options.out / "frontier.jsonl", rows, CPU, f"BSD68, sigma {SIGMA}, {SIDE}x{SIDE}")
        plot(options.out / "frontier.png", rows)


def plot(path: Path, rows: list[dict[str, object]]) -> None:
    """PSNR over seconds: a colour for each of nlrn's networks, its heads joined, and the others black."""
    own: dict[str, list[tuple[float, float]]] = {}
    others = []
    for row in rows:
        name, point = str(row["method"]), (row["seconds"], row["PSNR"])
        if row["PSNR from"] == "measured":
            model = name.split(",")[0] + (", bfloat16" if name.endswith("bfloat16") else "")
            own.setdefault(model, []).append(point)
        else:
            others.append(Series(name, [point], OTHER))
    times, heights = ([row[key] for row in rows] for key in ("seconds", "PSNR"))
    chart = series_chart(
        f"BSD68, sigma {SIGMA}",
        Axis.powers_of_ten(f"seconds for {SIDE}x{SIDE}", min(times), max(times)),
        Axis.linear("PSNR, dB", min(heights), max(heights)),
        [
            *(
                Series(name, points, color)
                for (name, points), color in zip(own.items(), COLORS, strict=False)
            ),
            *others,
        ],
    )
    write_image(Image(chart), path, overwrite=True)


if __name__ == "__main__":
    main()
