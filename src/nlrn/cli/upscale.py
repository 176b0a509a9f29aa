"""`nlrn upscale`."""

from __future__ import annotations

from . import options
from .enlargement import parse_enlargement
from .shared import Shared, make_restorer, restore_all, with_shared


@with_shared
def upscale(
    shared: Shared,
    scale: options.Scale = None,
    size: options.SizeText = None,
    fit: options.FitText = None,
    model: options.ModelName = None,
) -> None:
    """Make images larger (super-resolution).

    Results are named STEM-x2.EXT and so on. The network restores the luma of a bicubic enlargement; colours are
    bicubic, and so is alpha but for its edges. Above 4 times it is applied twice. Depth, EXIF and colour profile are
    kept. Originals are never modified.
    """
    enlarged = parse_enlargement(2 if (scale, size, fit) == (None, None, None) else scale, size, fit)
    assert enlarged is not None
    restore_all(shared, lambda: make_restorer(shared, "upscale", model, enlarged=enlarged), enlarged.suffix)
