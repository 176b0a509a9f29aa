"""Hidden pixels, under alpha 0 or masked, are not part of the picture, and are filled for the network from what is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .kinds import Planes


def hidden_pixels(planes: Planes) -> Tensor | None:
    """A mask `[B, 1, H, W]` of the pixels that are masked or whose alpha is 0; `None` where there are none."""
    hidden = None if planes.alpha is None else planes.alpha.double() == 0
    if planes.masked is not None:
        hidden = planes.masked if hidden is None else hidden | planes.masked
    return hidden if hidden is not None and hidden.any() else None


def fill_hidden(color: Tensor, hidden: Tensor) -> Tensor:
    """`[B, C, H, W]` with each hidden pixel in the colour of its nearest visible one.

    An image that is hidden as a whole stays as it was, and is 0 where it has NaN or infinite values.
    """
    from scipy.ndimage import distance_transform_edt

    filled: list[Tensor] = []
    for planes, mask in zip(color, hidden[:, 0].cpu().numpy(), strict=True):
        if mask.all() or not mask.any():
            finite = not mask.any() or torch.isfinite(planes).all()
            filled.append(planes if finite else torch.zeros_like(planes))
            continue
        nearest = distance_transform_edt(mask, return_distances=False, return_indices=True)
        index = torch.from_numpy(np.ravel_multi_index(tuple(nearest), mask.shape).ravel()).to(planes.device)
        # float64 holds every value, and unsigned integers have few operations.
        values = planes.double().flatten(1)[:, index].view(planes.shape)
        filled.append(values.to(planes.dtype))
    return torch.stack(filled)
