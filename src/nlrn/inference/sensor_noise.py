"""Gain and read noise of a sensor from one picture: a robust fit of local variance to local mean.

    blocks       of 8x8 pixels; the mean from the coarse band of a wavelet transform, the variance from its diagonal
                 details, which see the least of a picture
    homogeneous  are blocks whose horizontal and vertical details are no stronger than noise makes them. White noise is
                 independent between the bands, so that choosing by these does not bias the diagonal ones
    line         variance = a mean + b through these blocks, each weighed by the inverse of its scatter, again and again
                 with the weights and the choice that follow from the last line

Source: after Foi, Trimeche, Katkovnik and Egiazarian, Practical Poissonian-Gaussian noise modeling and fitting for
single-image raw-data, doi:10.1109/TIP.2008.2001399, who segment by level sets and fit by likelihood.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..ops.anscombe import SensorNoise
from .noise_level import whiteness

# Coefficients a side of a block, which covers twice as many pixels; coefficients at the border, which see it mirrored.
BLOCK, BORDER = 4, 2
COUNT = BLOCK * BLOCK
# Sum of the fourth powers of the weights of a diagonal detail of db2.
FOURTH = 0.298
# The first line goes through the SMOOTHEST share of the blocks of each of so many brightnesses.
SMOOTHEST, BRIGHTNESSES, ROUNDS = 0.25, 24, 12
# Later the blocks count whose coarse details are within this quantile of noise, and whose fine ones within the other.
HOMOGENEOUS, PLAUSIBLE = 0.75, 0.999
# As few blocks as a line takes. Of two unknown numbers it takes brightnesses that differ, too: by so many times what
# chance makes of one.
FEWEST, SPREAD = 32, 1.5
# From this relative error of the gain on a caution is due, and from the other on nothing is known.
ROUGH, HOPELESS = 0.1, 0.33
# Blocks so few standard deviations above the smallest value may have lost noise that was cut off at it.
CLEAR_OF_BLACK = 3.0
# So many times a line is fitted to the others, and it is another one from so many standard errors on.
REFITS, BENT = 3, 3.0
# At the largest value noise is cut off where at least this share of the values is.
CUT_OFF = 0.0005
# More values than this at the smallest one, beyond those that counting explains, were cut off.
PILED_UP = 0.05
# Below this whiteness of the noise its variance reads too low.
WHITE = 0.6


class NoiseUnknown(ValueError):
    """The noise of the sensor does not follow from the picture; the message says why, and what to give instead."""


@dataclass(frozen=True)
class SensorNoiseEstimate:
    """The noise of a sensor, read from a picture.

    Args:
        noise: gain, read noise and offset in the units of the picture. Only gain (a) and `noise.intercept` (b) of the
            variance `a x + b` follow from a picture: unless the offset is given, it is 0, or, where b is negative, the
            value at which the variance would be 0.
        gain_error: standard error of the gain; 0 where it was given.
        intercept_error: standard error of b.
        used: share of the blocks of the picture that were homogeneous.
        means: mean values of groups of those blocks, in rising order, for a plot.
        variances: the variance of the noise of each of the groups.
        warnings: cautions for the user, in full sentences.
    """

    noise: SensorNoise
    gain_error: float
    intercept_error: float
    used: float
    means: tuple[float, ...] = ()
    variances: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """Numbers of a sensor that are known beforehand, in the units of the data; `None` for those to be estimated."""

    gain: float | None = None
    read_noise: float | None = None
    offset: float | None = None

    @property
    def complete(self) -> SensorNoise | None:
        """The noise, if gain and read noise are known; the offset is 0 unless given."""
        if self.gain is None or self.read_noise is None:
            return None
        return SensorNoise(self.gain, self.read_noise, self.offset or 0.0)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Numbers of blocks `[N]`: mean value, mean squares of the diagonal and the other details, share of black."""

    mean: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    black: np.ndarray

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, chosen: np.ndarray) -> _Blocks:
        return _Blocks(self.mean[chosen], self.fine[chosen], self.coarse[chosen], self.black[chosen])


@dataclass(frozen=True, eq=False)
class _Line:
    """`a mean + b`, with the covariance of both and the blocks that it goes through."""

    a: float
    b: float
    covariance: np.ndarray
    chosen: np.ndarray

    @property
    def gain_error(self) -> float:
        """The standard error of a."""
        return math.sqrt(float(self.covariance[0, 0]))


def estimate_sensor_noise(
    values: Tensor, hidden: Tensor | None = None, known: Known | None = None
) -> SensorNoiseEstimate:
    """Estimates gain and read noise of the sensor that took a picture or a stack of them.

    Args:
        values: `[B, C, H, W]` in the units of the data, as the sensor gave them: linear, and not sharpened, resized or
            compressed. All planes count as of one sensor.
        hidden: `[B, 1, H, W]`, the pixels that are not part of the picture.
        known: what need not be found.

    Raises:
        NoiseUnknown: a picture that is constant, too small, of one brightness, too textured, or whose noise does not
            grow with brightness.

    Example:
        >>> import torch
        >>> from nlrn.inference.sensor_noise import estimate_sensor_noise
        >>> light = torch.linspace(10, 200, 256).expand(1, 1, 256, 256)
        >>> counts = 2 * torch.poisson(light, generator=torch.Generator().manual_seed(0))
        >>> round(estimate_sensor_noise(counts).noise.gain)
        2
    """
    known = known or Known()
    planes = values.detach().double().cpu().numpy()
    masks = np.zeros((len(planes), *planes.shape[2:]), bool)
    if hidden is not None:
        masks |= hidden[:, 0].cpu().numpy()
    visible = planes[np.broadcast_to(~masks[:, None], planes.shape)]
    black, top = (float(visible.min()), float(visible.max())) if visible.size else (0.0, 0.0)
    if black == top:
        raise NoiseUnknown(_unknown("it is constant", known))
    at_top = float((visible == top).mean())
    white = top if at_top >= CUT_OFF else math.inf
    blocks = _joined(
        [
            _blocks_of(plane, mask | (plane >= white), black)
            for image, mask in zip(planes, masks, strict=True)
            for plane in image
        ]
    )
    line = _line_of(blocks, black, known)
    cautions = _cautions(blocks, black, line, _whiteness_of(planes, masks))
    if white == top:
        cautions.append(
            f"{100 * at_top:.2g}% of the values are cut off at {top:g}, and their surroundings do not count"
        )
    return _estimate(line, blocks, known, tuple(cautions))


def _unknown(reason: str, known: Known) -> str:
    """The message on a picture that does not tell the noise."""
    missing = " and ".join(f"{name}=" for name in ("gain", "read_noise") if getattr(known, name) is None)
    return f"the noise of the sensor does not follow from the picture, because {reason}; give {missing}"


def _blocks_of(plane: np.ndarray, left_out: np.ndarray, black: float) -> _Blocks:
    """The blocks of `H x W` without pixels that are left out, and without constant ones."""
    import pywt

    low, (across, down, diagonal) = pywt.dwt2(plane, "db2", mode="symmetric")
    left, dark = (_halved(mask, low.shape) for mask in (left_out, plane == black))
    bands = (low / 2, diagonal**2, (across**2 + down**2) / 2, dark)
    blocks = _Blocks(*(_block_means(band) for band in bands))
    return blocks[(_block_means(left) == 0) & (blocks.fine > 0)]


def _halved(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Shares of 2x2 pixels, at the places of wavelet details; edges are not exact, and no block has them."""
    padded = np.pad(mask.astype(float), [(0, 2 * shape[i] - mask.shape[i]) for i in (0, 1)], mode="edge")
    halved: np.ndarray = padded.reshape(shape[0], 2, shape[1], 2).mean((1, 3))
    return halved


def _block_means(band: np.ndarray) -> np.ndarray:
    """The means `[N]` over the blocks of a band, without those at its border."""
    inner = band[BORDER:-BORDER, BORDER:-BORDER]
    rows, columns = (length // BLOCK for length in inner.shape)
    cut = inner[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    means: np.ndarray = cut.mean((1, 3)).ravel()
    return means


def _joined(parts: list[_Blocks]) -> _Blocks:
    names = ("mean", "fine", "coarse", "black")
    return _Blocks(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _line_of(blocks: _Blocks, black: float, known: Known) -> _Line:
    """The line through all blocks, or, where these bend it at black, through those too bright to be cut off there."""
    line = every = _fitted(blocks, known)
    for _ in range(REFITS):
        deviation = np.sqrt(np.maximum(line.a * blocks.mean + line.b, 0))
        clear = np.flatnonzero(blocks.mean - black > CLEAR_OF_BLACK * deviation)
        try:
            line = _fitted(blocks[clear], known)
        except NoiseUnknown:
            return every
        line = dataclasses.replace(line, chosen=clear[line.chosen])
    bent = abs(line.a - every.a) > BENT * math.hypot(line.gain_error, every.gain_error)
    return line if bent and line.gain_error < ROUGH * line.a else every


def _piled_up(blocks: _Blocks, black: float, line: _Line) -> float:
    """The share of values at the smallest one, beyond what counting explains, in the darkest of the chosen blocks."""
    dark = line.chosen[np.argsort(blocks.mean[line.chosen])[: max(FEWEST, len(line.chosen) // 10)]]
    counted = np.exp(-np.maximum(blocks.mean[dark] - black, 0) / line.a)
    return float((blocks.black[dark] - counted).mean())


def _fitted(blocks: _Blocks, known: Known) -> _Line:
    """The line through the homogeneous ones of some blocks.

    Raises:
        NoiseUnknown: these do not tell.
    """
    from scipy.stats import chi2

    if len(blocks) < FEWEST:
        few = f"only {len(blocks)} blocks of 8x8 pixels are neither constant nor cut off, of {FEWEST} that it takes"
        raise NoiseUnknown(_unknown(few, known))
    chosen = _smoothest(blocks)
    variance = np.full(len(blocks), float(np.median(blocks.fine[chosen])))
    floor, a = 1e-3 * variance[0], 0.0
    for _ in range(ROUNDS):
        line = _weighted(blocks, chosen, _of_squares(variance, a) / COUNT, known)
        a = max(line.a, 0.0)
        variance = np.maximum(line.a * blocks.mean + line.b, floor)
        # As many independent normal numbers scatter as much.
        free = 2 * COUNT * variance**2 / _of_squares(variance, a)
        quiet = blocks.coarse / variance < chi2.ppf(HOMOGENEOUS, 2 * free) / (2 * free)
        plausible = blocks.fine / variance < chi2.ppf(PLAUSIBLE, free) / free
        chosen = np.flatnonzero(quiet & plausible)
        if len(chosen) < FEWEST:
            raise NoiseUnknown(_unknown("hardly any of it is without texture", known))
    _check(line, blocks, variance, known)
    return line


def _smoothest(blocks: _Blocks) -> np.ndarray:
    """The smoothest blocks of every brightness."""
    groups = np.array_split(np.argsort(blocks.mean), min(BRIGHTNESSES, len(blocks) // 4))
    return np.concatenate(
        [group[np.argsort(blocks.coarse[group])[: max(2, int(SMOOTHEST * len(group)))]] for group in groups]
    )


def _of_squares(variance: np.ndarray, a: float) -> np.ndarray:
    """The variance of a squared detail: twice the square of its variance, and more where electrons are few."""
    return 2 * variance**2 + FOURTH * a**2 * variance


def _weighted(blocks: _Blocks, chosen: np.ndarray, scatter: np.ndarray, known: Known) -> _Line:
    """The line of least squares, each weighed by the inverse of its scatter; what is known is kept."""
    mean, fine, weights = blocks.mean[chosen], blocks.fine[chosen], 1 / scatter[chosen]
    offset = known.offset or 0.0
    # a and b as `given + directions * unknown`.
    if known.gain is not None:
        given, directions = np.array([known.gain, 0.0]), np.array([[0.0], [1.0]])
    elif known.read_noise is not None:
        given, directions = np.array([0.0, known.read_noise**2]), np.array([[1.0], [-offset]])
    else:
        given, directions = np.zeros(2), np.eye(2)
    columns = np.stack([mean, np.ones_like(mean)], 1)
    design = columns @ directions
    normal = np.linalg.pinv(design.T @ (design * weights[:, None]), hermitian=True)
    unknown = normal @ (design.T @ (weights * (fine - columns @ given)))
    a, b = given + directions @ unknown
    excess = float((weights * (fine - a * mean - b) ** 2).mean())
    return _Line(float(a), float(b), directions @ normal @ directions.T * max(1.0, excess), chosen)


def _check(line: _Line, blocks: _Blocks, variance: np.ndarray, known: Known) -> None:
    """Raises `NoiseUnknown` where the line is not that of a sensor."""
    if known.gain is not None:
        return
    mean = blocks.mean[line.chosen]
    by_chance = math.sqrt(float(variance[line.chosen].mean()) / (4 * COUNT))
    if known.read_noise is None and float(mean.std()) < SPREAD * by_chance:
        raise NoiseUnknown(_unknown("all of it has about the same brightness", known))
    if line.a <= 2 * line.gain_error:
        level = math.sqrt(float(np.median(variance[line.chosen])))
        flat = f"its noise of {level:.3g} hardly grows with brightness"
        raise NoiseUnknown(_unknown(flat, known) + ", or take it for white noise with sigma=")
    if line.gain_error > HOPELESS * line.a:
        raise NoiseUnknown(
            _unknown(f"texture leaves the gain of {line.a:.2g} uncertain by {line.gain_error:.2g}", known)
        )


def _whiteness_of(planes: np.ndarray, masks: np.ndarray) -> float | None:
    """The lowest whiteness of the pictures of a stack."""
    shares = [whiteness(image.mean(0) / image.std(), mask) for image, mask in zip(planes, masks, strict=True)]
    return min((share for share in shares if share is not None), default=None)


def _cautions(blocks: _Blocks, black: float, line: _Line, white: float | None) -> list[str]:
    """Doubts about an estimate, in full sentences."""
    cautions = []
    piled = _piled_up(blocks, black, line)
    if piled > PILED_UP:
        cautions.append(
            f"{100 * piled:.0f}% more of the values are {black:g} than counting explains: noise was cut off there, "
            "which misleads the estimate; give gain= and read_noise= if you know them"
        )
    if white is not None and white < WHITE:
        cautions.append(
            f"the noise is not white (whiteness {white:.2f}), as after demosaicing, resizing or compression: gain and "
            "read noise read too low; take the values as the sensor gave them"
        )
    if line.gain_error > ROUGH * line.a:
        cautions.append(
            f"the gain is uncertain by {100 * line.gain_error / line.a:.0f}%: little of the picture is without texture"
        )
    return cautions


def _estimate(line: _Line, blocks: _Blocks, known: Known, cautions: tuple[str, ...]) -> SensorNoiseEstimate:
    """The estimate of a line."""
    read_noise, offset = known.read_noise, known.offset
    if offset is None:
        offset = max(0.0, -line.b / line.a) if read_noise is None else 0.0
    if read_noise is None:
        read_noise = math.sqrt(max(0.0, line.b + line.a * offset))
    order = line.chosen[np.argsort(blocks.mean[line.chosen])]
    groups = np.array_split(order, min(BRIGHTNESSES, len(order) // 4))
    return SensorNoiseEstimate(
        SensorNoise(line.a, read_noise, offset),
        line.gain_error,
        math.sqrt(float(line.covariance[1, 1])),
        len(order) / len(blocks),
        tuple(float(blocks.mean[group].mean()) for group in groups),
        tuple(float(blocks.fine[group].mean()) for group in groups),
        cautions,
    )
