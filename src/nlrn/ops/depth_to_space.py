"""Features at a part of the resolution as features at full resolution."""

from __future__ import annotations

from torch import Tensor


def add_depth_to_space(features: Tensor, parts: Tensor, stride: int) -> Tensor:
    """Adds to every pixel its part of the features of the position that it belongs to.

    `result[b, c, stride y + i, stride x + j] = features[...] + parts[b, (i stride + j) C + c, y, x]`: TensorFlow's
    depth-to-space, whose order of channels leaves the numbers of a pixel together where channels are last in memory.

    Args:
        features: `[B, C, stride H, stride W]`.
        parts: `[B, stride^2 C, H, W]`.
        stride: pixels a side of a position.

    Returns:
        A tensor like `features`.
    """
    batch, channels, height, width = features.shape
    shape = (batch, height // stride, stride, width // stride, stride, channels)
    by_position = features.permute(0, 2, 3, 1).view(shape)
    spread = parts.permute(0, 2, 3, 1).view(*shape[:2], shape[3], stride, stride, channels).transpose(2, 3)
    # [B, stride H, stride W, C]; a sum has the layout of its first term.
    total = (by_position + spread).flatten(3, 4).flatten(1, 2)
    return total.permute(0, 3, 1, 2)
