"""`nlrn.adapt`: a network for the user's own noisy images."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch

from ..inference import Progress, no_progress
from ..inference.devices import pick_device
from ..models.nlrn import NLRN
from ..models.zoo import MODELS, check_task, load_model
from ..restoration import DataRange, Settings, Sigma
from ..restoration.options import HotPixels, Noise
from .noisy import Noisy, Source, noisy_images
from .schedule import Length
from .self_supervised import Adaptation, adapt_to

# By the channels of the images. The larger networks take less time than the small ones.
START = {1: "nlrn-gray", 3: "nlrn-color"}


def adapt(
    images: Source | Sequence[Source],
    sigma: Sigma | None = None,
    *,
    minutes: float = 10.0,
    model: str | Path | None = None,
    pairs: bool = False,
    axes: str | None = None,
    noise: Noise | None = None,
    gain: float | None = None,
    read_noise: float | None = None,
    offset: float | None = None,
    data_range: DataRange | None = None,
    hot_pixels: HotPixels = False,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Adaptation:
    """Adapts a network to noisy images, without a clean one.

    Args:
        images: a path, an array, a tensor or a Pillow image as `denoise` takes them, or a list of these. Of a file all
            pages count. Noise is white or that of a sensor, in every pixel by itself.
        sigma: noise level as `denoise` takes it, one for all; by default estimated from each image or stack.
        minutes: time to learn.
        model: name or weight file to start from; by default `nlrn-color` for RGB images and `nlrn-gray` for others.
        pairs: whether the images are repeated frames of one scene that does not move: those of each stack, or the
            images in their order. Their noise need not be white.
        axes: a letter for each axis of an array, such as `"TYX"`, `"ZYX"` or `"CYX"`, as `denoise` takes them.
        noise, gain, read_noise, offset, data_range, hot_pixels: as `denoise` takes them.
        device: `"auto"`, or a PyTorch device.
        seed: seed of crops and noise.
        progress: called with the fraction done, from 0 to 1.
        clock: a function whose difference is the seconds that count.

    Returns:
        An `Adaptation`: its `model` is for `denoise(..., model=)`, and `save` writes the weight file. Where nothing was
        gained, the model is the one that it started from, and `improved` is false.

    Raises:
        ValueError: no image, a noise that is unknown or not white, a model that takes no noise level, and as `denoise`.
        OSError: a file that cannot be read.

    Source: Pang et al., Recorrupted-to-Recorrupted, doi:10.1109/CVPR46437.2021.00208; with pairs Lehtinen et al.,
        Noise2Noise, ICML 2018.

    Example:
        >>> import numpy as np, nlrn
        >>> noisy = np.random.default_rng(0).normal(0.5, 0.1, (32, 32))
        >>> adaptation = nlrn.adapt(noisy, sigma=0.1, minutes=0.001)
        >>> restored = nlrn.denoise(noisy, sigma=0.1, model=adaptation.model)
    """
    length = Length(minutes=minutes)
    sources: list[Source] = list(images) if isinstance(images, list | tuple) else [cast(Source, images)]
    settings: Settings = {"noise": noise, "gain": gain, "read_noise": read_noise, "offset": offset}
    settings |= {"data_range": data_range, "hot_pixels": hot_pixels}
    chosen = pick_device(device)
    start = None if model is None else _start(model)
    noisy, cautions = noisy_images(sources, sigma, settings, axes, frames=pairs)
    if start is None:
        model = START[3 if all(one.image.shape[0] == 3 for one in noisy) else 1]
        start = _start(model)
    result = adapt_to(
        _with_channels(noisy, start.config.channels),
        start,
        length,
        pairs=pairs,
        seed=seed,
        device=chosen,
        progress=progress or no_progress,
        clock=clock,
    )
    about = {"adapted from": str(model), "steps": str(result.steps), "minutes": f"{result.seconds / 60:.1f}"}
    if str(model) in MODELS:
        about["licence"] = MODELS[str(model)].licence
    return dataclasses.replace(result, cautions=tuple(cautions), about=about)


def _start(model: str | Path) -> NLRN:
    """The network to start from.

    Raises:
        ValueError: a method without weights, or a model for another task.
    """
    found = load_model(os.fspath(model))
    if not isinstance(found, NLRN):
        raise ValueError(f"{model} has no weights to adapt; name a network or a weight file")
    check_task(str(model), found, "denoise")
    if not found.config.noise_channel:
        raise ValueError(f"{model} takes no noise level; only a network that takes one can be adapted")
    return found


def _with_channels(images: Sequence[Noisy], channels: int) -> list[Noisy]:
    """Images of as many channels as a network has; of RGB a grey one restores each channel by itself.

    Raises:
        ValueError: a grey image for a network of RGB.
    """
    found: list[Noisy] = []
    for one in images:
        if one.image.shape[0] == channels:
            found.append(one)
        elif channels == 1:
            planes = enumerate(torch.split(one.image, 1))
            found += [dataclasses.replace(one, image=p, stack=(one.stack, i)) for i, p in planes]
        else:
            raise ValueError(f"{one.name} is grey, and the model restores RGB images; choose a grey model")
    return found
