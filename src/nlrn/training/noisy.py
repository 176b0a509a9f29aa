"""Noisy images as a network sees them: in units of [0, 1], with the noise level that goes with them.

They are noted on their way through `Restorer`, which hands them to a model that changes nothing. What a model is
adapted to is therefore what it will be given later, whatever the type, range, hidden pixels and sensor of the data.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image as PillowImage
from torch import Tensor

from ..files.image import Image
from ..files.pages import read_pages
from ..inference import no_progress
from ..models.contract import ModelInfo
from ..restoration import Restorer, Settings, Sigma
from ..restoration.choice import WHITE, noise_of
from ..restoration.hidden import hidden_pixels
from ..restoration.kinds import of_pillow, planes_of
from ..restoration.shared import spread
from ..restoration.stack import ArrayStack, Stack, shared_by_group
from ..restoration.value_range import check_sigma, level_of

Source = np.ndarray | Tensor | PillowImage | str | os.PathLike[str]
Page = np.ndarray | Tensor | Image

# As many pages of a stack are learned from; of more they are taken evenly.
PAGES = 64


@dataclass(frozen=True, eq=False)
class Noisy:
    """An image with noise.

    Args:
        image: `[C, H, W]` in float32, about in [0, 1].
        sigma: noise level in the same units.
        counted: `[1, H, W]`, true where the image is not hidden.
        name: what errors call it.
        stack: images of the same stack are frames in their order, on one range of values.
        cut_off: whether many values at an end of the range are noise that was cut off there; not those of a few
            counted photons.
    """

    image: Tensor
    sigma: float
    counted: Tensor
    name: str
    stack: Hashable
    cut_off: bool


class _Noting:
    """A model that returns images as they are, and keeps them."""

    info = ModelInfo("noting", "denoise", precisions=(torch.float32,))

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, float]] = []

    def __call__(self, image: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        assert sigma is not None
        self.seen.append((image[0].clone(), float(torch.as_tensor(sigma).max())))
        return image


class _Pages:
    """Images of one kind as the pages of a stack, or a single image."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._pages = pages

    def __len__(self) -> int:
        return len(self._pages)

    def __getitem__(self, index: int) -> Page:
        return self._pages[index]

    def group(self, index: int) -> Hashable:
        """All belong together."""
        return None


def noisy_images(
    sources: Sequence[Source],
    sigma: Sigma | None,
    settings: Settings,
    axes: str | None = None,
    *,
    frames: bool = False,
) -> tuple[list[Noisy], list[str]]:
    """The images of sources, as a model for white noise is given them, and cautions about their noise.

    Args:
        sources: arrays, tensors, Pillow images and files; of files all pages.
        sigma: noise level as `denoise` takes it, one for all; by default estimated.
        settings: options of `denoise`.
        axes: a letter for each axis of an array, as `denoise` takes them.
        frames: whether they are repeated frames of one scene, those of a stack or of all sources. Their noise need
            not be white.

    Raises:
        ValueError: no images, noise that is not there, not known or not white, and what `denoise` refuses.
        OSError: a file that cannot be read.
    """
    sigma = None if sigma is None else check_sigma(sigma)  # a network learns for one level at a time
    found: list[Noisy] = []
    cautions: dict[str, None] = {}
    with ExitStack() as opened:
        single = [one for source in sources for one in _of_batch(source)]
        stacks = [(_name(source, i), _stack(source, axes, opened)) for i, source in enumerate(single)]
        if frames and len(stacks) > 1 and all(len(stack) == 1 for _, stack in stacks):
            stacks = [("the images", _Pages(_alike([stack[0] for _, stack in stacks])))]
        for number, (name, stack) in enumerate(stacks):
            for one, warnings in _noted(stack, sigma, settings, name, number, frames):
                found.append(one)
                cautions |= dict.fromkeys(warnings)
    if not found:
        raise ValueError("there is no image to adapt to")
    noisy = [one for one in found if one.sigma > 0]  # of a stack some pages may be empty
    if not noisy:
        raise ValueError(f"{found[0].name} has no noise that can be told from the picture; sigma= states it")
    if not frames and sigma in (None, "auto"):
        for one in noisy:
            _check_white(one)
    return noisy, list(cautions)


def _of_batch(source: Source) -> Sequence[Source]:
    """The images of a tensor `B x C x H x W`; another source is one image or one stack."""
    return list(source) if isinstance(source, Tensor) and source.ndim == 4 else [source]


def _name(source: Source, index: int) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else f"image {index + 1}"


def _stack(source: Source, axes: str | None, opened: ExitStack) -> Stack[Page]:
    """The pages of a source; a file stays open as long as `opened`."""
    if axes is not None:
        if not isinstance(source, np.ndarray):
            raise ValueError(f"axes= is for NumPy arrays, not for {type(source).__name__}")
        return ArrayStack(source, axes)
    if isinstance(source, str | os.PathLike):
        return opened.enter_context(read_pages(Path(source)))
    if isinstance(source, PillowImage):
        return _Pages([of_pillow(source)])
    if isinstance(source, np.ndarray | Tensor):
        return _Pages([source])
    raise TypeError(
        f"an image must be a path, a NumPy array, a tensor or a Pillow image, got {type(source).__name__}"
    )


def _alike(pages: Sequence[Page]) -> Sequence[Page]:
    """Frames of one size and type.

    Raises:
        ValueError: they differ.
    """
    kinds = [planes_of(page).color for page in pages]
    for color in kinds[1:]:
        if (color.shape, color.dtype) != (kinds[0].shape, kinds[0].dtype):
            raise ValueError(
                f"repeated frames must have one size and type, got {_kind(kinds[0])} and {_kind(color)}"
            )
    return pages


def _kind(color: Tensor) -> str:
    return f"{color.shape[3]}x{color.shape[2]} {str(color.dtype).removeprefix('torch.')}"


def _noted(
    stack: Stack[Page], sigma: Sigma | None, settings: Settings, name: str, number: int, frames: bool
) -> Iterator[tuple[Noisy, tuple[str, ...]]]:
    """The images of a stack, each with cautions."""
    indices = spread(range(len(stack)), PAGES)
    if frames and settings.get("noise") is not None and settings.get("data_range") is None:
        # The target of a frame is another one, so that both must be on one range.
        ends = [planes_of(stack[index]).color.double().aminmax() for index in indices]
        low, high = min(float(end.min) for end in ends), max(float(end.max) for end in ends)
        settings = {**settings, "data_range": (low, high)}
    noting = _Noting()
    on_cpu: Settings = {**settings, "device": "cpu", "precision": "float32"}
    restorer = Restorer(noting, **on_cpu)
    of_file = isinstance(stack[0], Image)

    def level(color: Tensor) -> Sigma:
        return level_of(color.dtype, sigma, settings.get("data_range"), grey_levels=of_file)

    shared = shared_by_group(restorer.options, cast("Stack[Any]", stack), level, sigma in (None, "auto"))
    for index in indices:
        page, common = stack[index], shared[stack.group(index)]
        noting.seen.clear()
        if isinstance(page, Image):
            _, report = restorer.image(page, sigma, no_progress, common)
        elif isinstance(page, Tensor):
            _, report = restorer.tensor(page.detach().cpu(), sigma)
        else:
            _, report = restorer.array(page, sigma, no_progress, shared=common)
        hidden = hidden_pixels(planes_of(page))
        named = f"{name}, page {index + 1}" if len(stack) > 1 else name
        for channel, (image, sigma_of_image) in enumerate(_first_pass(noting.seen)):
            counted = torch.ones(1, *image.shape[1:], dtype=torch.bool)
            if hidden is not None:
                size = -(-hidden.shape[-1] // image.shape[-1])
                counted = ~(F.max_pool2d(hidden.float(), size, ceil_mode=True)[0] > 0)
            place = (number, stack.group(index), channel)
            counts = settings.get("noise") is not None
            yield Noisy(image, sigma_of_image, counted, named, place, not counts), report.warnings


def _first_pass(seen: list[tuple[Tensor, float]]) -> list[tuple[Tensor, float]]:
    """Images of the first pass through a model; those of later passes are mixed with an estimate."""
    return [one for one in seen if one[0].shape == seen[0][0].shape] if seen else []


def _check_white(noisy: Noisy) -> None:
    """Refuses noise that neighbouring pixels share."""
    estimate = noise_of(noisy.image[None])
    if estimate is not None and estimate.whiteness is not None and estimate.whiteness < WHITE:
        raise ValueError(
            f"the noise of {noisy.name} is not white (whiteness {estimate.whiteness:.2f}, white noise has 1), and a "
            "network would learn to keep it; adapt to raw data, or to repeated frames with pairs=True"
        )
