"""The power spectrum of noise that neighbours or whole rows and columns share, from one picture.

    spectrum = blocks + rows + columns

`blocks` is what neighbours share, within half a block: the mean spectrum of the smoothest blocks. `rows` and `columns`
are offsets of a whole row or column, whose power lies on one axis of the spectrum. They show in the second differences
of the medians of parts of each row: the offset is that of all parts, and edges of the picture are those of some.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .noise_level import estimate_noise, without_slopes

SMALLEST_SIDE = 32
# Side of a block, how many blocks are looked at, and the share of them that are smooth.
BLOCK, BLOCKS, SMOOTH = 16, 20_000, 16
# Parts of a row whose medians are compared, pixels for one, and the share of the other noise's variance from which
# offsets are taken into account.
PARTS, SAMPLES, CERTAIN = 6, 128, 0.05
# Offsets beyond doubt have this share of the level of the other noise, and so many grey levels.
CLEAR, CLEAREST = 0.5, 2 / 255
# From this whiteness on the noise of blocks is taken for white.
WHITE = 0.7
# The variance below which there is no noise.
NOTHING = (0.05 / 255) ** 2
# The least power of a frequency, as a share of the mean.
FLOOR = 1e-3


@dataclass(frozen=True)
class NoiseSpectrum:
    """The spectrum of the noise of an image, for each channel.

    Args:
        blocks: `[C, 16, 16]`, power by frequency, in squared units of [0, 1]; its mean is the variance.
        rows: `[C]`, variance of the offsets of rows.
        columns: `[C]`, variance of the offsets of columns.
        whiteness: of the noise without these offsets, 1 minus the correlation of neighbours.
    """

    blocks: Tensor
    rows: Tensor
    columns: Tensor
    whiteness: float

    @property
    def variance(self) -> float:
        """The variance of the noise, a mean over channels."""
        return float(self.blocks.mean() + self.rows.mean() + self.columns.mean())

    @property
    def is_white(self) -> bool:
        """True where pixels share nothing that can be told from chance."""
        return self.variance < NOTHING or (
            self.whiteness >= WHITE and not self.rows.any() and not self.columns.any()
        )

    @property
    def note(self) -> str:
        """A sentence for the user on what is shared."""
        shares = [float(part.mean()) / self.variance for part in (self.rows, self.columns)]
        named = [
            f"{name} {100 * share:.0f}%"
            for name, share in zip(("rows", "columns"), shares, strict=True)
            if share
        ]
        offsets = f"offsets of {' and of '.join(named)} of its variance; " if named else ""
        return f"correlated noise, removed by its spectrum: {offsets}between neighbours whiteness {self.whiteness:.2f}"

    def scaled_to(self, sigma: float) -> NoiseSpectrum:
        """The same spectrum for noise of another standard deviation."""
        factor = sigma**2 / max(self.variance, 1e-12)
        return NoiseSpectrum(self.blocks * factor, self.rows * factor, self.columns * factor, self.whiteness)

    def on_grid(self, height: int, width: int) -> Tensor:
        """`[C, height, width]`, the power at the frequencies of `torch.fft.fft2` of an image of that size."""
        shared = torch.fft.ifft2(self.blocks).real
        grid = torch.zeros(len(self.blocks), height, width, dtype=torch.float64)
        places = (torch.arange(BLOCK) + BLOCK // 2) % BLOCK - BLOCK // 2
        grid[:, (places % height)[:, None], places % width] = shared
        power = torch.fft.fft2(grid).real
        # A cut-off autocovariance can have negative power.
        power = torch.maximum(power, FLOOR * power.mean((1, 2), keepdim=True))
        least = FLOOR * power.mean((1, 2))
        power[:, :, 0] += self.rows[:, None] * width
        power[:, 0, :] += self.columns[:, None] * height
        power[:, 0, 0] = least  # the mean of the picture is that of the data
        return power


def estimate_spectrum(image: Tensor, hidden: Tensor | None = None) -> NoiseSpectrum:
    """Estimates the spectrum of the noise of an image.

    Args:
        image: `[1, C, H, W]` in units of [0, 1].
        hidden: `[1, 1, H, W]`, the pixels that are not part of the picture.

    Raises:
        ValueError: an image of fewer than 32 pixels a side.

    Example:
        >>> import torch
        >>> from nlrn.inference.noise_spectrum import estimate_spectrum
        >>> generator = torch.Generator().manual_seed(0)
        >>> rows = 0.1 * torch.randn(1, 1, 128, 1, generator=generator)
        >>> noise = rows + 0.05 * torch.randn(1, 1, 128, 128, generator=generator)
        >>> spectrum = estimate_spectrum(0.5 + noise)
        >>> round(float(spectrum.rows) ** 0.5, 1), round(float(spectrum.columns), 3), spectrum.is_white
        (0.1, 0.0, False)
    """
    height, width = image.shape[2:]
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"the spectrum of the noise of a {width}x{height} image cannot be estimated "
            f"(it takes {SMALLEST_SIDE} pixels a side)"
        )
    planes = image[0].detach().double().cpu().numpy()
    mask = np.zeros((height, width), bool) if hidden is None else hidden[0, 0].cpu().numpy()
    found = [
        _of_plane(plane, mask, _white_level(image[:, c : c + 1], hidden)) for c, plane in enumerate(planes)
    ]
    blocks, rows, columns, whiteness = zip(*found, strict=True)
    return NoiseSpectrum(
        torch.from_numpy(np.stack(blocks)),
        torch.tensor(rows, dtype=torch.float64),
        torch.tensor(columns, dtype=torch.float64),
        float(np.mean(whiteness)),
    )


def _white_level(plane: Tensor, hidden: Tensor | None) -> float:
    """The level of the noise if it is white. Offsets of rows and columns do not count: it follows from diagonals."""
    return estimate_noise(plane, hidden).sigma


def shared_by_lines(plane: np.ndarray, hidden: np.ndarray, white: float) -> tuple[float, float]:
    """The variances of the offsets of rows and of columns of `H x W`; 0 where they are no more than chance.

    Args:
        plane: the picture.
        hidden: the pixels that are not part of it.
        white: level of the other noise.
    """
    offsets = (_offsets(plane, hidden), _offsets(plane.T, hidden.T))
    rows, columns = (value if value > CERTAIN * white**2 and value > NOTHING else 0.0 for value in offsets)
    return rows, columns


def clear_lines(image: Tensor, hidden: Tensor | None, white: float) -> tuple[str, ...]:
    """`"rows"` and `"columns"` where their offsets in an image `[1, C, H, W]` are beyond doubt.

    In 80 photographs without them (BSD400) it finds some in one, and with white noise of 10 grey levels in none.
    """
    if min(image.shape[2:]) < SMALLEST_SIDE:
        return ()
    plane = image[0].mean(0).double().cpu().numpy()
    mask = np.zeros(plane.shape, bool) if hidden is None else hidden[0, 0].cpu().numpy()
    found = shared_by_lines(plane, mask, white)
    named = zip(("rows", "columns"), found, strict=True)
    return tuple(name for name, value in named if value**0.5 > max(CLEAR * white, CLEAREST))


def _of_plane(plane: np.ndarray, hidden: np.ndarray, white: float) -> tuple[np.ndarray, float, float, float]:
    """Spectrum of blocks, variances of offsets, and whiteness of `H x W`."""
    rows, columns = shared_by_lines(plane, hidden, white)
    power = _spectrum(plane, hidden, rows=rows > 0, columns=columns > 0)
    shared = np.fft.ifft2(power).real
    whiteness = float(1 - (shared[0, 1] + shared[1, 0]) / 2 / max(shared[0, 0], 1e-12))
    if whiteness >= WHITE:
        power = np.full_like(power, white**2)
    return power, rows, columns, whiteness


def _offsets(plane: np.ndarray, hidden: np.ndarray) -> float:
    """The variance of the offsets of rows."""
    step = max(1, plane.shape[1] // (PARTS * SAMPLES))
    values = plane[:, ::step]
    if hidden.any():
        values = np.where(hidden[:, ::step], np.nan, values)
    second = values[1:-1] - (values[:-2] + values[2:]) / 2
    medians = np.stack([_medians(part) for part in np.array_split(second, PARTS, axis=1)])
    products = [medians[i] * medians[j] for i in range(PARTS) for j in range(i)]
    means = [float(np.nanmean(one)) for one in products if np.isfinite(one).any()]
    # Of white offsets the second differences have 1.5 times the variance.
    return max(0.0, float(np.median(means)) / 1.5) if means else 0.0


def _medians(part: np.ndarray) -> np.ndarray:
    """The median of each row; NaN for rows of NaN."""
    known = np.isfinite(part)
    if known.all():
        return np.asarray(np.median(part, axis=1))
    result = np.full(len(part), np.nan)
    some = known.any(1)
    result[some] = np.nanmedian(part[some], axis=1)
    return result


def _spectrum(plane: np.ndarray, hidden: np.ndarray, *, rows: bool, columns: bool) -> np.ndarray:
    """The mean spectrum `[16, 16]` of the smoothest blocks, without what rows or columns have in common."""
    step = max(4, round((plane.size / BLOCKS) ** 0.5))
    blocks, covered = (
        np.lib.stride_tricks.sliding_window_view(x, (BLOCK, BLOCK))[::step, ::step].reshape(-1, BLOCK, BLOCK)
        for x in (plane, hidden)
    )
    visible = ~covered.any((1, 2))
    blocks = without_slopes(blocks[visible] if visible.any() else blocks)
    if rows:
        blocks = blocks - blocks.mean(2, keepdims=True)
    if columns:
        blocks = blocks - blocks.mean(1, keepdims=True)
    energy = (blocks**2).mean((1, 2))
    blocks, energy = blocks[energy > 1e-12], energy[energy > 1e-12]
    if not len(blocks):
        return np.full((BLOCK, BLOCK), 1e-12)
    smooth = blocks[np.argsort(energy)[: max(8, len(energy) // SMOOTH)]]
    window = np.hanning(BLOCK + 2)[1:-1]
    window /= np.sqrt((window**2).mean())
    power: np.ndarray = (np.abs(np.fft.fft2(smooth * window[:, None] * window)) ** 2).mean(0) / BLOCK**2
    if rows:
        power[:, 0] = (power[:, 1] + power[:, -1]) / 2
    if columns:
        power[0] = (power[1] + power[-1]) / 2
    return power
