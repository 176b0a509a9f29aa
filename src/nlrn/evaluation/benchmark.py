"""A model over image sets and noise levels: every image's figures, their means, and how they came about."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.datasets import read_planes
from ..inference import Model, restore
from ..version import __version__
from .metrics import psnr, ssim
from .protocol import DataSet, noisy_version, to_bytes

OnImage = Callable[["Result", "ImageResult"], None]


@dataclass(frozen=True)
class ImageResult:
    """One image's figures."""

    name: str
    noisy_psnr: float
    psnr: float
    ssim: float
    seconds: float


@dataclass
class Result:
    """One model on one set at one noise level (8-bit grey levels)."""

    dataset: str
    sigma: float
    model: str
    steps: int | None
    images: list[ImageResult] = field(default_factory=list)

    @property
    def psnr(self) -> float:
        """Mean of the images' PSNR."""
        return float(np.mean([image.psnr for image in self.images]))

    @property
    def noisy_psnr(self) -> float:
        """Mean of the noisy images' PSNR."""
        return float(np.mean([image.noisy_psnr for image in self.images]))

    @property
    def ssim(self) -> float:
        """Mean of the images' SSIM."""
        return float(np.mean([image.ssim for image in self.images]))

    @property
    def seconds(self) -> float:
        """Time of all restorations, without reading and measuring."""
        return sum(image.seconds for image in self.images)


def measure(
    model: Model,
    name: str,
    dataset: DataSet,
    sigma: float,
    *,
    channels: int,
    device: torch.device,
    steps: int | None = None,
    patches: tuple[int, int] | None = None,
    max_memory: int | None = None,
    on_image: OnImage = lambda result, image: None,
) -> Result:
    """Runs a model over a set at one noise level.

    Args:
        model: any restoration method.
        name: what tables call it.
        dataset: clean images.
        sigma: in 8-bit grey levels.
        channels: 1 for grey, 3 for RGB.
        device: where the model is.
        steps: head of an NLRN.
        patches: `(size, stride)` of the official patch protocol, `None` for whole images.
        max_memory: bytes for inference.
        on_image: called after each image.
    """
    result = Result(dataset.name, sigma, name, steps)
    for index, path in enumerate(dataset.files):
        clean = read_planes(path, channels)
        noisy = noisy_version(clean, sigma, index)
        restored, seconds = run(model, noisy, sigma, device, steps, patches, max_memory)
        output = to_bytes(restored)
        image = ImageResult(
            path.name, psnr(to_bytes(noisy), clean), psnr(output, clean), ssim(output, clean), seconds
        )
        result.images.append(image)
        on_image(result, image)
    return result


def run(
    model: Model,
    noisy: np.ndarray,
    sigma: float | None,
    device: torch.device,
    steps: int | None = None,
    patches: tuple[int, int] | None = None,
    max_memory: int | None = None,
) -> tuple[np.ndarray, float]:
    """The restored `C x H x W` and the seconds it took."""
    tensor = torch.from_numpy(noisy)[None].to(device)
    started = time.perf_counter()
    level = None if sigma is None else sigma / 255
    restored = restore(model, tensor, level, steps=steps, patches=patches, max_memory=max_memory)
    planes = restored[0].cpu().numpy()
    return planes, time.perf_counter() - started


def provenance(device: torch.device, protocol: str) -> dict[str, Any]:
    """What a figure depends on besides model and images."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "protocol": protocol,
        "device": name,
        "threads": torch.get_num_threads(),
        "nlrn": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def as_json(results: Sequence[Result], about: dict[str, Any]) -> str:
    """Everything measured, and under which conditions."""
    entries = [
        {
            **dataclasses.asdict(result),
            "psnr": result.psnr,
            "noisy_psnr": result.noisy_psnr,
            "ssim": result.ssim,
            "seconds": result.seconds,
        }
        for result in results
    ]
    return json.dumps({**about, "results": entries}, indent=1) + "\n"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    """The commit of the checkout this code runs from, with a + if it was changed since; `None` elsewhere."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        tracked = git("ls-files", "--error-unmatch", Path(__file__).name)
        return (
            git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
            if tracked
            else None
        )
    except (OSError, subprocess.CalledProcessError):
        return None
