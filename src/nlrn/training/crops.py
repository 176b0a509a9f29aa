"""Random crops of a folder of images, drawn on the device that holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files.images import find_images
from ..files.planes import Luma, read_planes


class Crops:
    """Random square crops of a set of images, which stay on the device in their type.

    Images that would take more than half of a GPU's free memory stay in main memory, and crops are made there
    (`apart`).

    Args:
        images: `H x W` or `H x W x C`: uint8, or float32 that crops keep as they are.
        device: the device of the crops, which keeps the images too where they fit.

    Raises:
        ValueError: no images.
    """

    def __init__(self, images: Sequence[np.ndarray], device: torch.device) -> None:
        if not images:
            raise ValueError("no images to train on")
        planes = [image[..., None] if image.ndim == 2 else image for image in images]
        # All lying, so that one block holds them with little room to spare; crops are transposed at random anyway.
        planes = [p if p.shape[0] <= p.shape[1] else p.swapaxes(0, 1) for p in planes]
        sizes = [p.shape[:2] for p in planes]
        height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
        block = np.zeros((len(planes), planes[0].shape[2], height, width), planes[0].dtype)
        for target, plane in zip(block, planes, strict=True):
            target[:, : plane.shape[0], : plane.shape[1]] = np.moveaxis(plane, -1, 0)
        self.apart = device.type == "cuda" and 2 * block.nbytes > torch.cuda.mem_get_info(device)[0]
        self._device, self._images = device, torch.from_numpy(block)
        if not self.apart:
            self._images = self._images.to(device)
        self._sizes = torch.tensor(sizes, device=self._images.device)
        self.count, self.smallest = len(sizes), min(min(size) for size in sizes)
        self.digest = ""  # identifies the set of files by their names

    @classmethod
    def of_folder(
        cls, folder: Path, channels: int, hold_out: int, device: torch.device, luma: Luma = "gray"
    ) -> tuple[Crops, list[Path]]:
        """Crops of a folder's images but the last `hold_out` of a fixed shuffle, and the files of these last.

        Raises:
            ImageError, OSError: images that cannot be read.
            ValueError: nothing left to train on.
        """
        files = find_images([folder])
        if len(files) <= hold_out:
            raise ValueError(f"{folder} has {len(files)} images, and {hold_out} are to be held out")
        order = np.random.default_rng(0).permutation(len(files))
        held = sorted(files[i] for i in order[len(files) - hold_out :])
        kept = [file for file in files if file not in set(held)]
        crops = cls([read_planes(file, channels, luma) for file in kept], device)
        crops.digest = hashlib.sha256("\0".join(file.name for file in kept).encode()).hexdigest()[:16]
        return crops, held

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """`[count, C, size, size]` in float32 on the device, flipped and transposed at random by its generator.

        Those of uint8 images are in [0, 1].

        Raises:
            ValueError: an image that is smaller than a crop.
        """
        if size > self.smallest:
            raise ValueError(f"crops of {size} pixels need images as large; the smallest has {self.smallest}")
        device = self._images.device
        if self.apart:
            generator = torch.Generator(device).manual_seed(generator.initial_seed())

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        index = (uniform(count) * len(self._images)).long()
        room = self._sizes[index] - size + 1
        corner = (uniform(count, 2) * room).long()
        span = torch.arange(size, device=device)
        channels = torch.arange(self._images.shape[1], device=device)
        crops = self._images[
            index[:, None, None, None],
            channels[None, :, None, None],
            (corner[:, 0, None] + span)[:, None, :, None],
            (corner[:, 1, None] + span)[:, None, None, :],
        ]
        chosen = (uniform(3, count) < 0.5)[:, :, None, None, None]
        crops = torch.where(chosen[0], crops.flip(2), crops)
        crops = torch.where(chosen[1], crops.flip(3), crops)
        crops = torch.where(chosen[2], crops.transpose(2, 3), crops)
        crops = crops.to(self._device)
        return crops.float() / 255 if crops.dtype is torch.uint8 else crops
