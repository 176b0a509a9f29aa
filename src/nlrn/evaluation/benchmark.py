"""A model over image sets and levels of degradation: every image's figures, their means, and how they came about."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files.atomic import finite_json
from ..files.images import from_planes
from ..inference import restore
from ..inference.noise_level import estimate_noise
from ..models.contract import Model, info_of
from ..version import __version__
from .metrics import psnr, ssim
from .protocol import DENOISING, DataSet, Task, Trial, to_bytes

OnImage = Callable[["Result", "ImageResult"], None]


@dataclass(frozen=True)
class ImageResult:
    """One image's figures.

    Args:
        name: name of the file.
        input_psnr: PSNR of the degraded image.
        psnr: PSNR of the restored image, both as 8 bit.
        ssim: likewise.
        seconds: the restoration took.
        exact_psnr: PSNR of the restored image before rounding, against an unrounded reference, if there is one.
    """

    name: str
    input_psnr: float
    psnr: float
    ssim: float
    seconds: float
    exact_psnr: float | None = None


@dataclass
class Result:
    """One model on one set at one level (see `Task`)."""

    dataset: str
    task: str
    level: float | None
    model: str
    steps: int | None
    images: list[ImageResult] = field(default_factory=list)

    @property
    def psnr(self) -> float:
        """Mean of the images' PSNR."""
        return float(np.mean([image.psnr for image in self.images]))

    @property
    def input_psnr(self) -> float:
        """Mean of the degraded images' PSNR."""
        return float(np.mean([image.input_psnr for image in self.images]))

    @property
    def exact_psnr(self) -> float | None:
        """Mean of the images' PSNR without rounding, where there is one."""
        values = [image.exact_psnr for image in self.images if image.exact_psnr is not None]
        return float(np.mean(values)) if values else None

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
    level: float | None,
    *,
    channels: int,
    device: torch.device,
    task: Task = DENOISING,
    steps: int | None = None,
    patches: tuple[int, int] | None = None,
    precision: torch.dtype = torch.float32,
    max_memory: int | None = None,
    on_image: OnImage = lambda result, image: None,
) -> Result:
    """Runs a model over a set at one level of degradation.

    Args:
        model: any restoration method.
        name: its name in tables.
        dataset: clean images.
        level: level of the degradation in the task's units; by default sigma in 8-bit grey levels.
        channels: 1 for grey, 3 for RGB.
        device: the device of the model.
        task: the task to measure.
        steps: head of an NLRN.
        patches: `(size, stride)` of the official patch protocol, `None` for whole images.
        precision: dtype of an NLRN's arithmetic.
        max_memory: bytes for inference.
        on_image: called after each image.
    """
    result = Result(dataset.name, task.name, level, name, steps)
    for index, path in enumerate(dataset.files):
        trial = task.trial(path, channels, level, index)
        sigma = sigma_for(model, trial)
        restored, seconds = run(model, trial.degraded, sigma, device, steps, patches, precision, max_memory)
        image = dataclasses.replace(score(trial, restored), name=path.name, seconds=seconds)
        result.images.append(image)
        on_image(result, image)
    return result


def score(trial: Trial, restored: np.ndarray) -> ImageResult:
    """The figures of a restored `C x H x W`, without name and time."""
    reference = trial.inside(trial.reference)
    output, degraded = (trial.inside(to_bytes(planes)) for planes in (restored, trial.degraded))
    exact = None
    if trial.exact is not None:
        unrounded = from_planes(restored.astype(np.float64), trial.exact.ndim).clip(0, 1)
        exact = psnr(trial.inside(unrounded), trial.inside(trial.exact), 1.0)
    return ImageResult(
        "", psnr(degraded, reference), psnr(output, reference), ssim(output, reference), 0.0, exact
    )


def sigma_for(model: Model, trial: Trial) -> float | None:
    """The noise level for a model, in 8-bit grey levels: the trial's, else an estimate; `None` if it takes none."""
    if info_of(model).sigma_range is None:
        return None
    if trial.sigma is not None:
        return trial.sigma
    return 255 * estimate_noise(torch.from_numpy(trial.degraded)[None]).sigma


def run(
    model: Model,
    degraded: np.ndarray,
    sigma: float | None,
    device: torch.device,
    steps: int | None = None,
    patches: tuple[int, int] | None = None,
    precision: torch.dtype = torch.float32,
    max_memory: int | None = None,
) -> tuple[np.ndarray, float]:
    """The restored `C x H x W` and the seconds it took; sigma in 8-bit grey levels."""
    tensor = torch.from_numpy(degraded)[None].to(device)
    started = time.perf_counter()
    level = None if sigma is None else sigma / 255
    restored = restore(
        model, tensor, level, steps=steps, patches=patches, precision=precision, max_memory=max_memory
    )
    planes = restored[0].cpu().numpy()
    return planes, time.perf_counter() - started


def provenance(device: torch.device, protocol: str) -> dict[str, Any]:
    """Everything that a figure depends on besides model and images."""
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
    """Everything measured, and under which conditions; a PSNR that is infinite, of images without an error, is null."""
    entries = [
        {
            **dataclasses.asdict(result),
            "psnr": result.psnr,
            "input_psnr": result.input_psnr,
            "exact_psnr": result.exact_psnr,
            "ssim": result.ssim,
            "seconds": result.seconds,
        }
        for result in results
    ]
    return finite_json({**about, "results": entries}, indent=1) + "\n"


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
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails where the code is not tracked
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
