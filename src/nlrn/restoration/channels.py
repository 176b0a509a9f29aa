"""Arrays whose channels are neither grey nor RGB: which axis they are on, and what is alpha."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .report import Report, joined

RGBA_NOTE = (
    "four channels of 8 bit are taken for RGBA, and the last is not restored; channel_axis=-1 restores all"
)
ALPHA_NOTE = "the last of {count} channels is taken for alpha and not restored; channel_axis=-1 restores all"


def alpha_note(pixels: np.ndarray) -> str | None:
    """A note where the last channel of an array is taken for alpha without having been called so."""
    count = pixels.shape[2] if pixels.ndim == 3 else 1
    if count not in (2, 4):
        return None
    return RGBA_NOTE if count == 4 and pixels.dtype == np.uint8 else ALPHA_NOTE.format(count=count)


def each_channel(
    pixels: np.ndarray,
    axis: int,
    restore: Callable[[np.ndarray, int, int], tuple[np.ndarray, Report]],
) -> tuple[np.ndarray, Report]:
    """Every channel of `pixels` restored by itself as a grey image; three are restored together, as RGB.

    Args:
        pixels: an array of three axes.
        axis: the axis of the channels.
        restore: of an image, its index and their count.

    Raises:
        ValueError: another number of axes, or an axis that is not there.
    """
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
        raise ValueError(f"channel_axis must be a whole number or None, got {axis!r}")
    if pixels.ndim != 3:
        raise ValueError(f"an array with channel_axis must have three axes, got shape {pixels.shape}")
    if not -3 <= axis < 3:
        raise ValueError(f"channel_axis must lie between -3 and 2, got {axis}")
    moved = np.moveaxis(pixels, axis, -1)
    count = moved.shape[-1]
    if count == 3:
        result, report = restore(moved, 0, 1)
        return np.moveaxis(result, -1, axis), report
    if not count:
        raise ValueError(f"an image array must not be empty, got shape {pixels.shape}")
    parts = [restore(moved[..., index], index, count) for index in range(count)]
    stack = np.ma.stack if isinstance(pixels, np.ma.MaskedArray) else np.stack
    return np.moveaxis(stack([part for part, _ in parts], -1), -1, axis), joined([r for _, r in parts])
