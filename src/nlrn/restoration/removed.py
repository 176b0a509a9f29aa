"""A check of what a restoration removed: white noise of the level that it was for, or something else.

    correlated    neighbours in what was removed are alike, as they are in texture and edges, and smooth parts lost much
                  less than the noise level: there was less noise, and structure went instead
    left          neighbours in what was removed differ more than those of white noise, or smooth parts lost more than
                  the level, and smooth parts of the result still vary from pixel to pixel: noise is left

The thresholds are from 90 crops of BSD400, grey and colour, with noise of sigma 0 to 50: none of 720 restorations for
the level that there was, or for its estimate, is found.
"""

from __future__ import annotations

from torch import Tensor

# Sides of blocks; about as many as are looked at, and as many as tell enough.
BLOCK, MOST, FEWEST = 8, 2048, 64
# Of a block, values at the ends of the range, where noise was cut off.
CUT_OFF = 0.05
# The smoothest blocks: one in so many.
SMOOTHEST = 4
# Where 1 minus the correlation of neighbours in what was removed is below CORRELATED, it is no white noise; it is 1.01
# and more where noise was removed. And the smoothest blocks lost less than the share LOST of the noise level.
CORRELATED, LOST = 0.97, 0.7
# Above ALTERNATING a grey model left noise, and in the smoothest blocks it left AS_MUCH of the finest details as it
# removed, which is LEAST of the level: in dense texture it removes less.
# A colour model removes MORE than the level there, and leaves at least SOME.
ALTERNATING, AS_MUCH, LEAST = 1.29, 1.0, 0.45
MORE, SOME = 1.25, 0.25


def removed_cautions(image: Tensor, restored: Tensor, noise: float, hidden: Tensor | None) -> tuple[str, ...]:
    """Sentences for the user on what the removal of white noise took away and left, at most one.

    Args:
        image: `[1, C, H, W]` in units of [0, 1], before the restoration.
        restored: of the same shape, after it.
        noise: standard deviation that the noise was taken to have, in the same units.
        hidden: `[1, 1, H, W]`, the pixels that are not part of the picture.

    Returns:
        None where there is too little to tell.
    """
    before, after = _blocks(image), _blocks(restored)
    ends = ((before <= 0) | (before >= 1)).float().mean((1, 2, 3))
    usable = (ends < CUT_OFF) & (before.amax((1, 2, 3)) > before.amin((1, 2, 3)))
    if hidden is not None:
        usable &= ~_blocks(hidden).any(3).any(2).any(1)
    before, after = before[usable], after[usable]
    if noise <= 0 or len(before) < FEWEST:
        return ()
    change = before - after
    smoothest = after.std((2, 3)).mean(1).argsort()[: len(after) // SMOOTHEST]
    lost = float(_rms(change)[smoothest].median()) / noise
    difference, finest = _difference_of_neighbours(change), _finest(after)[smoothest].median()
    left = float(finest / _finest(change)[smoothest].median().clamp_min(1e-9))
    if difference < CORRELATED and lost < LOST:
        return (
            "some of what was removed is not white noise and may be structure: smooth parts lost "
            f"{100 * lost:.0f}% of the noise level; a smaller sigma= keeps it",
        )
    if (difference > ALTERNATING and left > AS_MUCH and lost > LEAST) or (lost > MORE and left > SOME):
        return ("the result still has noise; a larger sigma= removes more",)
    return ()


def _blocks(image: Tensor) -> Tensor:
    """At most about `MOST` of the blocks of `[1, C, H, W]`, evenly spread: `[N, C, BLOCK, BLOCK]`."""
    channels = image.shape[1]
    rows, columns = (length // BLOCK for length in image.shape[2:])
    cut = image[0, :, : rows * BLOCK, : columns * BLOCK].reshape(channels, rows, BLOCK, columns, BLOCK)
    step = max(1, round((rows * columns / MOST) ** 0.5))
    return cut[:, ::step, :, ::step].permute(1, 3, 0, 2, 4).reshape(-1, channels, BLOCK, BLOCK)


def _rms(blocks: Tensor) -> Tensor:
    return blocks.square().mean((1, 2, 3)).sqrt()


def _finest(blocks: Tensor) -> Tensor:
    """The level of the diagonal details of two by two pixels, of each block; of white noise that of the noise."""
    a, b, c, d = (blocks[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    return _rms((a - b - c + d) / 2)


def _difference_of_neighbours(blocks: Tensor) -> float:
    """1 minus the correlation of neighbours, 1 for white noise."""
    blocks = blocks - blocks.mean((2, 3), keepdim=True)
    shared = (blocks[..., 1:] * blocks[..., :-1]).mean() + (blocks[..., 1:, :] * blocks[..., :-1, :]).mean()
    return 1 - float(shared / 2 / blocks.square().mean().clamp_min(1e-18))
