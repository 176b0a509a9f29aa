"""Neighbourhoods of the non-local framework: over which pixels the mean is taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .affinities import check_odd
from .block_matching import BAND, block_matching
from .patches import mirror

# Pixels of a piece, their neighbours' positions `[n, K]`, and which of these exist; `None` for all.
Piece = tuple[slice, Tensor | None, Tensor | None]


class Neighbourhood(ABC):
    """Which pixels j are averaged for a pixel i."""

    @abstractmethod
    def pieces(self, guide: Tensor, rows: tuple[int, int], most: int) -> Iterator[Piece]:
        """The pixels of some rows of `guide` `[C, H, W]`, no more than `most` at a time, with their neighbours."""

    @property
    @abstractmethod
    def count(self) -> int | None:
        """The most neighbours of a pixel; `None` for all."""


@dataclass(frozen=True)
class Window(Neighbourhood):
    """The `size x size` square centred on i, truncated at the image border.

    Args:
        size: odd side in pixels.
    """

    size: int

    def __post_init__(self) -> None:
        check_odd("size", self.size)

    @property
    def count(self) -> int:
        """Those of a window within the image."""
        return self.size**2

    def pieces(self, guide: Tensor, rows: tuple[int, int], most: int) -> Iterator[Piece]:
        height, width = guide.shape[1:]
        # A window that reaches beyond the image on both sides sees no more than one that just does.
        down, across = (torch.arange(-r, r + 1, device=guide.device) for r in self._radii(height, width))
        for piece in _pieces(rows[0] * width, rows[1] * width, most):
            at = torch.arange(piece.start, piece.stop, device=guide.device)
            y, x = (at // width)[:, None] + down, (at % width)[:, None] + across
            inside_y, inside_x = (y >= 0) & (y < height), (x >= 0) & (x < width)
            exists = (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1)
            yield piece, (y[:, :, None] * width + x[:, None, :]).flatten(1), exists

    def _radii(self, height: int, width: int) -> tuple[int, int]:
        return min(self.size // 2, height - 1), min(self.size // 2, width - 1)


@dataclass(frozen=True)
class WholeImage(Neighbourhood):
    """All pixels."""

    @property
    def count(self) -> None:
        """All."""
        return None

    def pieces(self, guide: Tensor, rows: tuple[int, int], most: int) -> Iterator[Piece]:
        width = guide.shape[2]
        for piece in _pieces(rows[0] * width, rows[1] * width, most):
            yield piece, None, None


@dataclass(frozen=True)
class MostSimilar(Neighbourhood):
    """The `number` pixels whose patches are most like that of i, i itself included: block matching.

    Which pixels these are has no gradient. Beyond the image border a patch sees the image mirrored; a pixel there does
    not exist.

    Args:
        number: of neighbours, K.
        patch_size: odd side of the patches that are compared.
        search_size: odd side of the square, centred on i, of the pixels that are compared.

    Source: equation 2 of Liu et al. (see `EmbeddedGaussian`), for what BM3D, LSSC and WNNM do.
    """

    number: int
    patch_size: int = 7
    search_size: int = 21

    def __post_init__(self) -> None:
        check_odd("patch_size", self.patch_size)
        check_odd("search_size", self.search_size)
        if not 1 <= self.number <= self.search_size**2:
            raise ValueError(f"number must be 1 to search_size^2 = {self.search_size**2}, got {self.number}")

    @property
    def count(self) -> int:
        """K."""
        return self.number

    def pieces(self, guide: Tensor, rows: tuple[int, int], most: int) -> Iterator[Piece]:
        width = guide.shape[2]
        padded = mirror(guide.detach(), self.patch_size // 2)
        across = padded.shape[2]
        for top in range(*rows, BAND):
            band = range(top, min(top + BAND, rows[1]))
            found, distances = block_matching(
                padded, self.patch_size, 1, self.search_size, self.number, list(band)
            )
            # Upper left pixels in the padded image are the patches' centres in the image.
            positions, exist = found // across * width + found % across, distances.isfinite()
            start = top * width
            for piece in _pieces(0, len(positions), most):
                yield slice(start + piece.start, start + piece.stop), positions[piece], exist[piece]


def _pieces(start: int, stop: int, most: int) -> Iterator[slice]:
    for first in range(start, stop, most):
        yield slice(first, min(first + most, stop))
