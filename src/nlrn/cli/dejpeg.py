"""`nlrn dejpeg`."""

from __future__ import annotations

from . import options
from .shared import Shared, make_restorer, restore_all, with_shared


@with_shared
def dejpeg(
    shared: Shared,
    strength: options.StrengthText = "1",
    model: options.ModelName = None,
) -> None:
    """Remove JPEG artifacts from images.

    Results are named STEM-dejpeg.EXT. The quality need not be known. EXIF and colour profile are kept. Originals are
    never modified.
    """
    restore_all(shared, lambda: make_restorer(shared, "dejpeg", model, strength=strength), "-dejpeg")
