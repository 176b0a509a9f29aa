"""The noise level of an image, as `sigma="auto"` estimates it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..models.contract import nearest_known
from .weak_texture import weak_texture_level

SMALLEST_SIDE = 16
CLIPPED_SHARE = 0.02
# The median of the absolute value of a standard normal variable.
NORMAL_MEDIAN = 0.6744897501960817
# Below this share of a picture an estimate is worth a caution.
ENOUGH = 0.05
# A drawing has less than the share MOSTLY of its details outside of constant areas. Of these less than DRAWN are not
# beside one, or the upper quartile of their sizes is more than HEAVY medians: of normal noise it is 1.7.
DRAWN, MOSTLY, HEAVY = 0.35, 0.7, 2.05
# As many details free of cut-off values, and this share of all, are enough for an estimate without the others.
FEWEST, WHOLE = 64, 0.2
# Noise above STRONG may be fine structure. In units of 8 bit, as many levels as FEW never hold the share FLAT of values
# with such noise, not even where half of it is cut off; and repeated structure leaves directions of patches without it,
# in which less than the share STRUCTURE of the level is left (on photographs with noise 93% and more).
STRONG, FEW, FLAT, STRUCTURE = 20 / 255, 16, 0.8, 0.6
PATCH, PATCHES = 5, 40_000
# Numbers of levels of counts, and the share of their gaps that are the smallest.
COUNTED, EVEN = (4, 64), 0.7
# Below this whiteness noise is grain, shared by neighbours, and in a colour picture below WHITE_COLOR of the difference
# of red and green; the level of other noise is that of patches of little texture. On 24 crops of BSD400 the difference
# has 0.84 and more with white noise of sigma 3 to 40, and 0.81 and less after JPEG of quality 80 to 95, which halves
# the resolution of colours.
GRAINY, WHITE_COLOR = 0.55, 0.83
# Whiteness is that of the smoothest of so many blocks of so many pixels a side.
BLOCK, SMOOTHEST = 8, 8


@dataclass(frozen=True)
class NoiseEstimate:
    """White-noise level of an image.

    Args:
        sigma: standard deviation in units of [0, 1].
        clipped: share of the values outside of constant areas that lie at the ends of the range, 0 or 1, where the
            estimate does not allow for the noise that was cut off there, and is too low.
        whiteness: 1 for noise that differs freely from pixel to pixel, near 0 where neighbours share it, as after a
            camera's processing; `None` where too little of the picture is smooth enough to tell.
        used: share of the picture from which the level follows. The rest is constant or hidden.
        color_whiteness: whiteness of the difference of red and green, which JPEG and cameras smooth more; `None` for
            grey images too.
        drawing: whether all that is not constant lies between constant areas, or the picture has a few levels only, as
            drawings, text and screenshots do. No noise can be told from the drawing then, and sigma is 0.
    """

    sigma: float
    clipped: float
    whiteness: float | None = None
    used: float = 1.0
    color_whiteness: float | None = None
    drawing: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """Cautions for the user, in full sentences."""
        found = []
        if self.clipped > CLIPPED_SHARE and self.sigma >= 2 / 255:
            found.append(
                f"{100 * self.clipped:.0f}% of the values are at the end of the range: clipped noise reads too low; "
                "give sigma= if you know it"
            )
        if 0 < self.used < ENOUGH:
            found.append(
                f"the noise level follows from {100 * self.used:.2g}% of the picture, as the rest is constant or hidden; "
                "give sigma= if you know it"
            )
        return tuple(found)


def estimate_noise(image: Tensor, hidden: Tensor | None = None, *, drawings: bool = True) -> NoiseEstimate:
    """Estimates the standard deviation of additive white Gaussian noise.

    The median of the finest wavelet details (Donoho and Johnstone 1994), averaged over channels and images, as
    `skimage.restoration.estimate_sigma` computes it. Details of constant and hidden areas do not count. Texture counts
    as noise there, so that noise that is white has the level of `weak_texture_level`. Where a strong level turns out to
    be repeated structure, such as hatching, it is that of patches in the directions without structure (Chen, Zhu and
    Heng 2015, doi:10.1109/ICCV.2015.62). Noise that is not white, such as that of a camera JPEG, is outside its
    assumption and mostly reads too low.

    Args:
        image: `[B, C, H, W]` in units of [0, 1].
        hidden: `[B, 1, H, W]`, the pixels that are not part of the picture.
        drawings: whether an image may be a drawing, whose details count as no noise.

    Raises:
        ValueError: an image of fewer than 16 pixels a side.

    Example:
        >>> import torch
        >>> from nlrn.inference.noise_level import estimate_noise
        >>> noise = 0.1 * torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
        >>> round(estimate_noise(0.5 + noise).sigma, 2)
        0.1
    """
    height, width = image.shape[2:]
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"the noise of a {width}x{height} image cannot be estimated (it takes {SMALLEST_SIDE} pixels a side); "
            "give sigma"
        )
    values = image.detach().double().cpu().numpy()
    masks = np.zeros((len(values), height, width), bool)
    if hidden is not None:
        masks |= hidden[:, 0].cpu().numpy()
    each = values.reshape(-1, height, width)
    # NumPy works on one core, and the planes do not depend on each other.
    with ThreadPoolExecutor(min(torch.get_num_threads(), image.shape[1])) as pool:
        hidden_of = masks.repeat(image.shape[1], axis=0)
        planes = list(pool.map(partial(_of_plane, drawings=drawings), each, hidden_of))
        clipped = list(pool.map(_clipped, each))
        whiteness_of_mean = pool.submit(_mean_whiteness, values.mean(1), masks)
        color = _mean_whiteness(values[:, 0] - values[:, 1], masks) if values.shape[1] == 3 else None
        white = whiteness_of_mean.result()
        levels = [plane.sigma for plane in planes]
        if white is not None and white >= GRAINY and (color is None or color >= WHITE_COLOR):
            for index, level in enumerate(pool.map(weak_texture_level, each, hidden_of)):
                if level and levels[index]:
                    levels[index], clipped[index] = level, 0.0
    return NoiseEstimate(
        float(np.mean(levels)),
        float(np.mean(clipped)),
        white,
        float(np.mean([plane.used for plane in planes])),
        color,
        all(plane.drawing for plane in planes),
    )


@dataclass(frozen=True)
class _PlaneEstimate:
    sigma: float
    used: float
    drawing: bool


def _of_plane(plane: np.ndarray, hidden: np.ndarray, drawings: bool) -> _PlaneEstimate:
    """The level of `H x W`, from those of its diagonal details that are neither hidden nor of constant pixels."""
    import pywt

    details = np.abs(pywt.dwt2(plane, "db2")[1][2])
    varied = _over_support(plane, np.maximum) > _over_support(plane, np.minimum)
    visible = ~_over_support(hidden, np.maximum)
    if not visible.any():  # hidden pixels everywhere: what they are filled with is better than nothing
        visible[:] = True
    constant, varied = visible & ~varied, visible & varied
    if not varied.any():
        return _PlaneEstimate(0.0, 0.0, False)
    # Beside a constant area lie its edges; noise fills whole areas.
    around = np.pad(constant, 1, mode="edge")
    beside = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
    inner = varied & ~beside
    # Of what is visible, and of the whole, where hidden pixels count as constant ones do.
    busy = varied.sum() / visible.sum()
    if drawings and inner.sum() < DRAWN * varied.sum() and busy < MOSTLY:
        return _PlaneEstimate(0.0, 0.0, True)
    if inner.sum() < DRAWN * varied.sum():
        inner = varied  # a noise of few levels, which leaves areas constant by chance
    share = float(inner.mean()) * float(1 - hidden.mean())
    # Where noise is cut off it is weaker; elsewhere it is whole.
    free = inner & ~_over_support((plane == 0) | (plane == 1), np.maximum)
    if free.sum() >= max(FEWEST, WHOLE * inner.sum()):
        inner = free
    median, upper = (float(x) for x in np.quantile(details[inner], (0.5, 0.75)))
    if drawings and busy < MOSTLY and upper > HEAVY * median:
        return _PlaneEstimate(0.0, 0.0, True)
    sigma = median / NORMAL_MEDIAN
    if sigma > STRONG:
        # A detail is of four by four pixels, and begins every two.
        pixels = inner[1:, 1:].repeat(2, 0).repeat(2, 1)[: plane.shape[0], : plane.shape[1]]
        if drawings and _has_few_levels(plane[: pixels.shape[0], : pixels.shape[1]][pixels]):
            return _PlaneEstimate(0.0, 0.0, True)
        unstructured = _level_without_structure(plane, hidden)
        if unstructured is not None and unstructured < STRUCTURE * sigma:
            sigma = unstructured
    return _PlaneEstimate(sigma, share, False)


def _has_few_levels(values: np.ndarray) -> bool:
    """True for a picture of a few levels, as drawings and text have and strong noise leaves nowhere.

    Counts of a few photons have few levels too; theirs are evenly spaced.
    """
    counts = np.bincount(np.rint(255 * values.clip(0, 1)).astype(np.intp), minlength=256)
    if np.sort(counts)[-FEW:].sum() < FLAT * counts.sum():
        return False
    gaps = np.diff(np.unique(values))
    even = COUNTED[0] <= len(gaps) + 1 <= COUNTED[1] and np.mean(gaps < 1.01 * gaps.min()) > EVEN
    return not even


def _level_without_structure(plane: np.ndarray, hidden: np.ndarray) -> float | None:
    """The noise level of patches in the directions in which they have no structure; `None` for too few patches."""
    size = (PATCH, PATCH)
    patches, masks = (np.lib.stride_tricks.sliding_window_view(x, size) for x in (plane, hidden))
    step = max(1, int((patches.shape[0] * patches.shape[1] / PATCHES) ** 0.5))
    patches, masks = (x[::step, ::step].reshape(-1, PATCH**2) for x in (patches, masks))
    patches = patches[~masks.any(1)]
    patches = patches[patches.max(1) > patches.min(1)]
    if len(patches) < 4 * PATCH**2:
        return None
    variances = np.linalg.eigvalsh(np.cov(patches, rowvar=False))[::-1].clip(min=0)
    # Falling. Those of noise lie evenly around their mean; with structure among them the mean is above the median.
    noise = next(rest for i in range(len(variances)) if (rest := variances[i:]).mean() <= np.median(rest))
    return float(noise.mean() ** 0.5)


def _clipped(plane: np.ndarray) -> float:
    """The share of the values at the ends of the range, without constant areas."""
    from scipy.ndimage import maximum_filter, minimum_filter

    # With the pixels around constant ones, which are of the same area.
    varied = minimum_filter(maximum_filter(plane, 3) > minimum_filter(plane, 3), 3)
    return float(np.mean((plane <= 0) | (plane >= 1), where=varied)) if varied.any() else 0.0


def _over_support(plane: np.ndarray, pick: np.ufunc) -> np.ndarray:
    """The largest or smallest of the 4x4 pixels that a diagonal detail follows from."""
    for axis in (0, 1):
        count = (plane.shape[axis] + 3) // 2
        margins = [(0, 0), (0, 0)]
        margins[axis] = (2, 3)
        padded = np.moveaxis(np.pad(plane, margins, mode="symmetric"), axis, 0)
        parts = [padded[start : start + 2 * count - 1 : 2] for start in range(4)]
        plane = np.moveaxis(pick.reduce(parts), 0, axis)
    return plane


def _mean_whiteness(planes: np.ndarray, masks: np.ndarray) -> float | None:
    """The mean over those of some planes `[B, H, W]` that tell."""
    found = [whiteness(plane, mask) for plane, mask in zip(planes, masks, strict=True)]
    known = [one for one in found if one is not None]
    return float(np.mean(known)) if known else None


def whiteness(plane: np.ndarray, hidden: np.ndarray) -> float | None:
    """1 minus the correlation of neighbours, in the smoothest blocks of `H x W`."""
    blocks, covered = (_blocks(x) for x in (plane, hidden))
    blocks = without_slopes(blocks[~covered.any((1, 2))])
    power = (blocks**2).mean((1, 2))
    blocks, power = blocks[power > 1e-12], power[power > 1e-12]
    if len(blocks) < 4:
        return None
    smooth = blocks[np.argsort(power)[: max(4, len(blocks) // SMOOTHEST)]]
    total = (smooth[:, :, 1:] ** 2).mean() + (smooth[:, 1:] ** 2).mean()
    shared = (smooth[:, :, 1:] * smooth[:, :, :-1]).mean() + (smooth[:, 1:] * smooth[:, :-1]).mean()
    return float(np.clip(1 - shared / (total / 2) / 2, 0, 1))


def without_slopes(blocks: np.ndarray) -> np.ndarray:
    """Blocks `[N, S, S]` without their means and the planes that fit them best."""
    side = blocks.shape[1]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    blocks = blocks - blocks.mean((1, 2), keepdims=True)
    for slope in (x, y):
        blocks = blocks - slope * ((blocks * slope).sum((1, 2), keepdims=True) / (slope**2).sum())
    return blocks


def _blocks(plane: np.ndarray) -> np.ndarray:
    """The whole blocks `[N, 8, 8]` of `H x W`."""
    rows, columns = (length // BLOCK for length in plane.shape)
    cut = plane[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return cut.transpose(0, 2, 1, 3).reshape(-1, BLOCK, BLOCK)


def noise_level(
    image: Tensor,
    sigma: float | Literal["auto"],
    known: tuple[float, float],
    hidden: Tensor | None = None,
    estimate: NoiseEstimate | None = None,
) -> tuple[float, float, list[str]]:
    """The noise level, given or estimated; the nearest that the model knows; and cautions about both."""
    cautions: list[str] = []
    if sigma == "auto":
        estimate = estimate or estimate_noise(image, hidden)
        sigma, cautions = estimate.sigma, list(estimate.warnings)
    used, caution = nearest_known(sigma, known)
    return sigma, used, cautions if caution is None else [*cautions, caution]
