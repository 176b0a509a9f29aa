"""Hidden pixels: what lies under alpha 0 is not part of the picture, and is filled for the network from what is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def hidden_by(alpha: Tensor | None) -> Tensor | None:
    """A mask `[B, 1, H, W]` of the pixels whose alpha is 0; `None` where there are none."""
    if alpha is None:
        return None
    hidden = alpha.double() == 0
    return hidden if hidden.any() else None


def fill_hidden(color: Tensor, hidden: Tensor) -> Tensor:
    """`[B, C, H, W]` with each hidden pixel in the colour of its nearest visible one; all hidden, as it was."""
    from scipy.ndimage import distance_transform_edt

    filled = []
    for planes, mask in zip(color, hidden[:, 0].cpu().numpy(), strict=True):
        if mask.all() or not mask.any():
            filled.append(planes)
            continue
        nearest = distance_transform_edt(mask, return_distances=False, return_indices=True)
        index = torch.from_numpy(np.ravel_multi_index(tuple(nearest), mask.shape).ravel()).to(planes.device)
        # float64 holds every value, and unsigned integers have few operations.
        values = planes.double().flatten(1)[:, index].view(planes.shape)
        filled.append(values.to(planes.dtype))
    return torch.stack(filled)
