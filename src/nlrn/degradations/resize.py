"""Images in low resolution, made as the literature on super-resolution makes them."""

from __future__ import annotations

from torch import Tensor

from ..ops.resize import Taps, bicubic_resize


def low_resolution(image: Tensor, scale: int, *, taps: Taps | None = None) -> Tensor:
    """An image shrunk by `scale`, rounded to 8 bit and enlarged again, from which super-resolution starts.

    Args:
        image: `[..., H, W]` in units of [0, 1], both sides multiples of `scale`.
        taps: taps as in `bicubic_resize`.

    Raises:
        ValueError: sides that are no multiples.
    """
    height, width = image.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"both sides must be multiples of the scale {scale}, got {height}x{width}")
    small = (255 * bicubic_resize(image, height // scale, width // scale, taps=taps)).round().clamp(
        0, 255
    ) / 255
    return bicubic_resize(small, height, width, taps=taps)
