"""PSNR against time: the grey denoisers of nlrn with every head, and others, in one run on this machine.

    python -m benchmarks.frontier --data DIR --out results

`DIR` holds BSD68, on which PSNR at sigma 25 is measured for nlrn's own models. The others' PSNR is the published one,
and their times are those of their architectures with random weights (`benchmarks/peers.py`). Times are for 256x256
pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from nlrn import load_model
from nlrn.evaluation.benchmark import measure
from nlrn.evaluation.protocol import DataSet
from nlrn.inference import restore
from nlrn.models.zoo import MODELS

from .common import seconds, show, tell, write
from .peers import PEERS

SIDE, SIGMA = 256, 25
BM3D_PSNR = 28.57  # published, BSD68 at sigma 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds BSD68")
    parser.add_argument("--out", type=Path, help="folder for frontier.jsonl and frontier.png")
    parser.add_argument("--images", type=int, default=68, help="the first of BSD68, for a quick look")
    options = parser.parse_args()
    device = torch.device("cpu")
    dataset = DataSet.find(options.data, "BSD68")
    dataset = DataSet(dataset.name, dataset.files[: options.images])
    image = torch.rand(1, 1, SIDE, SIDE)
    rows: list[dict[str, object]] = []

    def add(name: str, psnr: float, source: str, run) -> None:
        took = seconds(run, device, repeats=5)
        rows.append({"method": name, "PSNR": psnr, "PSNR from": source, "seconds": took})
        tell(f"{name}: {psnr:.2f} dB, {took:.3f} s")

    for name, entry in MODELS.items():
        if (entry.task, entry.channels) != ("denoise", 1):
            continue
        model = load_model(name)
        for steps in entry.steps:
            for precision in (torch.float32, torch.bfloat16):
                suffix = ", bfloat16" if precision is torch.bfloat16 else ""
                result = measure(
                    model, name, dataset, SIGMA, channels=1, device=device, steps=steps, precision=precision
                )

                def run(model=model, steps=steps, precision=precision) -> object:
                    return restore(model, image, SIGMA / 255, steps=steps, precision=precision)

                add(f"{name}, {steps} steps{suffix}", result.psnr, "measured", run)
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
        write(options.out / "frontier.jsonl", rows, device, f"BSD68, sigma {SIGMA}, {SIDE}x{SIDE}")
        plot(options.out / "frontier.png", rows)


def plot(path: Path, rows: list[dict[str, object]]) -> None:
    """PSNR over seconds; the heads of a model are joined. Only with matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print(f"no {path}: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), constrained_layout=True)
    own: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        name, point = str(row["method"]), (row["seconds"], row["PSNR"])
        if row["PSNR from"] == "measured":
            model = name.split(",")[0] + (", bfloat16" if name.endswith("bfloat16") else "")
            own.setdefault(model, []).append(point)
        else:
            axes.plot(*point, "ks", markersize=4)
            axes.annotate(name, point, xytext=(5, -3), textcoords="offset points", fontsize=8)
    for model, points in own.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=model)
    axes.set(
        xscale="log",
        xlabel=f"seconds for {SIDE}x{SIDE}",
        ylabel=f"PSNR in dB, BSD68, sigma {SIGMA}",
    )
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
