"""An exported network in onnxruntime beside PyTorch: processor time on one thread, and memory.

    python -m benchmarks.onnx_runtime nlrn-small-gray --size 256

Refuses to report a time before the numbers match. Both run in turns; the time is the processor's, since a machine with
other work stretches the clock's. Memory is what the peak of the process grows by in the first run of onnxruntime, which
comes before PyTorch's.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch

from nlrn import load_model
from nlrn.interop.onnx import TOLERANCE, export_onnx, sample_image


def peak_mebibytes() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(arguments.model, Path(folder) / "model.onnx").path
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    shape = (1, model.info.channels or 1, arguments.size, arguments.size)
    image = sample_image(shape, torch.Generator().manual_seed(0))
    feeds, sigma = {"image": image.numpy()}, None
    if model.info.sigma_range is not None:
        sigma = torch.tensor([25 / 255])
        feeds["sigma"] = sigma.numpy()
    before = peak_mebibytes()
    (restored,) = session.run(None, feeds)
    memory = peak_mebibytes() - before
    difference = (torch.from_numpy(restored) - model(image, sigma)).abs().max().item()
    if not difference <= TOLERANCE:
        raise SystemExit(f"onnxruntime differs from PyTorch by {difference:.1e}")
    seconds = {"onnxruntime": [], "pytorch": []}
    for _ in range(arguments.turns):
        for name, run in (
            ("onnxruntime", lambda: session.run(None, feeds)),
            ("pytorch", lambda: model(image, sigma)),
        ):
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    own, other = min(seconds["onnxruntime"]), min(seconds["pytorch"])
    print(
        f"{arguments.model} {arguments.size}x{arguments.size}: onnxruntime {onnxruntime.__version__} {own:.2f} s, "
        f"torch {torch.__version__} {other:.2f} s, ratio {own / other:.1f}, {memory:.0f} MiB more, "
        f"difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()
