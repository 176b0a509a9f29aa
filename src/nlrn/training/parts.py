"""Parts of noisy images: their targets, and the pixels that are learned from or held out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .noisy import Noisy

# Learned from are as many parts of the images at most, of so many pixels a side.
PARTS, SIDE = 24, 256
# Blocks of so many pixels a side, and the share of them that is kept from the loss, but no fewer than a few.
BLOCK, HELD, FEWEST = 16, 0.2, 4
# Noise was cut off at the smallest or the largest value where so large a share of all are equal to it. It is whole so
# many noise levels away.
CUT_OFF, CLEAR_OF_ENDS = 1e-3, 2.5


@dataclass(frozen=True, eq=False)
class Part:
    """A part of an image.

    Args:
        image: `[C, H, W]`.
        target: what it is compared with.
        sigma: noise level.
        learned: `[H, W]`, the pixels that count in the loss.
        visible: those that count where the target has no noise.
        held: those at which the error is estimated.
        cut_off: whether noise may be cut off at the ends of the range.
    """

    image: Tensor
    target: Tensor
    sigma: float
    learned: Tensor
    visible: Tensor
    held: Tensor
    cut_off: bool

    @classmethod
    def whole(cls, noisy: Noisy, target: Noisy, generator: torch.Generator) -> Part:
        """A whole image, with random blocks held out."""
        counted = (noisy.counted & target.counted)[0]
        rows, columns = (-(-length // BLOCK) for length in counted.shape)
        blocks = rows * columns
        order = torch.randperm(blocks, generator=generator).view(rows, columns)
        chosen = order < max(round(HELD * blocks), min(FEWEST, blocks // 2))
        chosen = chosen.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        held = chosen[: counted.shape[0], : counted.shape[1]]
        learned = counted & ~held
        return cls(noisy.image, target.image, noisy.sigma, learned, learned, counted & held, noisy.cut_off)

    def tiles(self) -> list[Part]:
        """Parts of `SIDE` pixels a side that cover it."""
        height, width = self.learned.shape
        starts = [
            [round(x) for x in np.linspace(0, max(0, length - SIDE), -(-length // SIDE))]
            for length in (height, width)
        ]
        areas = [(slice(y, y + SIDE), slice(x, x + SIDE)) for y in starts[0] for x in starts[1]]
        return [
            replace(
                self,
                image=self.image[:, *area],
                target=self.target[:, *area],
                learned=self.learned[area],
                visible=self.visible[area],
                held=self.held[area],
            )
            for area in areas
        ]

    def planes(self) -> np.ndarray:
        """All that a crop needs, as the channels of an image."""
        level = torch.full(self.learned.shape, self.sigma)
        parts = [self.image, self.target, self.learned[None].float(), self.visible[None].float(), level[None]]
        return np.moveaxis(torch.cat(parts).numpy(), 0, -1)

    def without_ends(self, restored: Tensor) -> Part:
        """The part without the pixels near an end of the range at which noise was cut off."""
        if not self.cut_off:
            return self
        near = torch.zeros_like(self.held)
        low, high = self.image.amin(), self.image.amax()
        for end, away in ((low, restored - low), (high, high - restored)):
            if float((self.image == end).float().mean()) > CUT_OFF:
                near |= (away < CLEAR_OF_ENDS * self.sigma).any(0)
        return replace(self, learned=self.learned & ~near, held=self.held & ~near)

    @staticmethod
    def blocks(values: Tensor, counted: Tensor) -> np.ndarray:
        """The mean of `[H, W]` in each block that has pixels that count."""
        total, count = (
            F.avg_pool2d(part[None, None], BLOCK, ceil_mode=True, divisor_override=1).flatten()
            for part in (values * counted, counted.float())
        )
        return (total / count)[count > 0].double().numpy()


def parts_of(images: Sequence[tuple[Noisy, Noisy]], generator: torch.Generator) -> list[Part]:
    """At most `PARTS` parts of the images, chosen at random."""
    tiles = [tile for one, target in images for tile in Part.whole(one, target, generator).tiles()]
    order = torch.randperm(len(tiles), generator=generator).tolist()
    return [tiles[index] for index in order[:PARTS]]


def with_targets(images: Sequence[Noisy], pairs: bool) -> list[tuple[Noisy, Noisy]]:
    """Every image with the one that it is compared with: itself, or its neighbour among the frames.

    Raises:
        ValueError: a frame without a neighbour.
    """
    if not pairs:
        return [(image, image) for image in images]
    stacks: dict[Hashable, list[Noisy]] = {}
    for image in images:
        stacks.setdefault(image.stack, []).append(image)
    found = []
    for frames in stacks.values():
        if len(frames) == 1:
            raise ValueError(f"pairs need two frames of one scene, and {frames[0].name} is alone")
        for index, frame in enumerate(frames):
            other = index ^ 1
            found.append((frame, frames[other if other < len(frames) else index - 1]))
    return found
