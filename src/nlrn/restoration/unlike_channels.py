"""Channels with noise levels of their own, by models that take one level for an image.

    x_c    channel c of the image y, restored by itself at its level s_c
    y'     x + (s_c / s) (y - x) for each channel: an estimate of the image as it would be with noise s_c in all
           channels (s their own levels, but at least min(1 / 255, s_c))
    z_c    channel c of y', restored with the other channels at level s_c

The result is `x_c + w (z_c - x_c)` with w = s_c / max s: to the channel with the least noise the others add least.
`benchmarks/noise_levels.py` compares it with each channel by itself, and with the division of channels by their levels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..inference import Progress, part_of
from ..models.contract import Model, info_of, nearest_known

# Below this level a network removes its own error rather than noise, which is not to be enlarged as if it were noise.
LEAST = 1 / 255

# The model and its name, for a number of channels and a noise level.
Choose = Callable[[int, float], tuple[Model, str]]
# Restores `[B, C, H, W]` by a model at a noise level.
Run = Callable[[Model, Tensor, float, Progress], Tensor]


def denoise_unlike(
    image: Tensor, levels: list[float], choose: Choose, run: Run, progress: Progress
) -> tuple[Tensor, str, list[str]]:
    """An image without noise that differs between its channels.

    A grey model restores each channel by itself, and that is the result. A channel without noise stays as it is.

    Args:
        image: `[B, C, H, W]` in units of [0, 1].
        levels: of the C channels.
        choose: the models.
        run: runs them.
        progress: called with the fraction done.

    Returns:
        The image, the names of the models, and cautions for the user.

    Raises:
        ValueError: a model for RGB alone, which has no estimate of a channel by itself.
    """
    count, names, cautions = len(levels), dict[str, None](), list[str]()

    def restored(channels: int, planes: Tensor, index: int, step: int) -> Tensor:
        model, name = choose(channels, levels[index])
        known = info_of(model).sigma_range
        assert known is not None
        used, caution = nearest_known(levels[index], known)
        names[name] = None
        cautions.extend([caution] if caution else [])
        return run(model, planes, used, part_of(progress, step, 2 * count))

    model, name = choose(1, max(levels))
    if info_of(model).channels not in (1, None):
        raise ValueError(
            f"{name} takes one noise level for all channels, and sigma= has one for each; leave out model=, or name "
            "one for grey images"
        )
    noisy = [c for c, level in enumerate(levels) if level]
    alone = image.clone()
    for c in noisy:
        alone[:, c : c + 1] = restored(1, image[:, c : c + 1], c, c)
    result = alone.clone()
    joint, _ = choose(count, max(levels))
    for c in noisy if info_of(joint).channels != 1 else []:
        level = levels[c]
        weakest = min(LEAST, level)
        scale = torch.tensor([level / max(own, weakest) for own in levels], device=image.device)
        alike = alone + scale.view(1, -1, 1, 1) * (image - alone)
        together = restored(count, alike, c, count + c)
        result[:, c] = torch.lerp(alone[:, c], together[:, c], level / max(levels))
    progress(1.0)
    return result, ", ".join(names), list(dict.fromkeys(cautions))
