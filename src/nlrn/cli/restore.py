"""`nlrn restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from . import options, parsing
from .enlargement import parse_enlargement
from .shared import Shared, make_restorer, restore_all, with_shared

if TYPE_CHECKING:
    from ..restoration import Settings
    from ..restoration.purpose import Purpose


@with_shared
def restore(
    shared: Shared,
    scale: options.Scale = None,
    size: options.SizeText = None,
    fit: options.FitText = None,
    purpose: options.PurposeName = None,
    estimate: options.Estimate = "stack",
    strength: options.StrengthText = "1",
) -> None:
    """Measure what pictures need, then denoise or dejpeg them.

    Noise and compression are measured, and a note on each result says what was found and done. Pictures without either
    stay as they are. --scale, --size or --fit enlarge them last. Results are named STEM-restored.EXT. Originals are
    never modified.
    """
    enlarged = parse_enlargement(scale, size, fit)
    own: Settings = {"purpose": cast("Purpose | None", purpose)}  # which refuses what is none
    restore_all(
        shared,
        lambda: make_restorer(shared, "restore", enlarged=enlarged, strength=strength, own=own),
        "-restored" + ("" if enlarged is None else enlarged.suffix),
        estimate=parsing.parse_estimate(estimate),
    )
